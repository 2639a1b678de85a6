"""
A turn as chunks of a chat completion, while it happens.

What was sent cannot be taken back, so a stream carries one attempt only: the first that says
anything.  If another one begins after that, the stream ends with an error, and the turn goes
on without it.

A turn that has to wait says so at once, in a comment that says where it stands; who sends the
chunks repeats that in every longer silence (`Telling.standing`).
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.errors import HoldfastError
from holdfast.gateway import sse
from holdfast.gateway._completions_answer import (
    SupersededError,
    chunk,
    openai_error,
    unanswered,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from holdfast.types import TurnEvent

__all__ = ["Telling", "chunks"]

_DONE: Final = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Telling:
    """What of a turn has been told, and what is to be told next.  Pure."""

    turn_id: str
    position: int | None = None  #: Of a turn that waits; None: it does not.
    outcome: Mapping[str, Any] | None = None
    over: bool = False  #: Nothing more will be told.
    _said: bool = False  #: Some text has gone out: no other attempt can follow it.
    _since_tool: list[str] = field(default_factory=list)  #: Text since the last tool began.
    _break_due: bool = False  #: A tool ran after some text: what follows is a new paragraph.

    def standing(self) -> str:
        """Where the turn stands, in a comment's words."""
        return "running" if self.position is None else f"waiting position={self.position}"

    def take(self, event: TurnEvent) -> str:
        """
        What *event* adds to the text.

        Raises:
            SupersededError: another attempt has begun, and something was told of an earlier.
        """
        data = event.data
        match event.kind:
            case "accepted" | "position":
                waits = data["position"] or data["waiting_for"]
                self.position = data["position"] if waits else None
            case "started" | "attempt":
                self.position = None
                if self._said:
                    raise SupersededError(turn_id=self.turn_id)
            case "text":
                return self._text(data["text"])
            case "tool" if self._since_tool:
                self._since_tool.clear()
                self._break_due = True
            case "outcome":
                self.position, self.outcome = None, data
                return self._rest(data["text"] or "")
        return ""

    def _text(self, delta: str) -> str:
        if not delta:
            return ""
        self._said = True
        self._since_tool.append(delta)
        between, self._break_due = "\n\n" if self._break_due else "", False
        return between + delta

    def _rest(self, reply: str) -> str:
        """What of the reply was not told: a live log may be short, or gone, or have none."""
        told = "".join(self._since_tool)
        if reply.startswith(told):
            return self._text(reply[len(told) :])
        self._break_due = True  # It is not what was told: a structured output, for one.
        return self._text(reply)


async def chunks(
    events: AsyncGenerator[TurnEvent, None],
    telling: Telling,
    head: Mapping[str, Any],
    *,
    usage: Callable[[], Awaitable[Mapping[str, Any]]] | None,
) -> AsyncGenerator[bytes, None]:
    """
    The body of a streamed answer.

    Args:
        events: of the turn, from its beginning; closed at the end.
        telling: of this turn; kept up to date.
        head: what every chunk has: id, object, created, model.
        usage: asked at the end, if the client wants to know; None: it does not.

    Cancellation:
        Safe; the turn goes on.
    """
    more = {} if usage is None else {"usage": None}
    yield _data(chunk(head, {"role": "assistant", "content": ""}) | more)
    error: HoldfastError | None
    try:
        async with aclosing(events):
            async for event in events:
                waited = telling.position is not None
                if text := telling.take(event):
                    yield _data(chunk(head, {"content": text}) | more)
                elif telling.position is not None and not waited:
                    yield sse.comment(telling.standing())
        assert telling.outcome is not None, "a turn's events end with its outcome"
        error = unanswered(telling.outcome)
        used = None if usage is None or error is not None else await usage()
    except HoldfastError as raised:
        error = raised
    telling.over = True
    if error is not None:
        yield _data({"error": openai_error(error, turn_id=telling.turn_id)})
        return
    yield _data(chunk(head, {}, finish="stop") | more)
    if used is not None:
        yield _data({**head, "choices": [], "usage": used})
    yield _DONE


def _data(value: Mapping[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
