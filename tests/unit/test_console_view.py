"""What an entry looks like: one place decides, and it survives whatever a line may hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.gateway import _console_pages as pages
from holdfast.gateway._console_view import SHOWN_CHARS_MAX, view_of

STAMP = {"turn": "t1", "attempt": 1, "token": 1, "seq": 1}


def entry(**more: Any) -> dict[str, Any]:
    return {"type": "message", "id": "e1", "timestamp": "2026-01-02T03:04:05Z", **more}


def message(role: str, *parts: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": list(parts), **more}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def test_a_question_and_its_reply() -> None:
    asked = view_of(entry(message=message("user", text("why?")), holdfast=STAMP), "1.9", None)
    final = {**STAMP, "final": True}
    told = view_of(entry(message=message("assistant", text("so")), holdfast=final), "1.9", None)
    assert asked is not None
    assert told is not None
    assert (asked.kind, asked.text, asked.turn, asked.ends) == ("question", "why?", "t1", False)
    assert (told.kind, told.text, told.turn, told.ends) == ("reply", "so", "t1", True)
    assert asked.at == "2026-01-02T03:04:05Z"


def test_a_seed_is_no_question_of_its_turn() -> None:
    stamp = {**STAMP, "seed": True}
    view = view_of(entry(message=message("user", text("old")), holdfast=stamp), "1.9", None)
    assert view is not None
    assert view.mark == "earlier, told by the client"
    assert "data-mark" in pages.fragment("_entry.html", view=view)


def test_calls_and_results_are_a_line_each() -> None:
    call = {"type": "toolCall", "id": "c", "name": "add", "arguments": {"a": 2}}
    asks = view_of(entry(message=message("assistant", text("wait"), call)), "1.9", None)
    assert asks is not None
    assert [(c.name, c.gist, c.detail) for c in asks.calls] == [("add", '{"a": 2}', "")]
    long = "first line\n" + "x" * 2 * SHOWN_CHARS_MAX
    result = message("toolResult", text(long), toolName="add", isError=True)
    view = view_of(entry(message=result), "1.9", None)
    assert view is not None
    (gave,) = view.calls
    assert gave.gist.startswith("first line xx")
    assert gave.gist.endswith("…")
    assert gave.tone == "bad"
    assert len(gave.detail) < SHOWN_CHARS_MAX + 100
    assert gave.detail.endswith("characters more")


@pytest.mark.parametrize(
    ("outcome", "reason", "said", "tone"),
    [
        ("failed", "rate_limit", "This turn failed: rate_limit", "bad"),
        ("cancelled", "cancelled", "Cancelled", ""),
        ("silent", "no_reply", "No reply: the agent chose to be silent: no_reply", ""),
        ("refused", None, "Refused", "bad"),
        ("something new", None, "Ended: something new", ""),
    ],
)
def test_a_turn_without_a_reply_says_how_it_ended(
    outcome: str, reason: str | None, said: str, tone: str
) -> None:
    data = {"turn": "t1", "outcome": outcome, "reason": reason}
    line = entry(type="custom", customType="holdfast:turn-ended", data=data, holdfast=STAMP)
    view = view_of(line, "1.9", None)
    assert view is not None
    assert (view.kind, view.text, view.tone, view.ends) == ("notice", said, tone, True)


@pytest.mark.parametrize(
    "kind", ["label", "session_info", "model_change", "thinking_level_change", "custom", "new"]
)
def test_what_is_no_conversation_is_left_out(kind: str) -> None:
    assert view_of(entry(type=kind, customType="theirs"), "1.9", None) is None


def test_what_stands_beside_the_branch_says_so() -> None:
    view = view_of(entry(message=message("user", text("aside")), appendMode="side"), "1", None)
    assert view is not None
    assert view.mark == "beside the conversation"


def test_what_cannot_be_shown_is_named() -> None:
    image = {"type": "image", "data": "AAAA"}
    view = view_of(entry(message=message("user", text("look"), image)), "1.9", None)
    assert view is not None
    assert view.text == "look\n[image]"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "id",
                    "role",
                    "content",
                    "text",
                    "name",
                    "arguments",
                    "thinking",
                    "turn",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    kind=st.sampled_from(
        ["message", "custom", "custom_message", "compaction", "branch_summary", "leaf"]
    ),
    role=st.sampled_from(["user", "assistant", "toolResult", "other"]) | json_values,
    value=json_values,
)
def test_no_line_of_a_stranger_breaks_a_page(kind: str, role: Any, value: Any) -> None:
    line = {
        "type": kind,
        "id": value,
        "timestamp": value,
        "message": {"role": role, "content": value, "toolName": value, "isError": value},
        "content": value,
        "summary": value,
        "customType": "holdfast:turn-ended",
        "data": value,
        "holdfast": value,
        "appendMode": value,
    }
    view = view_of(line, "1.9", None)
    if view is not None:
        assert "<article" in pages.fragment("_entry.html", view=view)


EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.mark.parametrize("part", ["text", "id", "role", "tool", "turn", "timestamp", "reason"])
def test_no_part_of_an_entry_becomes_html(part: str) -> None:
    def evil(name: str, value: str) -> str:
        return EVIL if name == part else value

    call = {"type": "toolCall", "name": evil("tool", "add"), "arguments": {"a": EVIL}}
    thought = {"type": "thinking", "thinking": evil("text", "hm")}
    said = message(evil("role", "assistant"), text(evil("text", "so")), call, thought)
    common = {
        "id": evil("id", "e1"),
        "timestamp": evil("timestamp", "2026-01-02T03:04:05Z"),
        "holdfast": {**STAMP, "turn": evil("turn", "t1")},
    }
    data = {"outcome": evil("reason", "failed"), "reason": evil("reason", "auth")}
    lines = [
        entry(message=said, **common),
        entry(type="custom", customType="holdfast:turn-ended", data=data, **common),
        entry(type="compaction", summary=evil("text", "so"), **common),
    ]
    for line in lines:
        view = view_of(line, "1.9", None)
        assert view is not None
        html = pages.fragment("_entry.html", view=view)
        assert "<script" not in html
        assert "<img" not in html
        assert "\"'" not in html
