"""Entries of a transcript, put together to exchanges: a question and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast._core import stamped
from holdfast._core.stamped import is_question, is_seed
from holdfast._core.tree import text_of
from holdfast._core.turns import ENDED_BY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.types import Entry

__all__ = ["Exchange", "Exchanges", "turn_of"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """`turn_id` None: one message that no turn of ours has written."""

    turn_id: str | None
    question: str | None  #: None: it stands further back than was read.
    reply: str | None
    outcome: str = "replied"
    reason: str | None = None
    tools: tuple[str, ...] = ()  #: In the order of their calls.


def turn_of(entry: Entry) -> str | None:
    """The turn that wrote *entry*; None: a stranger, or history that was brought along."""
    return None if is_seed(entry) else stamped.turn_of(entry)


@dataclass(slots=True)
class _Begun:
    question: str | None = None
    tools: list[str] = field(default_factory=list)


class Exchanges:
    """Fed with entries in the order of the file; keeps only those that have not ended."""

    def __init__(self) -> None:
        self._begun: dict[str, _Begun] = {}

    def feed(self, entry: Entry) -> Exchange | None:
        """The exchange that *entry* ends, if it ends one."""
        turn = turn_of(entry)
        if turn is None:
            return _strangers(entry)
        begun = self._begun.setdefault(turn, _Begun())
        message = entry.get("message")
        stamp = entry["holdfast"]
        if stamp.get("final") is True:
            return self._end(turn, reply=text_of(message))
        if entry.get("customType") == ENDED_BY:
            data = entry.get("data")
            data = data if isinstance(data, dict) else {}
            reason = data.get("reason")
            return self._end(
                turn,
                outcome=str(data.get("outcome", "failed")),
                reason=None if reason is None else str(reason),
            )
        if is_question(entry):
            begun.question = text_of(message)
        else:
            begun.tools += _tools(message)
        return None

    def _end(self, turn: str, reply: str | None = None, **more: Any) -> Exchange:
        begun = self._begun.pop(turn)
        return Exchange(turn, begun.question, reply, tools=tuple(begun.tools), **more)


def _strangers(entry: Entry) -> Exchange | None:
    message = entry.get("message")
    if entry.get("type") != "message" or not isinstance(message, dict):
        return None
    text = text_of(message)
    match message.get("role"):
        case "user":
            return Exchange(None, text, None)
        case "assistant" if text:
            return Exchange(None, None, text)
    return None


def _tools(message: Any) -> list[str]:
    content: Mapping[str, Any] | Any = (
        message.get("content") if isinstance(message, dict) else 0
    )
    return [
        str(part.get("name", "?"))
        for part in (content if isinstance(content, list) else ())
        if isinstance(part, dict) and part.get("type") == "toolCall"
    ]
