"""What a sender holds: its turn's id, its place, and later its outcome."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from holdfast._core import words
from holdfast._runtime.forks import Home
from holdfast._stamps import age_ms
from holdfast.errors import NotFoundError, StoreError
from holdfast.types import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast._core.settings import Lane
    from holdfast.ports import ControlStore
    from holdfast.types import Turn, TurnId

__all__ = [
    "Outcome",
    "Receipt",
    "Receipts",
    "between_ms",
    "outcome_of",
    "place_reason",
]

_log = logging.getLogger("holdfast")


def place_reason(place: Place, agent_id: str, lanes: Mapping[str, Lane]) -> str:
    """What a turn of *agent_id* at *place* waits for, in words for now."""
    since_ms = None if place.since is None else age_ms(place.since)
    return words.reason(place, age_ms=since_ms, agent=agent_id, lanes=lanes)


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    How a turn ended.

    `kind` is one of ``replied``, ``silent``, ``refused``, ``failed``, ``cancelled``,
    ``merged``; `reason` is one word, `hint` says what to do about it.  A merged turn's `text`
    is the reply of the turn that it was merged into.
    """

    kind: str
    text: str | None
    reason: str | None
    hint: str | None
    turn_id: str
    session_id: str
    attempts: int
    waited_ms: int  #: From acceptance to the first start; 0 if it never started.
    merged_into: str | None = None  #: The turn that has answered it, if it is ``merged``.

    @classmethod
    def of(cls, turn: Turn, host: Turn | None = None) -> Outcome:
        """*host*: the turn that *turn* was merged into, if its text is wanted."""
        assert turn.outcome is not None
        return cls(
            kind=turn.outcome,
            text=turn.reply if host is None else host.reply,
            reason=turn.reason,
            hint=turn.hint,
            turn_id=turn.turn_id,
            session_id=turn.session_id,
            attempts=turn.attempts,
            waited_ms=between_ms(turn.accepted_at, turn.started_at),
            merged_into=turn.merged_into,
        )

    def to_json(self) -> dict[str, Any]:
        """As HTTP and the stream of events tell it."""
        return {
            "turn_id": self.turn_id,
            "session_id": self.session_id,
            "outcome": self.kind,
            "text": self.text,
            "reason": self.reason,
            "hint": self.hint,
            "attempts": self.attempts,
            "waited_ms": self.waited_ms,
            **({} if self.merged_into is None else {"merged_into": self.merged_into}),
        }


class Receipts:
    """
    Everybody in this process who waits for a turn's outcome.  Loop-bound.

    *somebody_waits*: told of who waits from now on, and has looked, so that somebody polls.
    """

    def __init__(self, control: ControlStore, somebody_waits: Callable[[], None]) -> None:
        self.control, self._somebody_waits = control, somebody_waits
        self._waiting: dict[TurnId, list[asyncio.Future[Turn]]] = {}
        self._home = Home("this receipt")

    def __len__(self) -> int:
        return len(self._waiting)

    async def receipt(self, turn: Turn, lanes: Mapping[str, Lane], *, fresh: bool) -> Receipt:
        """The receipt of an accepted *turn*, whatever can be said of its place."""
        try:
            place = await self.control.place(turn.turn_id, lanes)
        except StoreError as echo:  # An error here would say that it was not accepted.
            _log.warning("turn %s: its place is not known: %s", turn.turn_id, echo)
            place = Place(0, "unknown")
        return Receipt(self, turn, place, lanes, fresh=fresh)

    async def outcome(self, turn_id: TurnId) -> Turn:
        """Wait for the turn's outcome.  Cancellation: safe; the turn goes on."""
        self._home.check()
        told: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(turn_id, [])
        waiting.append(told)
        try:
            if len(waiting) == 1:
                self._somebody_waits()
                # Asked after we are listed: an outcome that came before cannot be missed.
                for turn in await self.control.ended([turn_id]):
                    self.resolve(turn)
            return await told
        finally:
            waiting.remove(told)
            if not waiting and self._waiting.get(turn_id) is waiting:
                del self._waiting[turn_id]

    def resolve(self, turn: Turn) -> None:
        """Tell who waits for *turn*, if it has its outcome."""
        if turn.ended:
            for told in self._waiting.pop(turn.turn_id, ()):
                if not told.done():  # Who waited may have been cancelled just now.
                    told.set_result(turn)

    async def look(self) -> None:
        """Another process may have ended what is waited for here."""
        if self._waiting:
            for turn in await self.control.ended(list(self._waiting)):
                self.resolve(turn)

    def close(self, error: BaseException) -> None:
        for waiting in self._waiting.values():
            for told in waiting:
                if not told.done():
                    told.set_exception(error)
                    told.exception()  # Seen: who is to wait for it may fail before.
        self._waiting.clear()


class Receipt:
    """
    An accepted message.

    `position` counts the turns of its session that were ahead of it at acceptance, a running
    one included; `waiting_for` says in one word what it waited for (``unknown`` if the store
    accepted the message and then did not say), `reason` in a sentence.
    """

    def __init__(
        self,
        receipts: Receipts,
        turn: Turn,
        place: Place,
        lanes: Mapping[str, Lane],
        *,
        fresh: bool,
    ) -> None:
        self._receipts = receipts
        self._place, self._agent_id, self._lanes = place, turn.agent_id, lanes
        self.turn_id = turn.turn_id
        self.session_id = turn.session_id
        self.admission = turn.admission
        self.position = place.position
        self.waiting_for = place.waiting_for
        self.fresh = fresh  #: False: an earlier receipt, found by its idempotency key.

    @property
    def reason(self) -> str:
        """What it waited for, in words; "": nothing."""
        return place_reason(self._place, self._agent_id, self._lanes)

    async def outcome(self, timeout_s: float | None = None) -> Outcome:
        """
        Wait until the turn has ended, wherever it runs.

        Raises:
            TimeoutError: not within *timeout_s*; the turn goes on, ask again.
            DrainingError: this process closed while waiting.
            ForkedError: the receipt was given to the parent of this forked process.

        Cancellation:
            Safe; it does not cancel the turn.
        """
        async with asyncio.timeout(timeout_s):
            return await outcome_of(
                self._receipts.control, await self._receipts.outcome(self.turn_id)
            )


async def outcome_of(control: ControlStore, turn: Turn) -> Outcome:
    """The outcome of a turn that has ended; a merged one's with its host's reply."""
    host = None
    if turn.merged_into is not None:
        with suppress(NotFoundError):  # Its row was removed with age.
            host = await control.turn(turn.merged_into)
    return Outcome.of(turn, host)


def between_ms(start: str, end: str | None) -> int:
    """From one moment (RFC 3339) to another; 0 if there is no other, or it was before."""
    if end is None:
        return 0
    passed = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    return max(0, int(passed.total_seconds() * 1000))
