"""Each finding, and what repair does about it; and that nothing which parses is ever lost."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._core import verify as checks
from holdfast._core.jsonl import lines as parsed
from holdfast._core.repair import NewerFormatError, Repair
from holdfast._core.tree import Tree
from holdfast._core.verify import Verifier, verify

HEADER = {"type": "session", "version": 3, "id": "s", "timestamp": "t", "cwd": "/"}


def lines(*entries: Any) -> bytes:
    return b"".join(
        (entry if isinstance(entry, bytes) else json.dumps(entry).encode()) + b"\n"
        for entry in entries
    )


def entry(entry_id: str, parent: str | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "message", "id": entry_id, "parentId": parent, **more}


def asks(turn: str, parent: str | None = None) -> dict[str, Any]:
    stamp = {"turn": turn, "attempt": 1, "token": 1, "seq": 0}
    return entry(f"q{turn}", parent, message={"role": "user"}, holdfast=stamp)


def replies(turn: str, parent: str | None) -> dict[str, Any]:
    stamp = {"turn": turn, "attempt": 1, "token": 1, "seq": 1, "final": True}
    return entry(f"f{turn}", parent, message={"role": "assistant"}, holdfast=stamp)


def repaired(data: bytes, restore: bytes = b"") -> tuple[bytes, Repair]:
    """The whole repaired file, without the last entry that tells of it."""
    numbers = itertools.count(1)
    repair = Repair(session_id="mine", now="now", new_id=lambda: f"new{next(numbers)}")
    *whole, tail = data.split(b"\n")
    out = b"".join(map(repair.line, whole)) + repair.tail(tail) + repair.settle()
    return out + repair.restore(restore), repair


def entries(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines() if line.strip()]


GOOD = [asks("a"), replies("a", "qa")]
LAST = entry("z", "fa")

#: Finding → damaged file, what it is counted as, and its lines as they are afterwards.
TABLE: dict[str, tuple[bytes, dict[str, int], list[Any]]] = {
    "unparsable": (
        lines(HEADER, *GOOD, b'{"type": "mess', LAST, b"[1]", b"\xff"),
        {"unparsable": 3},
        [HEADER, *GOOD, LAST],
    ),
    "torn_tail": (
        lines(HEADER, *GOOD) + b'{"type": "mess',
        {"torn_tail": 1},
        [HEADER, *GOOD],
    ),
    "torn_tail, whole but for its newline": (
        lines(HEADER, *GOOD, LAST)[:-1],
        {"torn_tail": 1},
        [HEADER, *GOOD, LAST],
    ),
    "no_header": (
        lines(*GOOD),
        {"no_header": 1},
        [
            {"type": "session", "version": 3, "id": "mine", "timestamp": "now", "cwd": "",
             "holdfast": {"recovered": True}},
            *GOOD,
        ],
    ),
    "no_header, but below rubbish": (
        lines(b"\x00\x00", HEADER, *GOOD),
        {"no_header": 1, "unparsable": 1},
        [HEADER, *GOOD],
    ),
    "bad_header": (
        lines({**HEADER, "id": 7}, *GOOD),
        {"bad_header": 1},
        [{**HEADER, "id": "mine", "holdfast": {"repaired": {"id": 7}}}, *GOOD],
    ),
    "bad_version": (
        lines({**HEADER, "version": "3"}, *GOOD),
        {"bad_version": 1},
        [{**HEADER, "holdfast": {"repaired": {"version": "3"}}}, *GOOD],
    ),
    "bad_entry_type": (
        lines(HEADER, {"id": "a", "parentId": None}, {"id": "b", "type": 7, "parentId": "a",
              "message": {"role": "user"}}),
        {"bad_entry_type": 2},
        [
            HEADER,
            {"id": "a", "parentId": None, "type": "custom", "customType": "holdfast:untyped",
             "holdfast": {"repaired": {"type": None, "customType": None}}},
            {"id": "b", "type": "message", "parentId": "a", "message": {"role": "user"},
             "holdfast": {"repaired": {"type": 7}}},
        ],
    ),
    "no_id": (
        lines(HEADER, *GOOD, {"type": "label", "targetId": "qa"}, {"type": "x", "parentId": "qa"}),
        {"no_id": 2},
        [
            HEADER, *GOOD,
            {"type": "label", "targetId": "qa", "parentId": "fa", "id": "new1",
             "holdfast": {"repaired": {"parentId": None, "id": None}}},
            {"type": "x", "parentId": "qa", "id": "new2", "holdfast": {"repaired": {"id": None}}},
        ],
    ),
    "duplicate_id": (
        lines(HEADER, *GOOD, entry("qa", None, holdfast=5)),
        {"duplicate_id": 1},
        [HEADER, *GOOD, entry("new1", None, appendMode="side",
         holdfast={"repaired": {"id": "qa", "appendMode": None, "holdfast": 5}})],
    ),
    "unknown_parent": (
        lines(HEADER, *GOOD, entry("b", "gone"), entry("c", "b")),
        {"unknown_parent": 1},
        [HEADER, *GOOD, entry("b", "fa", holdfast={"repaired": {"parentId": "gone"}}),
         entry("c", "b")],
    ),
    "two_finals": (
        lines(HEADER, *GOOD, {**replies("a", "qa"), "id": "x"}),
        {"two_finals": 1},
        [HEADER, *GOOD, entry("x", "qa", message={"role": "assistant"}, holdfast={
            "turn": "a", "attempt": 1, "token": 1, "seq": 1, "repaired": {"final": True}})],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_each_finding_is_repaired_as_the_table_says(name: str) -> None:
    data, counts, wanted = TABLE[name]
    assert not verify(data).ok
    out, repair = repaired(data)
    assert dict(repair.counts) == counts
    assert entries(out) == wanted
    assert verify(out).ok


def test_the_table_has_every_finding_of_verify() -> None:
    assert checks.__doc__ is not None
    listed = checks.__doc__.split("\n\n")[1]
    codes = {word for line in listed.splitlines() for word in line[4:28].split(" · ")}
    codes = {code.strip() for code in codes if code.strip()}
    told = {name.partition(",")[0] for name in TABLE} | {"final_without_question"}
    assert codes == told


def test_a_reply_that_was_made_blind_stays_and_is_told() -> None:
    data = lines(HEADER, asks("a"), asks("b", "qa"), replies("a", "qb"))
    out, repair = repaired(data)
    assert (out, repair.changed) == (data, False)
    assert [p.code for p in verify(out).problems] == ["final_without_question"]


def test_a_reply_whose_question_was_lost_is_not_called_blind_afterwards() -> None:
    out, _ = repaired(lines(HEADER, *GOOD, b"{the question of b", replies("b", "qb")))
    assert verify(out).ok


def test_what_has_nothing_wrong_keeps_every_byte() -> None:
    odd = b'{"type":"message" , "id":"a","parentId":null, "n": 1.0e3,"text":"\\u00e4"}'
    data = lines(HEADER) + b"\r\n" + lines(odd + b"\r") + b" \n"
    assert repaired(data)[0] == data
    assert repaired(data + b"{torn")[0] == data


def test_a_changed_line_keeps_the_bytes_of_its_other_fields() -> None:
    odd = b'{"big":123456789012345678901234567890,"f":1.0,"e":"\\u00e4","parentId":"gone"}'
    out, _ = repaired(lines(HEADER) + odd[:-1] + b',"type":"x","id":"a"}\n')
    line = out.splitlines()[1]
    assert b'"big":123456789012345678901234567890,"f":1.0,"e":"\\u00e4"' in line


def test_a_second_repair_keeps_what_the_first_one_found() -> None:
    once, _ = repaired(lines(HEADER, entry("b", "gone")))
    again = once.replace(b'"parentId":null', b'"parentId":"gone2"')
    stamp = entries(repaired(again)[0])[1]["holdfast"]
    assert stamp == {"repaired": {"parentId": "gone", "again": {"parentId": "gone2"}}}


def test_a_duplicate_does_not_cut_the_conversation_short() -> None:
    out, _ = repaired(lines(HEADER, *GOOD, LAST, asks("a")))
    tree = Tree()
    tree.feed(parsed(out))
    assert [e["id"] for e in tree.path()] == ["qa", "fa", "z"]


def test_a_newer_format_is_no_damage() -> None:
    with pytest.raises(NewerFormatError, match="format version 4"):
        repaired(lines({**HEADER, "version": 4}, entry("a")))


def test_version_1_gets_ids_and_parents_and_its_compaction_an_id() -> None:
    first = {"type": "message", "message": {"role": "user"}}
    old = {key: HEADER[key] for key in HEADER if key != "version"}
    packed = {"type": "compaction", "summary": "x", "firstKeptEntryIndex": 2}
    hook = {"type": "message", "message": {"role": "hookMessage", "x": 1.5}}
    out, repair = repaired(lines(old, first, first, packed, hook))
    assert entries(out) == [
        {**old, "version": 3},
        {**first, "parentId": None, "id": "new1"},
        {**first, "parentId": "new1", "id": "new2"},
        {"type": "compaction", "summary": "x", "parentId": "new2", "id": "new3",
         "firstKeptEntryId": "new2"},
        {"type": "message", "message": {"role": "custom", "x": 1.5}, "parentId": "new3",
         "id": "new4"},
    ]  # fmt: skip
    assert set(repair.counts) == {"migrated"}


def test_what_a_commit_vouched_for_comes_back_and_nothing_twice() -> None:
    cut = lines(HEADER, asks("a"))
    out, repair = repaired(cut, restore=lines(*GOOD))
    assert entries(out) == [HEADER, *GOOD]
    assert dict(repair.counts) == {"restored": 1}


def test_the_last_entry_holds_the_head_and_says_what_was_done() -> None:
    out, repair = repaired(lines(HEADER, *GOOD, b"rubbish", asks("a")))
    last = json.loads(repair.end(copy="c", generation=2))
    assert last["parentId"] == "fa"
    assert last["data"] == {
        "copy": "c", "counts": {"unparsable": 1, "duplicate_id": 1}, "session": "mine",
        "generation": 2,
    }  # fmt: skip
    assert verify(out + lines(last)).ok


# ------------------------------------------------------------------------ any damage

words = st.sampled_from(["qa", "fa", "qb", "fb", "gone", "a"])
odd_values = st.one_of(
    st.none(), st.integers(-1, 9), words, st.just([1]), st.just({"role": "x"})
)
fields = st.sampled_from(
    ["type", "id", "parentId", "message", "holdfast", "version", "appendMode", "targetId"]
)
objects = st.dictionaries(fields, odd_values, max_size=6)
stamped = st.builds(
    lambda turn, final: {"turn": turn, "token": 1, "final": final}, words, st.booleans()
)
entries_ = st.builds(
    lambda o, s: {**o, "holdfast": s} if s else o, objects, st.one_of(st.none(), stamped)
)
rubbish = st.binary(max_size=12).map(lambda b: b.replace(b"\n", b""))
good = st.sampled_from([json.dumps(e).encode() for e in (HEADER, *GOOD, LAST, asks("b", "fa"))])
files = st.lists(
    st.one_of(good, rubbish, entries_.map(lambda e: json.dumps(e).encode())), max_size=14
)


@given(files, st.binary(max_size=9), st.integers(1, 40))
def test_any_damage_is_repaired_and_every_entry_kept(
    whole: list[bytes], tail: bytes, at: int
) -> None:
    data = b"".join(line + b"\n" for line in whole) + tail.replace(b"\n", b"")
    try:
        out, repair = repaired(data)
    except NewerFormatError:
        return
    found = any(p.code != "final_without_question" for p in verify(data).problems)
    assert repair.changed == found, "it mends what verify finds, and nothing else"
    left = [p for p in verify(out).problems if p.code != "final_without_question"]
    assert left == [], out
    again, second = repaired(out)
    assert (again, second.changed) == (out, False), "a repaired file is left alone"
    before = [line for line in parsed(data + b"\n") if line.entry is not None]
    kept = [line.entry for line in parsed(out)]
    assert len(kept) == len(before) + (not repair.had_header)
    kept = kept[not repair.had_header :]
    for line, now in zip(before, kept, strict=True):
        check_kept(line.entry, now)
    pieces = Verifier()
    for start in range(0, len(data), at):
        pieces.feed(data[start : start + at])
    assert pieces.finish() == verify(data), "in pieces as in one"


def check_kept(was: Any, now: Any) -> None:
    """Every field is what it was, or stands in the stamp as what it was."""
    stamp = now.get("holdfast") if isinstance(now.get("holdfast"), dict) else {}
    had = stamp.get("repaired", {})
    for name, value in was.items():
        if name == "holdfast":
            old = {**stamp, **({"final": had["final"]} if "final" in had else {})}
            old.pop("repaired", None)
            assert value == now.get(name) or value == had.get(name) or value == old
        elif name == "version" and now[name] == 3 and str(value) in {"None", "1", "2"}:
            continue  # Migrated.
        else:
            assert now[name] == value or had[name] == value
