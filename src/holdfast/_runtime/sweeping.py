"""
Taking away what nobody needs any more: live logs, events beyond their bound, and the rows that
`_core/retention.py` lets go.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from holdfast._core import retention
from holdfast.errors import NotFoundError
from holdfast.types import TurnId

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast._core.settings import Settings
    from holdfast.ports import Store

__all__ = ["ANEW_S", "SWEEP_S", "Sweeper", "sweep"]

SWEEP_S: Final = 60.0
ANEW_S: Final = 3_600.0  #: Rows that had to stay are looked at again after this.


class Sweeper:
    """Goes through the rows of a store, again and again; knows how far it has come."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._settings, self._now_s = store, settings, now_s
        self._after: dict[str, str] = {}
        self._anew_s = now_s() + ANEW_S

    async def sweep(self, stopping: Callable[[], bool]) -> int:
        """
        Once.  One slice a transaction: others get in between.

        Returns:
            How many rows went.
        """
        await sweep(self._store, self._settings, stopping)
        if self._now_s() >= self._anew_s:
            self._anew_s = self._now_s() + ANEW_S
            self._after.clear()
        removed = 0
        for kind in retention.KINDS:
            more = True
            while more and not stopping():
                done = await self._store.control.trim(
                    kind,
                    keep_days=self._settings.keep_days,
                    after=self._after.get(kind, ""),
                )
                removed += done.removed
                more = done.after is not None
                if done.after is not None:
                    self._after[kind] = done.after
        return removed


async def sweep(store: Store, settings: Settings, stopping: Callable[[], bool]) -> None:
    """Live logs and events, once."""
    ids = store.live.turn_ids()
    over = {each for each in ids if await _is_long_over(store, settings, each)}
    if over:
        store.live.remove(over.__contains__)
    while await store.control.trim_events(settings.events_max) and not stopping():
        pass


async def _is_long_over(store: Store, settings: Settings, turn_id: str) -> bool:
    try:
        turn = await store.control.turn(TurnId(turn_id))
    except NotFoundError:
        return True
    if turn.ended_at is None:
        return False
    age = datetime.now(UTC) - datetime.fromisoformat(turn.ended_at)
    return age >= timedelta(minutes=settings.live_log_minutes)
