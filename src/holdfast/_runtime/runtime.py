"""
The one door: messages in, receipts out; and the life of everything behind it.

    open ─▶ owner registered, keeper beating ─▶ runner registered ─▶ pump: look, look, …
    close ─▶ nothing new ─▶ running turns finish or go back ─▶ keeper stopped ─▶ owner leaves
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final, Self

from holdfast._runtime.delivering import Deliverer
from holdfast._runtime.handing import Handing
from holdfast._runtime.keeper import Keeper
from holdfast._runtime.meter import Meter
from holdfast._runtime.moving import Moving
from holdfast._runtime.pump import Pump
from holdfast._runtime.reading import Reading
from holdfast._runtime.receipts import Receipts
from holdfast._runtime.reconciling import is_due, reconcile
from holdfast._runtime.recovery import Recovery
from holdfast._runtime.runner import Runner
from holdfast._runtime.sending import Sending
from holdfast._runtime.warning import Warnings
from holdfast.errors import DrainingError, HoldfastError, StoreError
from holdfast.types import Drained

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from holdfast._core.settings import Settings
    from holdfast._runtime.pulse import LoopDelay
    from holdfast._runtime.reconciling import Reconciled
    from holdfast.ports import Agent, Channel, Store
    from holdfast.types import TurnId

__all__ = ["Holdfast"]

FINISH_S: Final = 5.0  #: How long running turns may go on when their process closes.

_log = logging.getLogger("holdfast")


class Holdfast(Sending, Moving, Reading):
    """
    One process's access to one store.  Made by `holdfast.open`; loop-bound.

    With agents, this process is a runner: it answers turns, its own and those of processes
    that died or have no agent.  Without, it only admits and waits.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        agents: Mapping[str, Agent],
        channels: Iterable[Channel] = (),
    ) -> None:
        super().__init__(store, settings)
        self.meter = Meter()
        self._agents = dict(agents)
        self._pump = Pump(self._look, self._somebody_waits)
        self._receipts = Receipts(store.control, self._pump.attend)
        self._warnings = Warnings(store, settings, self._watchers.remind)
        self._own: set[TurnId] = set()
        self._runner = Runner(store, settings, {}, self._ended, self._pump.wake)
        self._deliverer = Deliverer(store, channels)
        self.handing = Handing(store, self._runner)
        self._recovery = Recovery(store, settings, self.meter.ended)
        self._keeper = Keeper(
            store,
            settings,
            asyncio.get_running_loop(),
            buried=self._buried,
            overdue=self._overdue,
            runs=lambda turn_id: turn_id in self._own or self._runner.runs(turn_id),
            ended=self.meter.ended,
            running=lambda: [*self._runner.runs_now(), *self.handing.runs_now()],
            abort=self._abort,
            worth=self._worth_a_look,
            wake=self._pump.wake_from_thread,
        )
        self._unwatch: Any = None
        self._background: set[asyncio.Task[Any]] = set()
        self._permanent = True
        self._closing = self._closed = False
        #: The store was migrated by a newer Holdfast; this process drains.
        self.outgrown = asyncio.Event()
        #: What opening has found; None: a process that serves had seen to it.
        self.reconciled: Reconciled | None = None

    # ------------------------------------------------------------------ opening, closing

    async def __aenter__(self) -> Self:
        try:
            await self.store.control.register(self.store.owner)
            if await is_due(self.store, permanent=bool(self._agents)):
                self.reconciled = await reconcile(self.store, self.settings, self._recovery)
            if self._agents:
                await self._become_runner(self._agents, permanent=True)
            self._unwatch = self.store.control.watch(self._told)
            self._keeper.start()
        except BaseException:
            await self.store.close()
            raise
        self._pump.start()
        self._deliverer.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        if not self._home.left:  # A forked child leaves the block, and nothing else.
            await self.close()

    async def close(self, *, finish_s: float = FINISH_S) -> None:
        """
        Drain (see `drain`) and leave.  Waiting turns stay: another process, or the next
        start, answers them.  Idempotent.  ForkedError in a forked child.
        """
        if self._closed:
            return
        self._home.check()
        self._closed = True
        await self.drain(finish_s=finish_s)
        await self._pump.stop()
        await self.handing.stop()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._unwatch is not None:
            self._unwatch()
        await self.dismiss()
        await asyncio.get_running_loop().run_in_executor(None, self._keeper.stop)
        try:
            await self.store.control.leave(self.store.owner.owner_id)
        except StoreError as error:
            _log.warning("closing: %s", error)  # Our death will be proven; nothing hangs.
        await self.store.close()

    async def drain(self, *, finish_s: float = FINISH_S) -> Drained:
        """
        Take nothing new and start nothing more; let running turns finish, and what is owed be
        delivered, within *finish_s* seconds, and put the rest back in their places.  What can
        be read still can be.

        Returns:
            What was left behind.  Called again while it drains: the rest goes back at once.

        Cancellation:
            Draining goes on; turns that run are put back when the process closes.
        """
        self._home.check()
        until_s = time.monotonic() + finish_s
        if not self._closing:
            self._closing = True
            try:
                await self.store.control.set_draining(self.store.owner.owner_id)
            except StoreError as error:
                _log.warning("draining: %s", error)
        finished, put_back = await self._runner.stop(finish_s=finish_s)
        await self._deliverer.stop(finish_s=until_s - time.monotonic())
        try:
            waiting = (await self.store.control.counts()).waiting
        except StoreError as error:
            _log.warning("draining: what waits is not known: %s", error)
            waiting = put_back
        return Drained(finished, put_back, waiting)

    async def dismiss(self) -> None:
        """Tell whoever still waits or watches here to do so elsewhere.  Idempotent."""
        self._home.check()
        self._receipts.close(DrainingError())
        await self._watchers.close()

    @property
    def loop_delay(self) -> LoopDelay:
        """How late this process's event loop was in the last minute.  Any thread."""
        return self._keeper.pulse.figures()

    @property
    def draining(self) -> bool:
        return self._closing

    async def _become_runner(self, agents: Mapping[str, Agent], *, permanent: bool) -> None:
        self._permanent = permanent
        await self.store.control.register_runner(
            self.store.owner.owner_id, agents.keys(), permanent=permanent
        )
        self._runner.agents.update(agents)
        self._pump.wake()

    def _told(self) -> bool:
        """The store was changed, by us or by others.  Whether that may matter to anybody."""
        if not (
            self._runner.agents
            or self._deliverer.channels
            or self._pump.awaited
            or self._somebody_waits()
            or self._watchers.turns
            or self._watchers.sessions
        ):
            return False
        self._pump.wake()
        self._watchers.wake()
        self._deliverer.wake()
        return True

    async def _look(self) -> None:
        self._see_outgrown()
        await self._runner.look()
        await self.handing.look()
        await self._receipts.look()
        await self._warnings.look()

    def _see_outgrown(self) -> None:
        """A newer Holdfast has the store: nothing new here, and what runs may end."""
        newer = self.store.control.outgrown
        if newer is None or self.outgrown.is_set():
            return
        _log.error("%s; taking nothing new, and ending what runs: %s", newer, newer.hint)
        self.outgrown.set()
        task = asyncio.get_running_loop().create_task(
            self.drain(finish_s=self.settings.drain_ms / 1000), name="outgrown: draining"
        )
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _somebody_waits(self) -> bool:
        return bool(len(self._receipts) or self._runner.running or self._own)

    async def _worth_a_look(self) -> bool:
        """A hint may be lost, a `not_before` be over, a turn have aged into its turn."""
        agents, control = tuple(self._runner.agents), self.store.control
        return (
            bool(len(self._warnings))
            or (control.outgrown is not None and not self.outgrown.is_set())
            or await control.has_heads(agents, session_id=self._runner.session_id)
        )

    # ------------------------------------------------------- told by the keeper's thread

    def _buried(self) -> None:
        """Another process called us dead.  We are not, but everything we held is gone."""
        self._runner.fenced()
        self._deliverer.fenced()
        task = asyncio.get_running_loop().create_task(self._rise())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _rise(self) -> None:
        if self._closing:
            return
        await self.store.control.register(self.store.owner)
        if self._runner.agents:
            await self._become_runner(self._runner.agents, permanent=self._permanent)

    def _abort(self, turn_id: TurnId, reason: str) -> None:
        """On our loop: one of our runs is to end.  A block is asked by its turn's row."""
        if turn_id not in self.handing.own:
            self._runner.abort(turn_id, reason)
            return
        task = asyncio.get_running_loop().create_task(self._ask_to_end(turn_id, reason))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _ask_to_end(self, turn_id: TurnId, reason: str) -> None:
        try:
            await self.store.control.cancel(turn_id, reason=reason)
        except HoldfastError as echo:  # The keeper fences it all the same.
            _log.warning("turn %s: not asked to end: %s", turn_id, echo)
        self._pump.wake()

    def _overdue(self, turns: frozenset[TurnId]) -> None:
        if turns != self._runner.overdue:
            self._runner.overdue = turns
            self._pump.wake_from_thread()

    # ------------------------------------------------------------- embedded runners

    async def embed(self, agents: Mapping[str, Agent], *, key: str | None = None) -> None:
        """
        Become an embedded runner: run turns, but never be a reason for others not to.

        With *key*, only that session's turns are run: the caller's own, and orphans that
        stand before it.
        """
        if key is not None:
            self._runner.session_id = (await self.session(key)).session_id
        await self._become_runner(agents, permanent=False)
