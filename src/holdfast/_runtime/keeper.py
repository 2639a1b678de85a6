"""
The keeper: this process's beat, and the one reaper for every kind of hold.

It has a thread and an event loop of its own, so that a busy loop delays neither; but it
beats only while the runtime's loop has answered a ping lately.  Code that holds the
interpreter or the loop for longer than the lease loses it, and is fenced.

    beat     every lease_ms / 6
    look     every second: dead owners at once, silent ones by beats, our own leaks
    frozen   every second: a process that is stopped inside the store; a task of its own,
             because such a process makes our beats wait
    sweep    every minute: live logs that nobody needs any more, events beyond the bound
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from holdfast._core.beats import BEATS_PER_LEASE, Watch
from holdfast._runtime.recovery import Recovery
from holdfast.errors import HoldfastError, NotFoundError
from holdfast.types import TurnId

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast._core.settings import Settings
    from holdfast.ports import Store
    from holdfast.types import Look, OwnerId, SessionId, Standing, Turn

__all__ = ["ADOPT_AFTER_S", "Keeper"]

LOOK_S: Final = 1.0
LOOK_TWICE_S: Final = 0.25  #: A debugger stops a process for microseconds.
SWEEP_S: Final = 60.0
ADOPT_AFTER_S: Final = 2.0  #: A head that its home has not started by then is anybody's.
EVENTS_MAX: Final = 100_000

_log = logging.getLogger("holdfast.recovery")


class Keeper:
    """
    Args:
        loop: the runtime's event loop, which must answer pings.
        buried: called on *loop* when this process was called dead or silent by another.
        overdue: called, from the keeper's thread, with the turns that may be adopted.
        runs: which turns this process runs, asked from the keeper's thread.
        ended: called, from the keeper's thread, with each turn that it gave an outcome.
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
    ) -> None:
        self._store, self._settings, self._loop = store, settings, loop
        self._buried, self._overdue, self._runs = buried, overdue, runs
        self._ended = ended
        self._lease_s = settings.lease_ms / 1000
        self._watch = Watch(self._lease_s)
        self._pulse_s = time.monotonic()
        self._heads: dict[TurnId, float] = {}
        self._leaks: set[tuple[SessionId, int]] = set()
        self._ending: dict[SessionId, asyncio.Task[None]] = {}
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
        recovery = Recovery(self._store, self._settings, self._ended)
        watching = asyncio.create_task(self._watch_frozen())
        every_s = min(LOOK_S, self._lease_s / BEATS_PER_LEASE)
        beat_at_s = sweep_at_s = time.monotonic()
        while not self._stopped.is_set():
            try:
                if time.monotonic() >= beat_at_s:
                    beat_at_s = time.monotonic() + self._lease_s / BEATS_PER_LEASE
                    await self._beat()
                await self._look(recovery)
                if time.monotonic() >= sweep_at_s:
                    sweep_at_s = time.monotonic() + SWEEP_S
                    await self._sweep()
            except HoldfastError as error:
                # A blocked store closes no door: nobody else can take our leases either.
                _log.warning("the store did not serve the keeper: %s", error)
            except Exception:  # noqa: BLE001  A process without a keeper is fenced.
                _log.exception("the keeper's look failed")
            try:
                await asyncio.wait_for(self._stopped.wait(), every_s)
            except TimeoutError:
                continue
        tasks = [watching, *self._ending.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --------------------------------------------------------------------------- beats

    async def _beat(self) -> None:
        self._loop.call_soon_threadsafe(self._pong)
        if time.monotonic() - self._pulse_s > self._lease_s / 2:
            _log.warning("the event loop has not answered for long: not renewing our leases")
            return
        if await self._store.control.beat(self._store.owner.owner_id):
            self._watch.own_beat_committed(time.monotonic())
        else:
            _log.warning("this process was called dead by another; it holds nothing any more")
            self._loop.call_soon_threadsafe(self._buried)

    def _pong(self) -> None:
        self._pulse_s = time.monotonic()

    # -------------------------------------------------------------------------- reaping

    async def _look(self, recovery: Recovery) -> None:
        me = self._store.owner.owner_id
        look = await self._store.control.look(me)
        beats = {owner.owner_id: beat for owner, beat in look.owners if owner.owner_id != me}
        dead = {owner.owner_id for owner, _ in look.owners if self._store.is_dead(owner)} - {me}
        silent = self._watch.look(beats, time.monotonic()) - dead
        self._reap(recovery, look, beats.keys() | {me}, dead, silent)
        for turn_id, home in look.orphans:
            if home in dead or home not in beats.keys() | {me}:
                await recovery.end_waiting(turn_id, "failed", "owner_died")
        held = {lease.owner_id for lease in look.leases}
        for owner_id in (dead | silent) - held:
            reason = "silent" if owner_id in silent else "dead"
            await self._store.control.bury(owner_id, reason)
        self._watch_heads(look)

    def _reap(
        self,
        recovery: Recovery,
        look: Look,
        known: set[OwnerId],
        dead: set[OwnerId],
        silent: set[OwnerId],
    ) -> None:
        me = self._store.owner.owner_id
        leaks: set[tuple[SessionId, int]] = set()
        for lease in look.leases:
            if lease.session_id in self._ending:
                continue
            if lease.owner_id in dead or lease.owner_id not in known:
                self._end(recovery, lease, "owner_died")
            elif lease.owner_id in silent:
                self._end(recovery, lease, "owner_silent")
            elif lease.owner_id == me and (lease.recovering or not self._runs(lease.turn_id)):
                # Seen once it may just have been picked; seen twice it is a leak of ours.
                key = (lease.session_id, lease.token)
                leaks.add(key)
                if key in self._leaks:
                    self._end(recovery, lease, "abandoned")
        self._leaks = leaks

    def _end(self, recovery: Recovery, lease: Standing, reason: str) -> None:
        _log.info("turn %s: ending its attempt: %s", lease.turn_id, reason)
        task = asyncio.create_task(self._end_quietly(recovery, lease, reason))
        self._ending[lease.session_id] = task
        task.add_done_callback(lambda _: self._ending.pop(lease.session_id, None))

    @staticmethod
    async def _end_quietly(recovery: Recovery, lease: Standing, reason: str) -> None:
        try:
            await recovery.end_attempt(lease, reason)
        except HoldfastError as error:
            _log.warning("session %s: not recovered yet: %s", lease.session_id, error)

    def _watch_heads(self, look: Look) -> None:
        """Turns at the head of an idle session that another live process does not start."""
        now_s = time.monotonic()
        self._heads = {turn: self._heads.get(turn, now_s) for turn in look.foreign_heads}
        self._overdue(
            frozenset(
                t for t, since_s in self._heads.items() if now_s - since_s >= ADOPT_AFTER_S
            )
        )

    # ---------------------------------------------------------------------- the frozen

    async def _watch_frozen(self) -> None:
        """Tell, once each, who is stopped inside the store.  Seen twice, or it is not."""
        told = None
        while True:
            await asyncio.sleep(LOOK_S)
            found = self._store.frozen_holder()
            if found is not None:
                await asyncio.sleep(LOOK_TWICE_S)
                found = self._store.frozen_holder()
            if found is not None and found != told:
                _log.warning("%s", found)
            told = found

    # -------------------------------------------------------------------------- sweeping

    async def _sweep(self) -> None:
        control, live = self._store.control, self._store.live
        over = {turn_id for turn_id in live.turn_ids() if await self._is_long_over(turn_id)}
        if over:
            live.remove(over.__contains__)
        while await control.trim_events(EVENTS_MAX) and not self._stopping():
            pass  # One slice a transaction: others get in between.

    def _stopping(self) -> bool:
        return self._stopped is not None and self._stopped.is_set()

    async def _is_long_over(self, turn_id: str) -> bool:
        try:
            turn = await self._store.control.turn(TurnId(turn_id))
        except NotFoundError:
            return True
        if turn.ended_at is None:
            return False
        age = datetime.now(UTC) - datetime.fromisoformat(turn.ended_at)
        return age >= timedelta(minutes=self._settings.live_log_minutes)
