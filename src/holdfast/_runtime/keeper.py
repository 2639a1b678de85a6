"""
The keeper: this process's beat, and the one reaper for every kind of hold.

It has a thread and an event loop of its own, so that a busy loop delays neither; but it
beats only while the runtime's loop has answered a ping lately.  Code that holds the
interpreter or the loop for longer than the lease loses it, and is fenced.

    pulse    four times a second: does the runtime's loop answer, and how late
    beat     every lease_ms / 6, with what our runs are at
    look     every second: dead owners at once, silent ones by beats, our own leaks
    judge    every second: our own runs, by their progress
    frozen   twice a second: who is stopped while others wait for it
    sweep    every minute: what nobody needs any more

Each is a task of its own: a store that does not answer makes a beat wait, and no more.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING

from holdfast._core.beats import BEATS_PER_LEASE, Watch
from holdfast._runtime import frozen
from holdfast._runtime import pulse as pulsing
from holdfast._runtime.frozen import Frozen
from holdfast._runtime.judging import Judge
from holdfast._runtime.pulse import Pulse
from holdfast._runtime.reaping import LOOK_S, Reaper
from holdfast._runtime.recovery import Recovery
from holdfast._runtime.sweeping import SWEEP_S, Sweeper
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from holdfast._core.settings import Settings
    from holdfast._runtime.progress import Judged
    from holdfast.ports import Store
    from holdfast.types import Turn, TurnId

__all__ = ["Keeper"]

_log = logging.getLogger("holdfast.recovery")


class Keeper:
    """
    Args:
        loop: the runtime's event loop, which must answer pings.
        buried: called on *loop* when this process was called dead or silent by another.
        overdue: called, from the keeper's thread, with the turns that may be adopted.
        runs: which turns this process runs, asked from the keeper's thread.
        ended: called, from the keeper's thread, with each turn that it gave an outcome.
        running: what is judged by its progress; asked from the keeper's thread.
        abort: called on *loop* with a turn of `running` that is to end, and why.
        worth: whether the runtime has something to look for, though nothing told it; asked
            from the keeper's thread, after each of its own looks.
        wake: called, from the keeper's thread, if so.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        *,
        buried: Callable[[], None],
        overdue: Callable[[frozenset[TurnId]], None],
        runs: Callable[[TurnId], bool],
        ended: Callable[[Turn], None],
        running: Callable[[], Sequence[Judged]],
        abort: Callable[[TurnId, str], None],
        worth: Callable[[], Awaitable[bool]],
        wake: Callable[[], None],
    ) -> None:
        self._store, self._settings, self._loop = store, settings, loop
        self._buried, self._running = buried, running
        self._worth, self._wake = worth, wake
        self._lease_s = settings.lease_ms / 1000
        self._watch = Watch(self._lease_s)
        self.pulse = Pulse(loop)
        self._recovery = Recovery(store, settings, ended)
        self._reaper = Reaper(
            store, settings, self._recovery, self._watch, overdue=overdue, runs=runs
        )
        self._judge = Judge(
            store, settings, loop, self.pulse, self._reaper, running=running, abort=abort
        )
        self._frozen = Frozen(store, settings, lambda: self._reaper.owners)
        self._sweeper = Sweeper(store, settings)
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name="holdfast-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """End the thread.  Blocks for at most one look.  Idempotent."""
        if self._own_loop is not None and self._stopped is not None and self._thread.is_alive():
            self._own_loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()

    def _main(self) -> None:
        with asyncio.Runner() as runner:
            self._own_loop = runner.get_loop()
            self._stopped = asyncio.Event()
            self._ready.set()
            runner.run(self._live())

    async def _live(self) -> None:
        assert self._stopped is not None
        look_s = min(LOOK_S, self._lease_s / BEATS_PER_LEASE)
        tasks = [
            asyncio.create_task(_every(seconds, what))
            for seconds, what in (
                (min(pulsing.EVERY_S, look_s), self._ping),
                (self._lease_s / BEATS_PER_LEASE, self._beat),
                (look_s, self._look),
                (look_s, self._judge.look),
                (frozen.LOOK_S, self._frozen.look),
                (SWEEP_S, self._sweep),
            )
        ]
        await self._stopped.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._reaper.stop()

    async def _look(self) -> None:
        await self._reaper.look()
        if await self._worth():
            self._wake()

    async def _ping(self) -> None:
        self.pulse.ping()
        told = self.pulse.to_tell()
        if told is not None:
            await self._store.control.note("loop_delay", self._store.owner.owner_id, data=told)

    async def _beat(self) -> None:
        if time.monotonic() - self.pulse.answered_s > self._lease_s / 2:
            _log.warning("the event loop has not answered for long: not renewing our leases")
            return
        progress = {run.turn.turn_id: run.progress.to_json() for run in self._running()}
        if await self._store.control.beat(self._store.owner.owner_id, progress):
            self._watch.own_beat_committed(time.monotonic())
        else:
            _log.warning("this process was called dead by another; it holds nothing any more")
            self._loop.call_soon_threadsafe(self._buried)

    async def _sweep(self) -> None:
        assert self._stopped is not None
        await self._sweeper.sweep(self._stopped.is_set)


async def _every(seconds: float, what: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await what()
        except HoldfastError as error:
            # A blocked store closes no door: nobody else can take our leases either.
            _log.warning("the store did not serve the keeper: %s", error)
        except Exception:  # noqa: BLE001  A process without a keeper is fenced.
            _log.exception("the keeper's look failed")
        await asyncio.sleep(seconds)
