"""
The runner: picks turns that this process may run, and runs each in a task of its own.

It decides nothing about order or right: the store's pick does, in one transaction.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING

from holdfast._runtime.run import Run
from holdfast.errors import HoldfastError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast._core.settings import Settings
    from holdfast.ports import Agent, Store
    from holdfast.types import Admission, Leased, SessionId, Turn, TurnId

__all__ = ["Runner"]

_log = logging.getLogger("holdfast.runner")


class Runner:
    """This process's agents, and the turns they run now.  Loop-bound."""

    def __init__(
        self, store: Store, settings: Settings, agents: Mapping[str, Agent],
        ended: Callable[[Turn], None], woken: Callable[[], None],
    ) -> None:  # fmt: skip
        self._store, self._settings, self.agents = store, settings, dict(agents)
        self._ended, self._woken = ended, woken
        self._running: dict[TurnId, tuple[Run, asyncio.Task[None]]] = {}
        self._picking: set[asyncio.Task[None]] = set()
        self._context = contextvars.copy_context()
        self.session_id: SessionId | None = None  #: An embedded runner's only session.
        #: Turns whose home was seen not starting them; written by the keeper's thread.
        self.overdue: frozenset[TurnId] = frozenset()
        self.stopping = False
        self._ended_here = 0  #: Turns that have run here to their outcome.

    @property
    def running(self) -> int:
        return len(self._running)

    def runs(self, turn_id: TurnId) -> bool:
        return turn_id in self._running

    def run_of(self, turn_id: TurnId) -> Run | None:
        """The run of this turn; None: there is none here."""
        found = self._running.get(turn_id)
        return None if found is None else found[0]

    def runs_now(self) -> list[Run]:
        """Any thread."""
        return [run for run, _ in list(self._running.values())]

    async def look(self) -> None:
        """Start whatever may be started now; pass on whoever wants a turn ended."""
        if self._running:
            asked = await self._store.control.aborts(self._store.owner.owner_id)
            for turn_id, reason in asked.items():
                self.abort(turn_id, reason)
        me = self._store.owner.owner_id
        while self.agents and not self.stopping:
            if not await self._store.control.has_heads(
                self.agents, session_id=self.session_id, owner_id=None if self.overdue else me
            ):
                return
            if await self._pick() is None:
                return

    def pick_along(self, asked: Admission) -> bool:
        """
        Pick in the very transaction that takes *asked* in, if that may start it at once.

        To be called when the admission is a task that has not run yet: both are queued in one
        breath of the loop, and the store commits together what is queued.  Where it does not,
        or the pick finds something else, a look follows as ever.

        Returns:
            False: nothing of the kind; look.
        """
        runs = self._running.values()
        if (
            asked.bound
            or asked.agent_id not in self.agents
            or self.stopping
            or len(runs) >= self._settings.lane(asked.lane).concurrency
            or any(run.turn.session_key == asked.session_key for run, _ in runs)
        ):
            return False
        task = asyncio.create_task(  # Its run is nothing of its sender's.
            self._pick_or_look(asked.turn_id), name="pick", context=self._context.copy()
        )
        self._picking.add(task)
        task.add_done_callback(self._picking.discard)
        return True

    async def _pick_or_look(self, turn_id: TurnId) -> None:
        try:
            if await self._pick() == turn_id:
                return
        except HoldfastError as error:
            _log.info("not picked: %s", error)  # The look says more.
        self._woken()

    async def _pick(self) -> TurnId | None:
        """Start the best turn that may be started now, and say which; None: there is none."""
        leased = await self._store.control.pick(
            self._store.owner.owner_id,
            self.agents.keys(),
            self._settings.lanes,
            overdue=self.overdue,
            session_id=self.session_id,
        )
        if leased is None:
            return None
        self._start(leased)
        return leased.turn.turn_id

    def abort(self, turn_id: TurnId, reason: str) -> None:
        if turn_id in self._running:
            self._running[turn_id][0].abort(reason)

    def fenced(self) -> None:
        """This process was buried: it holds nothing any more."""
        for run, _ in self._running.values():
            run.abort("fenced")

    async def stop(self, *, finish_s: float) -> tuple[int, int]:
        """
        Start nothing more; let what runs finish within *finish_s* seconds, and put the rest
        back to its place in the queue.

        Returns:
            How many turns have ended meanwhile, and how many did not.
        """
        self.stopping = True
        if self._picking:
            await asyncio.wait(self._picking, timeout=finish_s)
        tasks = {task for _, task in self._running.values()}
        before = self._ended_here
        if tasks:
            await asyncio.wait(tasks, timeout=finish_s)
        for run, _ in self._running.values():
            run.abort("drained")
        if tasks:
            await asyncio.wait(tasks, timeout=2 * self._settings.settle_ms / 1000)
        for _, task in list(self._running.values()):
            task.cancel()
        finished = self._ended_here - before
        return finished, len(tasks) - finished

    def _start(self, leased: Leased) -> None:
        run = Run(self._store, self._settings, leased)
        task = asyncio.create_task(self._answer(run), name=f"turn {leased.turn.turn_id}")
        self._running[leased.turn.turn_id] = (run, task)

    async def _answer(self, run: Run) -> None:
        turn_id = run.turn.turn_id
        try:
            turn = await run.answer(self.agents[run.turn.agent_id])
            if turn is not None:
                self._ended_here += turn.ended
                self._ended(turn)
        except StoreError as error:
            # The row could not be moved.  The lease stays ours until the reaper's look:
            # the turn is not lost, it is late.
            _log.error("turn %s: %s", turn_id, error)
        except HoldfastError as error:
            _log.info("turn %s: %s", turn_id, error)
        except Exception:  # noqa: BLE001  A bug costs an attempt, not the runner.
            _log.exception("turn %s: its run failed; the reaper puts it back", turn_id)
        finally:
            # Fenced for being deaf, it may have a successor here by now.
            if self._running.get(turn_id, (None,))[0] is run:
                del self._running[turn_id]
            self._woken()
