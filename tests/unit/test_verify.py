"""Each finding, shown by a transcript that was made for it; and what is no finding."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._core.verify import Problem, verify

HEADER = {"type": "session", "version": 3, "id": "s", "timestamp": "t", "cwd": "/"}


def lines(*entries: Any) -> bytes:
    return b"".join(
        (entry if isinstance(entry, bytes) else json.dumps(entry).encode()) + b"\n"
        for entry in entries
    )


def entry(entry_id: str, parent: str | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "message", "id": entry_id, "parentId": parent, **more}


def asks(turn: str, parent: str | None = None, token: int | None = 1) -> dict[str, Any]:
    stamp = {"turn": turn, "attempt": 1, "seq": 0}
    stamp |= {} if token is None else {"token": token}
    return entry(f"q{turn}", parent, message={"role": "user"}, holdfast=stamp)


def replies(turn: str, parent: str | None, token: int | None = 1) -> dict[str, Any]:
    stamp = {"turn": turn, "attempt": 1, "seq": 1, "final": True}
    stamp |= {} if token is None else {"token": token}
    return entry(f"f{turn}", parent, message={"role": "assistant"}, holdfast=stamp)


def codes(data: bytes) -> list[tuple[int, str]]:
    return [(problem.line, problem.code) for problem in verify(data).problems]


def test_a_whole_transcript_is_fine_and_counted() -> None:
    report = verify(lines(HEADER, asks("a"), replies("a", "qa")))
    assert report.ok
    assert report.entries == 2


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", [(1, "no_header")]),
        (b"\n \n", [(1, "no_header")]),
        (lines(b"{nonsense", entry("a")), [(1, "no_header")]),
        (lines(entry("a"), entry("b", "a")), [(1, "no_header")]),
        (lines({**HEADER, "id": 7}), [(1, "bad_header")]),
        (lines({**HEADER, "version": 2}), [(1, "bad_version")]),
        (lines({**HEADER, "version": "3"}), [(1, "bad_version")]),
        (lines(HEADER, b'{"type": "mess', entry("b")), [(2, "unparsable")]),
        (lines(HEADER, b"[1]", b"", entry("b")), [(2, "unparsable")]),
        (lines(HEADER, b"", entry("a"), b"\xff\xfe"), [(4, "unparsable")]),
        (lines(HEADER) + b'{"type": "mess', [(2, "torn_tail")]),
        (lines(HEADER, {"type": "message", "parentId": None}), [(2, "no_id")]),
        (lines(HEADER, entry("a"), b"", entry("a", "a")), [(4, "duplicate_id")]),
        (lines(HEADER, entry("a", "gone")), [(2, "unknown_parent")]),
        (lines(HEADER, entry("a", "b"), entry("b", "a")), [(2, "unknown_parent")]),
        (lines(HEADER, entry("a", "a")), [(2, "unknown_parent")]),
        (lines(HEADER, {"id": "a", "parentId": None}), [(2, "bad_entry_type")]),
        (
            lines(HEADER, asks("a"), replies("a", "qa"), {**replies("a", "qa"), "id": "x"}),
            [(4, "two_finals")],
        ),
        (lines(HEADER, replies("a", None)), [(2, "final_without_question")]),
    ],
)
def test_each_finding_has_its_code_and_line(data: bytes, found: list[tuple[int, str]]) -> None:
    assert codes(data) == found


@pytest.mark.parametrize(("older", "newer"), [(1, 1), (None, None), (None, 2), (2, 1)])
def test_a_reply_below_another_turns_entries_was_made_blind(
    older: int | None, newer: int | None
) -> None:
    """`older` has the entry in between; it was not proven to come before `newer`."""
    data = lines(
        HEADER, asks("a", token=newer), asks("b", "qa", token=older), replies("a", "qb", newer)
    )
    assert codes(data) == [(4, "final_without_question")]


def test_a_turn_that_was_overtaken_in_its_place_has_seen_what_overtook_it() -> None:
    """Put back, passed by a more urgent turn, and run again with a later token."""
    data = lines(
        HEADER, asks("a", token=1), asks("b", "qa", 2), replies("b", "qb", 2),
        replies("a", "fb", 3),
    )  # fmt: skip
    assert codes(data) == []


def test_side_entries_and_strangers_in_between_do_not_count() -> None:
    side = {**asks("b", "qa", token=9), "appendMode": "side", "type": "custom"}
    data = lines(HEADER, asks("a"), side, entry("x", "qa"), replies("a", "x"))
    assert codes(data) == []


def test_how_another_turn_ended_is_nothing_to_be_blind_to() -> None:
    """A finished reply waited for its disk; one that was cancelled meanwhile said nothing."""
    stamp = {"turn": "b", "attempt": 1, "seq": 1, "token": 3}
    ended = {"type": "custom", "id": "eb", "parentId": "qa", "holdfast": stamp}
    data = lines(HEADER, asks("a"), ended, replies("a", "eb"))
    assert codes(data) == []


def test_unknown_types_and_fields_are_kept_without_a_word() -> None:
    strange = {"type": "hologram", "id": "h", "parentId": None, "depth": [1], "holdfast": 5}
    assert codes(lines({**HEADER, "mood": "good"}, strange, entry("a", "h"))) == []


def test_a_missing_parent_is_told_once_not_again_by_the_reply_below_it() -> None:
    data = lines(HEADER, entry("x", "gone"), entry("gone", "x"), replies("a", "gone"))
    assert codes(data) == [(2, "unknown_parent")]


def test_a_finding_says_what_it_found() -> None:
    (problem,) = verify(lines(HEADER, entry("a", "gone" * 50))).problems
    assert problem == Problem(2, "unknown_parent", problem.detail)
    assert len(problem.detail) < 150


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.builds(
                lambda i, p, k, t: json.dumps(
                    {
                        "type": "message",
                        "id": i,
                        "parentId": p,
                        "message": {"role": k},
                        "holdfast": {"turn": t, "final": k == "assistant"},
                    }
                ).encode(),
                st.sampled_from("abcd"),
                st.sampled_from([None, *"abcde"]),
                st.sampled_from(["user", "assistant"]),
                st.sampled_from(["t", "u", 7]),
            ),
        ),
        max_size=12,
    )
)
def test_no_file_is_too_broken_to_be_looked_at(raw: list[bytes]) -> None:
    data = lines(HEADER, *raw)
    report = verify(data)
    assert all(1 <= p.line <= data.count(b"\n") + 1 for p in report.problems)
    assert list(report.problems) == sorted(report.problems, key=lambda p: p.line)
