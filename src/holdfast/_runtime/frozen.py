"""
Who is stopped while others wait for it: told within two seconds, and ended if that is set.

Seen twice, or it is not: a debugger stops a process for microseconds.  Told once each.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from holdfast._core.frozen import What
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast._core.settings import Settings
    from holdfast.ports import Store
    from holdfast.types import FrozenHolder, Owner

__all__ = ["LOOK_S", "Frozen"]

LOOK_S: Final = 0.5  #: Twice, and it is told.

_log = logging.getLogger("holdfast.recovery")


class Frozen:
    """
    Bound to the keeper's loop.

    Args:
        owners: those registered, as last seen; asked anew before anybody is ended.
    """

    def __init__(
        self, store: Store, settings: Settings, owners: Callable[[], tuple[Owner, ...]]
    ) -> None:
        self._store, self._owners = store, owners
        self._kill_ms = settings.frozen_kill_ms
        self._since: dict[FrozenHolder, float] = {}
        self._told: dict[FrozenHolder, str] = {}

    async def look(self) -> None:
        """Once; called every LOOK_S."""
        now_s = time.monotonic()
        found = self._store.frozen(self._owners())
        before = self._since
        self._since = {each: before.get(each, now_s) for each in found}
        self._told = {each: told for each, told in self._told.items() if each in before}
        for each in found:
            if each in before:
                await self._act(each, round((now_s - self._since[each]) * 1000))

    async def _act(self, holder: FrozenHolder, stopped_ms: int) -> None:
        owners = self._owners()
        if stopped_ms >= self._kill_ms:
            look = await self._store.control.look(self._store.owner.owner_id)
            owners = tuple(owner for owner, _ in look.owners)
        verdict = self._store.end_frozen(holder, owners, stopped_ms)
        if verdict.what is What.NOTHING or self._told.get(holder) == verdict.what:
            return
        self._told[holder] = verdict.what
        if verdict.what is What.KILL:
            _log.error("%s; it was killed (recovery.frozen_holder)", holder.said)
            await self._note(holder, stopped_ms)
        else:
            _log.warning("%s", holder.said)

    async def _note(self, holder: FrozenHolder, stopped_ms: int) -> None:
        me = self._store.owner.owner_id
        killed = None if holder.owner is None else holder.owner.owner_id
        try:
            await self._store.control.note(
                "frozen_killed", me,
                data={"pid": holder.pid, "owner": killed, "stopped_ms": stopped_ms},
            )  # fmt: skip
        except HoldfastError as error:
            _log.info("not noted: %s", error)
