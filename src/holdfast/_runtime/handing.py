"""
Letting go of a session on request: what is asked of others, and what they answer.

    who asks      a row that names the lease's owner ─▶ its answer, or its lease gone
    who is asked  at each look ─▶ `_core.handover` decides ─▶ let go, then the answer

An answer is a kindness.  What counts for the asker is that the lease has moved.  A turn that
went back is another process's to start, if one can; the asker is told who has it then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast._core import handover
from holdfast._core.handover import BUSY, LET_GO, Facts
from holdfast._core.turns import State
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast._runtime.own_turn import OwnTurn
    from holdfast._runtime.progress import OwnRun
    from holdfast._runtime.run import Run
    from holdfast._runtime.runner import Runner
    from holdfast.ports import ControlStore, Store
    from holdfast.types import Handover, SessionId, TurnId

__all__ = ["Handed", "Handing", "hand_over"]

#: Within this somebody has what was put back: a home that does not start it has 2 s.
TAKEN_S: Final = 3.0

_log = logging.getLogger("holdfast")


@dataclass(frozen=True, slots=True)
class Handed:
    """What a request to let go came to."""

    session_id: SessionId
    turn_id: TurnId | None  #: Whose lease it was; None: nobody had any.
    answer: str | None  #: `let_go`, `busy`; None: nobody answered.
    detail: str
    again: bool = False  #: Who let go has it again: nobody else could take it.


class Handing:
    """Requests to this process.  Loop-bound."""

    def __init__(
        self, store: Store, runner: Runner, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._runner, self._now_s = store, runner, now_s
        self.own: dict[TurnId, OwnTurn] = {}  #: Those whose block is being run.
        self._leaving: dict[TurnId, asyncio.Task[None]] = {}

    async def look(self) -> None:
        """Answer who asks for a session of ours; pass on who wants an own turn ended."""
        if not self.own and not self._runner.running:
            return
        me = self._store.owner.owner_id
        if self.own:
            for turn_id, reason in (await self._store.control.aborts(me)).items():
                if turn_id in self.own:
                    self.own[turn_id].see_abort(reason)
        for asked in await self._store.control.handovers(me):
            await self._answer(asked)

    def runs_now(self) -> list[OwnRun]:
        """Any thread."""
        return [own.judged for own in list(self.own.values()) if own.judged is not None]

    async def stop(self) -> None:
        """Until nothing is being let go any more."""
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)

    async def _answer(self, asked: Handover) -> None:
        own, run = self.own.get(asked.turn_id), self._runner.run_of(asked.turn_id)
        decided = handover.decide(_facts(own, run))
        _log.info("asked to let go of turn %s: %s", asked.turn_id, decided.detail)
        if decided.answer == LET_GO:
            if own is not None:
                self._end(asked.turn_id, own)
            elif run is not None:
                run.abort("handed_over")
        await self._store.control.answer_handover(
            asked.request_id, decided.answer, decided.detail
        )

    def _end(self, turn_id: TurnId, own: OwnTurn) -> None:
        """In a task of its own: it takes the write lock, and looks go on meanwhile."""
        own.shut()
        task = asyncio.create_task(self._hand_over(own), name=f"letting go of {turn_id}")
        self._leaving[turn_id] = task
        task.add_done_callback(lambda _: self._leaving.pop(turn_id, None))

    @staticmethod
    async def _hand_over(own: OwnTurn) -> None:
        try:
            await own.hand_over()
        except HoldfastError as echo:
            _log.warning("letting go: %s", echo)


def _facts(own: OwnTurn | None, run: Run | None) -> Facts:
    if own is not None:
        return own.facts()
    if run is None:
        return Facts(here=False)
    told, tool = run.progress.to_json(), run.progress.tool()
    return Facts(
        finishing=run.progress.what == "run:completed",
        begun=run.progress.what != "run:started",
        tool=None if tool is None else tool.name,
        tool_ms=told.get("tool_ms", 0),
        tool_left_ms=told.get("tool_timeout_ms", 0) - told.get("tool_ms", 0),
        still_ms=told["age_ms"],
        run_ms=told["run_ms"],
    )


async def hand_over(
    store: Store,
    session_id: SessionId,
    timeout_s: float,
    change: Callable[[], Awaitable[None]],
) -> Handed:
    """
    Ask who holds a session to let go of it, and wait until the lease has moved.

    Args:
        change: waits until something may have changed in the store.
    """
    control = store.control
    asked = await control.ask_handover(session_id)
    if asked is None:
        return Handed(session_id, None, LET_GO, "nobody holds it")
    stood = control.newest_token(session_id)
    answered = asked
    try:
        async with asyncio.timeout(timeout_s):
            while control.newest_token(session_id) == stood and answered.answer != BUSY:
                await change()
                answered = await control.handover(asked.request_id)
    except TimeoutError:
        pass
    if answered.answer is None and control.newest_token(session_id) != stood:
        return Handed(session_id, asked.turn_id, LET_GO, "its turn has ended meanwhile")
    again = answered.answer == LET_GO and await _has_again(control, asked, change)
    return Handed(session_id, asked.turn_id, answered.answer, answered.detail or "", again)


async def _has_again(
    control: ControlStore, asked: Handover, change: Callable[[], Awaitable[None]]
) -> bool:
    """Until somebody has what was put back: whether it is who let go of it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(TAKEN_S):
            while (
                control.newest_token(asked.session_id) is None
                and (await control.turn(asked.turn_id)).state == State.ACCEPTED.value
            ):
                await change()
    newest = control.newest_token(asked.session_id)
    return newest is not None and newest[1] == asked.owner_id
