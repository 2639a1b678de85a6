"""
What a turn needs of a transcript, read from its end, is what the whole of it says.

Oracle: the full `Tree`.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any
from unittest import mock

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from holdfast._core import jsonl
from holdfast._core.branch import Branch
from holdfast._core.tree import Tree, moves_leaf
from holdfast.backends.files.transcript import opening

HEADER: dict[str, Any] = {"type": "session", "version": 3, "id": "s"}
KINDS = ["message"] * 6 + ["compaction", "leaf", "label", "custom_message", "of_tomorrow", 7]
TURNS = ["0190-a", "0190-b", "0190-c"]
TORN = b'{"type":"message","id":"torn"'


@st.composite
def transcripts(draw: st.DrawFn, *, repeats: bool = False) -> list[bytes]:
    """Lines of one file: branches, side entries, `leaf` entries, compactions, and dirt."""
    ids: list[str] = []
    lines = [jsonl.encode([HEADER])]
    for n in range(draw(st.integers(0, 30))):
        name = f"e{n}"
        if repeats and ids and draw(st.integers(0, 9)) == 0:
            name = draw(st.sampled_from(ids))
        names = st.sampled_from([*ids, f"e{n + 2}", "nowhere", name])
        last = ids[-1] if ids else None
        near = st.sampled_from(ids[-4:]) if ids else st.none()
        parent = draw(st.one_of(st.just(last), st.just(last), near, names, st.none()))
        entry = {"type": draw(st.sampled_from(KINDS)), "id": name, "parentId": parent}
        told = draw(st.sampled_from(["user", "assistant"]))
        entry["message"] = {"role": told, "content": f"text {n}"}
        match entry["type"]:
            case "leaf":
                entry["targetId"] = draw(st.one_of(near, names, st.just(["x"])))
            case "compaction":
                entry["firstKeptEntryId"] = draw(st.one_of(near, near, names, st.none()))
                entry["summary"] = f"sum {n}"
        if draw(st.integers(0, 9)) == 0:
            entry["appendMode"] = "side"
        if draw(st.booleans()):
            stamp: dict[str, Any] = {"turn": draw(st.sampled_from(TURNS))}
            stamp |= draw(st.sampled_from([{}, {}, {"final": True}, {"seed": True}]))
            entry["holdfast"] = stamp
        if draw(st.integers(0, 19)) == 0:
            del entry["id"]
        else:
            ids.append(name)
        lines.append(jsonl.encode([entry]))
        dirt = [b"\n", b"[1]\n", TORN + b"\n", b"\xff\xfe\n", b'{"id":"' + b"y" * 90 + b'"}\n']
        if draw(st.integers(0, 9)) == 0:
            lines.append(draw(st.sampled_from(dirt)))
    return lines


def tree_of(data: bytes) -> Tree:
    found = Tree()
    found.feed(jsonl.lines(data))
    return found


def read(data: bytes, back: int, *, header: int = 16) -> Branch | None:
    with (
        tempfile.TemporaryFile() as file,
        mock.patch.object(opening, "BACK_BYTES", back),
        mock.patch.object(opening, "HEADER_BYTES", header),
    ):
        file.write(data)
        file.flush()
        return opening.read_branch(file.fileno(), len(data), "t.jsonl")


def agree(branch: Branch, tree: Tree) -> None:
    assert branch.leaf == tree.leaf
    for turn in (None, *TURNS):
        assert branch.history(without={turn}) == tree.history(without={turn})
    for turn in TURNS:
        assert not branch.speaks(turn) or tree.seeded(turn) is None


def twice_across(data: bytes, start: int) -> bool:
    """An id that stands both in what was read and before it: who reads a part cannot know."""
    ids: list[set[object]] = [set(), set()]
    for line in jsonl.lines(data):
        if line.entry is not None and isinstance(line.entry.get("id"), str):
            ids[line.offset >= start].add(line.entry["id"])
    return bool(ids[0] & ids[1])


@settings(max_examples=200, deadline=None)
@given(
    lines=transcripts(repeats=True),
    torn=st.sampled_from([b"", TORN, TORN * 9]),
    back=st.sampled_from([40, 200, 1000, 100_000]),
)
def test_the_branch_read_from_the_end_is_that_of_the_whole(
    lines: list[bytes], torn: bytes, back: int
) -> None:
    data = b"".join(lines) + torn
    found = read(data, back)
    event(f"found: {found is not None}")
    if found is not None:
        assert found.end == data.rfind(b"\n") + 1
        assume(not twice_across(data, found.end - found.size))
        agree(found, tree_of(data))


@settings(max_examples=100, deadline=None)
@given(lines=transcripts())
def test_the_whole_is_read_only_where_nothing_else_can_tell(lines: list[bytes]) -> None:
    """A `leaf` entry, an id that stands there twice, or not one entry that moves the leaf."""
    data = b"".join(lines)
    if read(data, 200) is None:
        entries = [line.entry for line in jsonl.lines(data) if line.entry is not None][1:]
        named = [entry for entry in entries if isinstance(entry.get("id"), str)]
        assert (
            len({entry["id"] for entry in named}) < len(named)
            or any(entry.get("type") == "leaf" for entry in named)
            or not any(moves_leaf(entry) for entry in named)
        )


@settings(max_examples=200, deadline=None)
@given(
    lines=transcripts(repeats=True),
    cut=st.integers(0, 30),
    step=st.integers(1, 5),
    whole=st.booleans(),
)
def test_a_branch_that_is_fed_what_is_new_is_that_of_the_whole(
    lines: list[bytes], cut: int, step: int, whole: bool
) -> None:
    """However it was read at first; and whatever it was fed twice."""
    at = 1 + min(cut, len(lines) - 1)
    data = b"".join(lines[:at])
    branch = Branch.of(tree_of(data), len(data)) if whole else read(data, 200)
    assume(branch is not None)
    assert branch is not None
    start = 0 if whole else branch.end - branch.size
    while at < len(lines):
        at += step
        data = b"".join(lines[:at])
        if not branch.feed(jsonl.lines(data)):
            event("of no use any more")
            return
        assume(not twice_across(data, start))
        agree(branch, tree_of(data))
        event("fed")


@settings(max_examples=100, deadline=None)
@given(
    lines=transcripts(),
    torn=st.sampled_from([b"", TORN, b'{"turn":"0190-a"']),
    step=st.sampled_from([10, 300, 100_000]),
    since=st.integers(0, 30),
)
def test_what_a_turn_has_left_is_found_by_its_name(
    lines: list[bytes], torn: bytes, step: int, since: int
) -> None:
    data = b"".join(lines) + torn
    whole = tree_of(data)
    start = len(b"".join(lines[:since]))
    behind = tree_of(lines[0] + b"".join(lines[max(since, 1) :]))
    with tempfile.TemporaryFile() as file, mock.patch.object(opening, "SEARCH_BYTES", step):
        file.write(data)
        file.flush()
        fd = file.fileno()
        for turn in TURNS:
            for at, oracle in ((0, whole), (start, behind)):
                found = Tree(header={})
                found.feed(opening.lines_with(fd, turn, at, os.fstat(fd).st_size, "t.jsonl"))
                assert found.ends.get(turn) == oracle.ends.get(turn)
                assert found.questions.get(turn) == oracle.questions.get(turn)
                assert left_by(found, turn) == left_by(oracle, turn)


def left_by(tree: Tree, turn: str) -> list[dict[str, Any]]:
    return [e for e in tree.entries.values() if e.get("holdfast", {}).get("turn") == turn]


def test_a_parent_that_comes_later_makes_the_branch_longer() -> None:
    """Nobody writes so, but the whole reads it so."""
    entry = {"type": "message", "id": "a", "parentId": "late", "message": {"content": "1"}}
    late = {"type": "message", "id": "late", "appendMode": "side", "message": {"content": "0"}}
    data = jsonl.encode([HEADER, entry])
    for branch in (Branch.of(tree_of(data), len(data)), read(data, 200)):
        assert branch is not None
        assert branch.history() == ({"content": "1"},)
        assert not branch.feed(jsonl.lines(data + jsonl.encode([late])))
    assert len(tree_of(data + jsonl.encode([late])).history()) == 2
