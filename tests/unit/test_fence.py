"""
The fence's table, all of it, and what is told of the bytes behind a mark.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from holdfast._core import fence, jsonl
from holdfast._core.fence import ROWS, Ledger, Look, Size
from holdfast._core.tree import Tree
from holdfast.types import Change, Mark

CELLS = list(itertools.product((True, False), Size, (True, False), (True, False)))
LOOK = Look(device=1, inode=2, birth_ns=3, size=1000, mtime_ns=5)
MARK = Mark(1, 2, 1000, "m", 3, 5, whole=990, tail=b"tail")
WHOLE = replace(MARK, whole=1000)
HEADER = {"type": "session", "version": 3, "id": "s"}


def entry(
    entry_id: str, parent: str | None, kind: str = "message", **more: Any
) -> dict[str, Any]:
    return {"type": kind, "id": entry_id, "parentId": parent, **more}


def never() -> str | None:
    raise AssertionError("the whole transcript was read")


def told(*entries: dict[str, Any], own: Ledger | None = None, after: bytes = b"") -> Change:
    return fence.told(WHOLE, jsonl.encode(entries) + after, own, never)


# ------------------------------------------------------------------------------ the table


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_every_look_has_exactly_one_verdict(cell: tuple[bool, Size, bool, bool]) -> None:
    same_file, size, same_mtime, same_tail = cell
    row = fence.row(same_file=same_file, size=size, same_mtime=same_mtime, same_tail=same_tail)
    if row.verdict == "same":
        assert (same_file, size, same_mtime, same_tail) == (True, Size.EQUAL, True, True)
    if row.verdict == "appended":
        assert (same_file, size, same_tail) == (True, Size.GROWN, True)
    if size is Size.CUT:
        assert row.verdict == "rewritten", "whole lines are missing: no digest can show them"
    elif not same_file:
        assert row.verdict == "needs_digest", "the tail of another file decides nothing"
    assert bool(row.why) == (row.verdict != "same"), "a person must be told why"


def test_every_row_is_used_and_named_once() -> None:
    used = {
        fence.row(same_file=a, size=size, same_mtime=b, same_tail=c).label
        for a, size, b, c in CELLS
    }
    assert used == {row.label for row in ROWS}
    assert len(used) == len(ROWS)


@pytest.mark.parametrize(
    ("look", "tail", "verdict"),
    [
        (LOOK, b"tail", "same"),
        (replace(LOOK, size=1001), b"tail", "appended"),
        (replace(LOOK, size=1001, mtime_ns=9), b"tail", "appended"),
        (replace(LOOK, mtime_ns=9), b"tail", "needs_digest"),
        (replace(LOOK, inode=9), b"tail", "needs_digest"),
        (replace(LOOK, device=9), b"tail", "needs_digest"),
        (replace(LOOK, birth_ns=9), b"tail", "needs_digest"),
        (replace(LOOK, inode=9, size=5000), None, "needs_digest"),
        (replace(LOOK, size=995), None, "needs_digest"),
        (replace(LOOK, size=989), None, "rewritten"),
        (replace(LOOK, inode=9, size=989), None, "rewritten"),
        (LOOK, b"liar", "rewritten"),
        (replace(LOOK, size=2000), b"liar", "rewritten"),
    ],
)
def test_a_look_beside_a_mark(look: Look, tail: bytes | None, verdict: str) -> None:
    assert fence.classify(MARK, look, tail).verdict == verdict


def test_a_platform_without_births_goes_by_inodes() -> None:
    mark, look = replace(MARK, birth_ns=None), replace(LOOK, birth_ns=None)
    assert fence.classify(mark, look, b"tail").verdict == "same"


# ------------------------------------------------------------------- what stands behind it


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("message", "e"),
        ("custom", "e"),
        ("model_change", "e"),
        ("compaction", "e"),
        ("label", "e"),
        ("session_info", "e"),
        ("of_the_future", "e"),
    ],
)
def test_no_kind_of_entry_is_a_takeover(kind: str, head: str) -> None:
    found = told(entry("e", "m", kind))
    assert (found.kind, found.head) == ("appended", head)
    assert [each["id"] for each in found.entries] == ["e"]


def test_a_label_elsewhere_and_a_side_entry_leave_the_head_alone() -> None:
    found = told(entry("l", "x", "label"), entry("s", "m", appendMode="side"))
    assert (found.kind, found.head) == ("appended", "m")
    assert len(found.entries) == 2


def test_a_torn_line_was_appended_too() -> None:
    found = told(after=b'{"type":"message","id":"half')
    assert (found.kind, found.entries, found.head) == ("appended", (), "m")


def test_a_line_that_does_not_parse_was_appended_too() -> None:
    assert told(after=b"no json\n").kind == "appended"


def test_what_we_append_ourselves_is_not_told_as_somebody_elses() -> None:
    own = Ledger()
    own.add([entry("o", "m")])
    found = told(entry("o", "m"), own=own)
    assert (found.kind, found.entries, found.head) == ("same", (), "o")
    found = told(entry("o", "m"), entry("f", "o"), own=own)
    assert (found.kind, found.head) == ("appended", "f")
    assert [each["id"] for each in found.entries] == ["f"]


def test_what_we_have_appended_must_still_be_there() -> None:
    own = Ledger()
    own.add([entry("o", "m")])
    assert told(own=own).kind == "rewritten"
    assert told(entry("f", "m"), own=own).kind == "rewritten"


def test_our_newline_behind_a_torn_tail_is_nobodys_entry() -> None:
    own = Ledger()
    own.add([entry("o", "m")])
    rest = b'{"torn\n' + jsonl.encode([entry("o", "m")])
    found = fence.told(replace(MARK, whole=994), rest, own, never)
    assert (found.kind, found.head) == ("same", "o")


def test_a_torn_tail_that_was_cut_took_nothing_away() -> None:
    assert fence.told(MARK, b"", None, never).kind == "same"
    assert fence.told(MARK, b'{"torn', None, never).kind == "same"


def test_a_leaf_entry_that_points_further_up_is_looked_for() -> None:
    rest = jsonl.encode([entry("l", None, "leaf", targetId="far")])
    assert fence.told(WHOLE, rest, None, lambda: "far").head == "far"
    here = jsonl.encode([entry("e", "m"), entry("l", None, "leaf", targetId="m")])
    assert fence.told(WHOLE, here, None, never).head == "m"


def test_a_header_is_no_entry_of_others() -> None:
    empty = Mark(1, 2, 0, None)
    found = fence.told(empty, jsonl.encode([HEADER, entry("e", None)]), None, never)
    assert [each["id"] for each in found.entries] == ["e"]
    assert found.head == "e"


KINDS = [
    lambda i, at: entry(f"e{i}", at),
    lambda i, at: entry(f"e{i}", "x", "label"),
    lambda i, at: entry(f"e{i}", at, "session_info"),
    lambda i, at: entry(f"e{i}", at, appendMode="side"),
    lambda i, at: entry(f"e{i}", None, "leaf", targetId="e0"),
]


@pytest.mark.parametrize("kinds", list(itertools.product(range(len(KINDS)), repeat=3)), ids=str)
def test_the_head_is_the_one_that_the_whole_tree_has(kinds: tuple[int, ...]) -> None:
    tree, at = Tree(), None
    entries = []
    for number, kind in enumerate(kinds):
        entries.append(KINDS[kind](number, at))
        tree = Tree()
        tree.feed(jsonl.lines(jsonl.encode([HEADER, *entries])))
        at = tree.leaf
    for cut in range(len(entries)):
        before = Tree()
        before.feed(jsonl.lines(jsonl.encode([HEADER, *entries[:cut]])))
        mark = replace(WHOLE, leaf=before.leaf)
        rest = jsonl.encode(entries[cut:])
        assert fence.told(mark, rest, None, lambda: tree.leaf).head == tree.leaf
    known, leaf = fence.last_base(list(jsonl.lines(jsonl.encode([HEADER, *entries]))))
    assert not known or leaf == tree.leaf
