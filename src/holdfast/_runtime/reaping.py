"""
The one reaper: every kind of hold whose owner is dead, silent, or does not let go.

    dead        proven: at once
    silent      no beat for a lease, seen by an observer whose own beats were committed
    abandoned   a lease of ours that no run of ours has: seen twice
    deaf        somebody asked for its end, and its owner has not seen to it
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast._core.beats import Watch
    from holdfast._core.settings import Settings
    from holdfast._runtime.recovery import Recovery
    from holdfast.ports import Store
    from holdfast.types import Look, Owner, OwnerId, SessionId, Standing, TurnId

__all__ = ["ADOPT_AFTER_S", "LOOK_S", "Reaper"]

LOOK_S: Final = 1.0
ADOPT_AFTER_S: Final = 2.0  #: A head that its home has not started by then is anybody's.

_log = logging.getLogger("holdfast.recovery")


class Reaper:
    """
    Bound to the keeper's loop.

    Args:
        watch: everybody's beats, as this process sees them.
        overdue, runs: see `Keeper`.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        recovery: Recovery,
        watch: Watch,
        *,
        overdue: Callable[[frozenset[TurnId]], None],
        runs: Callable[[TurnId], bool],
    ) -> None:
        self._store, self._settings, self._recovery = store, settings, recovery
        self._watch, self._overdue, self._runs = watch, overdue, runs
        self._me = store.owner.owner_id
        self._heads: dict[TurnId, float] = {}
        self._leaks: set[tuple[SessionId, int]] = set()
        self._ending: dict[SessionId, asyncio.Task[None]] = {}
        self.owners: tuple[Owner, ...] = ()  #: Those registered, at the last look.

    async def look(self) -> None:
        """Once."""
        look = await self._store.control.look(self._me)
        self.owners = tuple(owner for owner, _ in look.owners)
        beats = {o.owner_id: beat for o, beat in look.owners if o.owner_id != self._me}
        dead = {o.owner_id for o in self.owners if self._store.is_dead(o)} - {self._me}
        silent = self._watch.look(beats, time.monotonic()) - dead
        self._reap(look, beats.keys() | {self._me}, dead, silent)
        for turn_id, home in look.orphans:
            if home in dead or home not in beats.keys() | {self._me}:
                await self._recovery.end_waiting(turn_id, "failed", "owner_died")
        held = {lease.owner_id for lease in look.leases}
        for owner_id in (dead | silent) - held:
            reason = "silent" if owner_id in silent else "dead"
            await self._store.control.bury(owner_id, reason)
        self._watch_heads(look)

    async def settle(self) -> None:
        """Until what was begun is over."""
        await asyncio.gather(*self._ending.values(), return_exceptions=True)

    async def stop(self) -> None:
        tasks = list(self._ending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def end(self, lease: Standing, reason: str) -> None:
        """End the attempt that holds *lease*, in a task of its own, unless it is under way."""
        if lease.session_id in self._ending:
            return
        _log.info("turn %s: ending its attempt: %s", lease.turn_id, reason)
        task = asyncio.create_task(self._end_quietly(lease, reason))
        self._ending[lease.session_id] = task
        task.add_done_callback(lambda _: self._ending.pop(lease.session_id, None))

    def _reap(
        self, look: Look, known: set[OwnerId], dead: set[OwnerId], silent: set[OwnerId]
    ) -> None:
        leaks: set[tuple[SessionId, int]] = set()
        for lease in look.leases:
            if lease.owner_id in dead or lease.owner_id not in known:
                self.end(lease, "owner_died")
            elif lease.owner_id in silent:
                self.end(lease, "owner_silent")
            elif lease.owner_id == self._me and (
                lease.recovering or not self._runs(lease.turn_id)
            ):
                # Seen once it may just have been picked; seen twice it is a leak of ours.
                key = (lease.session_id, lease.token)
                leaks.add(key)
                if key in self._leaks:
                    self.end(lease, "abandoned")
            elif self._is_deaf(lease):
                self.end(lease, "abort_ignored")
        self._leaks = leaks

    def _is_deaf(self, lease: Standing) -> bool:
        """
        Its owner had the settle bound, and a look to see that it was asked.

        It is fenced then, and has another settle bound before anybody else starts.
        """
        bound_ms = self._settings.settle_ms + LOOK_S * 1000
        return (
            not lease.recovering
            and lease.abort_age_ms is not None
            and lease.abort_age_ms > bound_ms
        )

    async def _end_quietly(self, lease: Standing, reason: str) -> None:
        try:
            await self._recovery.end_attempt(lease, reason)
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
