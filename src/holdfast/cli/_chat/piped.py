"""A chat without a person at it: lines in from a pipe, replies or JSON out."""

from __future__ import annotations

import sys
from dataclasses import asdict
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from holdfast.cli import output
from holdfast.cli._chat import told
from holdfast.cli._chat.lines import Command, Message, joined, read
from holdfast.errors import BadRequestError, TooLargeError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from holdfast.cli._chat.talk import Talk
    from holdfast.errors import HoldfastError

__all__ = ["Piped"]

_EVENTS: Final[dict[type, str]] = {
    told.OwnPosition: "position",
    told.OwnText: "text",
    told.OwnTool: "tool",
    told.OwnVoid: "attempt",
}
ANSWERED: Final = frozenset({"replied", "silent", "merged"})


class Piped:
    """
    The main thread's half of a chat with a program.

    Args:
        as_json: one object a line, of which ``event`` says the kind.
        line_bytes_max: what a line may have.
    """

    def __init__(self, *, as_json: bool, line_bytes_max: int) -> None:
        self._as_json, self._line_bytes_max = as_json, line_bytes_max
        self._queue: SimpleQueue[told.Told] = SimpleQueue()
        self._code = 0
        self._turn_id: str | None = None  #: Accepted, and no outcome told yet.

    def tell(self, thing: told.Told) -> None:
        """In the loop's thread."""
        self._queue.put(thing)

    def run(self, talk: Talk, loop: asyncio.AbstractEventLoop) -> int:
        """
        Until the end of stdin.  Returns 0 if everything was answered, else the first error's
        exit code.

        Raises:
            KeyboardInterrupt: what was accepted stays queued; it has been said.
            BadRequestError, TooLargeError: a line cannot be sent; those before it were.
        """
        import asyncio

        asyncio.run_coroutine_threadsafe(talk.begin(0), loop).result()
        try:
            for typed in self._typed():
                if isinstance(typed, Command):
                    if typed.name == "quit" and typed.error is None:
                        break
                    self._do(typed, talk, loop)
                else:
                    loop.call_soon_threadsafe(talk.say, typed.text)
                self._until_done()
        except KeyboardInterrupt:
            self._interrupted()
            raise
        return self._code

    def _do(self, command: Command, talk: Talk, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio

        match command:
            case Command(error=str(wrong)):
                self._queue.put(told.Failed(BadRequestError(detail=wrong)))
                self._queue.put(told.Done())
            case Command("help"):
                self._queue.put(told.Note("every line is a message; /quit ends"))
                self._queue.put(told.Done())
            case Command("history", count):
                asyncio.run_coroutine_threadsafe(talk.history(count or 10), loop)
            case Command("cancel"):
                asyncio.run_coroutine_threadsafe(talk.cancel(), loop)
            case _:
                asyncio.run_coroutine_threadsafe(talk.facts(), loop)

    def _typed(self) -> Iterator[Message | Command]:
        lines: list[str] = []
        while line := self._line():
            lines.append(line.removesuffix("\n"))
            text = joined(lines)
            if text is None:
                continue
            lines = []
            if (typed := read(text)) is not None:
                yield typed
        if lines and (typed := read("\n".join(each.removesuffix("\\") for each in lines))):
            yield typed

    def _line(self) -> str:
        limit = self._line_bytes_max
        raw = sys.stdin.buffer.readline(limit + 2)  # One more than allowed, and a newline.
        if len(raw) > limit + 1:
            raise TooLargeError(what="a line (or more of it)", size=len(raw), limit=limit)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise BadRequestError(
                detail="what came on stdin is not UTF-8", hint="send text"
            ) from error

    def _until_done(self) -> None:
        while not isinstance(thing := self._queue.get(), told.Done):
            self._show(thing)

    # --------------------------------------------------------------------------- showing

    def _show(self, thing: told.Told) -> None:
        match thing:
            case told.OwnAccepted(accepted):
                self._turn_id = accepted.turn_id
            case told.OwnEnded(outcome):
                self._turn_id = None
                if outcome["outcome"] not in ANSWERED:
                    self._code = self._code or 1
            case told.Failed(error):
                self._wrong(error)
                return
            case told.Note(text):
                output.note(f"holdfast: {text}")
                return
        if self._as_json:
            for event in _json(thing):
                output.emit(event)
        else:
            self._plain(thing)

    def _wrong(self, error: HoldfastError) -> None:
        self._code = self._code or output.fail(error, as_json=self._as_json)

    def _plain(self, thing: told.Told) -> None:
        match thing:
            case told.OwnEnded(outcome):
                if outcome["text"] is not None:
                    output.say(str(outcome["text"]))
                if outcome["outcome"] != "replied":
                    why = f" ({outcome['reason']})" if outcome["reason"] else ""
                    hint = f": {outcome['hint']}" if outcome["hint"] else ""
                    kind = outcome["outcome"]
                    output.note(f"holdfast: turn {outcome['turn_id']} ended: {kind}{why}{hint}")
            case told.Recent(exchanges):
                for exchange in exchanges:
                    output.say(f"> {exchange.question or ''}")
                    output.say(exchange.reply or f"({exchange.outcome})")
            case told.FactsTold(facts):
                output.say(
                    f"{facts.session_id or '-'} {facts.waiting} waiting; {facts.answers}"
                )

    def _interrupted(self) -> None:
        what, hint = "interrupted", "nothing was being sent"
        if self._turn_id is not None:
            what = f"interrupted; the message stays queued (turn {self._turn_id})"
            hint = f"a runner or the next chat answers it; or: turns cancel {self._turn_id}"
        output.note(f"holdfast: {what}: {hint}")
        if self._as_json:
            said = {"code": "interrupted", "message": what, "hint": hint}
            turn = {} if self._turn_id is None else {"turn_id": self._turn_id}
            output.emit({"error": said | turn})


def _json(thing: told.Told) -> Iterator[dict[str, Any]]:
    match thing:
        case told.OwnAccepted(accepted):
            yield {"event": "accepted", **asdict(accepted)}
        case told.OwnPosition() | told.OwnText() | told.OwnTool() | told.OwnVoid():
            yield {"event": _EVENTS[type(thing)], **asdict(thing)}
        case told.OwnEnded(outcome):
            yield {"event": "outcome", **outcome}
        case told.EntryTold():
            yield {"event": "entry", "cursor": thing.cursor, "entry": thing.entry}
        case told.Recent(exchanges):
            for each in exchanges:
                yield {"event": "exchange", **asdict(each)}
        case told.FactsTold(facts):
            yield {"event": "status", **asdict(facts)}
