"""
An entry as the console shows it.

One place decides what an entry looks like, for the page that is loaded and for the entry that
arrives while it is open; so a reload shows what was there.  What is not conversation (labels,
model changes, unknown types) is left out; what stands beside the branch is marked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.stamped import is_final, is_seed, turn_of
from holdfast._core.tree import text_of
from holdfast._core.turns import ENDED_BY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.types import Entry, Turn

__all__ = ["SOURCE", "Call", "View", "origin_of", "outcome_view", "view_of"]

SOURCE: Final = "console"  #: Of the messages that the page sends.
LANE: Final = "user"
#: A tool may return megabytes; a person reads the beginning, and the transcript has it all.
SHOWN_CHARS_MAX: Final = 20_000
GIST_CHARS_MAX: Final = 80

_ENDINGS: Final = {
    "failed": "This turn failed",
    "cancelled": "Cancelled",
    "silent": "No reply: the agent chose to be silent",
    "refused": "Refused",
    "merged": "Merged into another turn",
}


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call, or a tool's result: a line, and the rest on demand."""

    name: str
    gist: str
    detail: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What the template `_entry.html` needs to know."""

    entry_id: str
    kind: str  #: question, reply, tool or notice.
    who: str
    at: str
    text: str = ""
    turn: str = ""
    origin: str = ""  #: Where a message came from, if not from this page.
    mark: str = ""  #: What is unusual about its place in the transcript.
    thought: str = ""
    calls: tuple[Call, ...] = ()
    quote: str = ""  #: The text that a notice is about, if nothing else shows it.
    hint: str = ""
    tone: str = ""  #: bad, or nothing.
    #: Nothing of its turn comes after it.
    ends: bool = False
    #: Its turn's row will say more once the turn has ended: show it again then.
    settles: bool = False


def view_of(entry: Entry, cursor: str, turn: Turn | None) -> View | None:
    """
    How to show *entry*; None: not at all.

    Args:
        cursor: names an entry that has no id of its own.
        turn: the row of the turn that wrote it, if there still is one.
    """
    entry_id = entry.get("id")
    known: dict[str, Any] = {
        "entry_id": entry_id if isinstance(entry_id, str) else cursor,
        "at": _text(entry.get("timestamp")),
        "turn": turn_of(entry) or "",
    }
    match entry.get("type"):
        case "message":
            return _message(entry, turn, known)
        case "custom" if entry.get("customType") == ENDED_BY:
            return _ending(entry, turn, known)
        case "custom_message":
            text = text_of({"content": entry.get("content")})
            return View(kind="question", who="Note", text=text, **known)
        case "compaction" | "branch_summary":
            summary = _text(entry.get("summary"))
            return View(
                kind="notice", who="Summary", text="What came before was summed up.",
                quote=summary, **known,
            )  # fmt: skip
        case "leaf":
            text = "The conversation went back to an earlier entry; some above is left behind."
            return View(kind="notice", who="Branch", text=text, **known)
    return None


def outcome_view(turn: Turn) -> View | None:
    """A notice about a turn that ended and left no entry, because none could be written."""
    if turn.outcome is None or turn.final_entry is not None:
        return None
    return View(
        entry_id=f"turn-{turn.turn_id}",
        at=turn.ended_at or "",
        turn=turn.turn_id,
        kind="notice",
        who="Turn",
        ends=True,
        **_ended(turn.outcome, turn.reason, turn),
    )


def origin_of(turn: Turn | None) -> str:
    """Where a turn came from, in a few words; nothing for what this page sends."""
    if turn is None:
        return ""
    source = "" if turn.source == SOURCE else f"via {turn.source}"
    lane = "" if turn.lane == LANE else f"lane {turn.lane}"
    return " · ".join(filter(None, (source, lane)))


def _message(entry: Entry, turn: Turn | None, known: dict[str, Any]) -> View | None:
    message = entry.get("message")
    if not isinstance(message, dict):
        return None
    role = _text(message.get("role"))
    final = is_final(entry)
    mark = _mark(entry)
    if role == "toolResult":
        result = _result(message)
        return View(kind="tool", who="Tool", calls=(result,), mark=mark, ends=final, **known)
    if role == "user":
        origin = "" if is_seed(entry) else origin_of(turn)
        return View(
            kind="question", who="User", text=_said(message), origin=origin, mark=mark, **known
        )
    return View(
        kind="reply",
        who="Agent" if role == "assistant" else role or "Entry",
        text=_said(message),
        thought=_thought(message),
        calls=_calls(message),
        mark=mark,
        ends=final,
        **known,
    )


def _ending(entry: Entry, turn: Turn | None, known: dict[str, Any]) -> View:
    data = entry.get("data")
    data = data if isinstance(data, dict) else {}
    return View(
        kind="notice",
        who="Turn",
        ends=True,
        settles=turn is not None and not turn.ended,
        **_ended(_text(data.get("outcome")), data.get("reason"), turn),
        **known,
    )


def _ended(outcome: str, reason: object, turn: Turn | None) -> dict[str, Any]:
    """The parts of a notice that say how a turn ended."""
    said = _ENDINGS.get(outcome, f"Ended: {outcome}")
    told = _text(reason)
    return {
        "text": f"{said}: {told}" if told and told != outcome else said,
        "hint": (turn.hint or "") if turn is not None else "",
        "tone": "bad" if outcome in {"failed", "refused"} else "",
    }


def _mark(entry: Entry) -> str:
    if is_seed(entry):
        return "earlier, told by the client"
    if entry.get("appendMode") == "side":
        return "beside the conversation"
    return ""


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [p for p in content if isinstance(p, dict)] if isinstance(content, list) else []


def _said(message: Mapping[str, Any]) -> str:
    """The text; what is neither text nor shown elsewhere is named."""
    known = {"text", "toolCall", "thinking"}
    others = [
        f"[{_text(p.get('type'))}]"
        for p in _parts(message)
        if _text(p.get("type")) not in known
    ]
    return "\n".join(filter(None, (text_of(message), *others)))


def _thought(message: Mapping[str, Any]) -> str:
    thoughts = (
        _text(p.get("thinking")) for p in _parts(message) if p.get("type") == "thinking"
    )
    return _cut("\n\n".join(filter(None, thoughts)))


def _calls(message: Mapping[str, Any]) -> tuple[Call, ...]:
    return tuple(
        Call(_text(part.get("name")), *_gist(_as_json(part.get("arguments"))))
        for part in _parts(message)
        if part.get("type") == "toolCall"
    )


def _result(message: Mapping[str, Any]) -> Call:
    tone = "bad" if message.get("isError") is True else ""
    return Call(_text(message.get("toolName")), *_gist(_said(message)), tone)


def _gist(text: str) -> tuple[str, str]:
    """A line of *text*; and all of it, if that is more."""
    line = " ".join(text[: 4 * GIST_CHARS_MAX].split())
    gist = line if len(line) <= GIST_CHARS_MAX else line[: GIST_CHARS_MAX - 1] + "…"
    return gist, _cut(text) if gist != text else ""


def _as_json(value: object) -> str:
    return "" if value in ({}, None) else json.dumps(value, ensure_ascii=False)


def _cut(text: str) -> str:
    more = len(text) - SHOWN_CHARS_MAX
    return text if more <= 0 else f"{text[:SHOWN_CHARS_MAX]}\n… and {more:,} characters more"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
