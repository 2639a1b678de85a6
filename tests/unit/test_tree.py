"""What a model gets to see of a transcript, and what moves its leaf."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast._core import jsonl
from holdfast._core.tree import Tree, bad_header, text_of

HEADER = {"type": "session", "version": 3, "id": "s", "timestamp": "t", "cwd": "/"}


def tree(*entries: dict[str, Any]) -> Tree:
    found = Tree()
    found.feed(jsonl.lines(jsonl.encode([HEADER, *entries])))
    return found


def message(entry_id: str, parent: str | None, text: str, **more: Any) -> dict[str, Any]:
    role = more.pop("role", "user")
    body = {"role": role, "content": [{"type": "text", "text": text}]}
    return {"type": "message", "id": entry_id, "parentId": parent, "message": body, **more}


def texts(found: Tree) -> list[str]:
    return [text_of(m) or str(m.get("summary")) for m in found.history()]


def test_the_last_entry_is_the_leaf() -> None:
    assert tree(message("a", None, "1"), message("b", "a", "2")).leaf == "b"


@pytest.mark.parametrize("kind", ["label", "session_info"])
def test_a_rename_does_not_cut_the_conversation(kind: str) -> None:
    found = tree(message("a", None, "1"), {"type": kind, "id": "x", "parentId": None})
    assert texts(found) == ["1"]


def test_a_side_entry_stands_beside_the_branch() -> None:
    found = tree(message("a", None, "1"), message("m", "a", "mirror", appendMode="side"))
    assert found.leaf == "a"
    assert "m" in found.entries


def test_an_unknown_type_moves_the_leaf_only_if_it_extends_it() -> None:
    extends = tree(message("a", None, "1"), {"type": "new", "id": "n", "parentId": "a"})
    beside = tree(message("a", None, "1"), {"type": "new", "id": "n", "parentId": None})
    assert (extends.leaf, beside.leaf) == ("n", "a")
    assert texts(extends) == texts(beside) == ["1"]


def test_a_leaf_entry_moves_the_branch() -> None:
    found = tree(
        message("a", None, "1"),
        message("b", "a", "2"),
        {"type": "leaf", "id": "l", "parentId": "b", "targetId": "a"},
        message("c", "a", "3"),
    )
    assert texts(found) == ["1", "3"]


def test_a_compaction_replaces_what_it_did_not_keep() -> None:
    found = tree(
        message("a", None, "1"),
        message("b", "a", "2"),
        message("c", "b", "3"),
        {
            "type": "compaction", "id": "k", "parentId": "c",
            "summary": "sum", "firstKeptEntryId": "c",
        },
        message("d", "k", "4"),
    )  # fmt: skip
    assert texts(found) == ["sum", "3", "4"]


def test_only_the_latest_compaction_counts() -> None:
    found = tree(
        message("a", None, "1"),
        {
            "type": "compaction",
            "id": "k1",
            "parentId": "a",
            "summary": "s1",
            "firstKeptEntryId": "a",
        },
        message("b", "k1", "2"),
        {
            "type": "compaction",
            "id": "k2",
            "parentId": "b",
            "summary": "s2",
            "firstKeptEntryId": "k2",
        },
    )
    assert texts(found) == ["s2"]


def test_a_cycle_of_parents_ends() -> None:
    assert len(tree(message("a", "b", "1"), message("b", "a", "2")).path()) == 2


def test_a_missing_parent_starts_the_branch_late() -> None:
    assert texts(tree(message("b", "gone", "2"), message("c", "b", "3"))) == ["2", "3"]


def test_the_first_of_two_entries_with_one_id_stands() -> None:
    found = tree(message("a", None, "first"), message("a", None, "second"))
    assert texts(found) == ["first"]
    assert [why for _, why in found.skipped] == ["duplicate_id"]


def test_a_turn_is_found_by_its_stamps() -> None:
    mark = {"turn": "t1", "attempt": 1, "token": 1}
    found = tree(
        message("q", None, "ask", holdfast={**mark, "seq": 0}),
        message("r", "q", "tell", role="assistant", holdfast={**mark, "seq": 1, "final": True}),
    )
    assert found.questions == {"t1": "q"}
    assert (found.ends["t1"].outcome, found.ends["t1"].text) == ("replied", "tell")
    assert found.history(without={"t1"}) == ()


def test_a_salvaged_entry_is_no_reply() -> None:
    found = tree(
        message("r", None, "x", role="assistant", holdfast={"turn": "t", "salvaged": True})
    )
    assert found.ends == {}


def test_an_ended_turn_says_how() -> None:
    found = tree(
        {
            "type": "custom", "id": "e", "parentId": None, "customType": "holdfast:turn-ended",
            "data": {"turn": "t", "outcome": "failed", "reason": "auth"}, "holdfast": {"turn": "t"},
        }
    )  # fmt: skip
    assert (found.ends["t"].outcome, found.ends["t"].reason) == ("failed", "auth")


@pytest.mark.parametrize(
    "stamp", [None, 3, [], {"turn": 7}, {"turn": None}, {"final": True}], ids=repr
)
def test_a_strangers_stamp_is_no_turn(stamp: Any) -> None:
    assert tree(message("a", None, "1", holdfast=stamp)).ends == {}


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        (None, "JSON"),
        ({"type": "message"}, "header"),
        ({"type": "session", "version": 3}, "id"),
        ({"type": "session", "version": 2, "id": "s"}, "version 2"),
        ({"type": "session", "id": "s"}, "version None"),
    ],
)
def test_a_bad_header_is_told_in_words(entry: dict[str, Any] | None, word: str) -> None:
    problem = bad_header(entry)
    assert problem is not None
    assert word in problem


def test_our_header_is_good() -> None:
    assert bad_header(HEADER) is None
