"""What happened and what stands, for people: pages, on a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.backends.files.control import telling
from holdfast.backends.files.control.two_ways import TwoWays

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from holdfast._core.settings import Lane
    from holdfast.types import EventRow, Holder, LaneState, SessionId, Why

__all__ = ["Telling"]


class Telling(TwoWays):
    async def events(
        self,
        after: int = 0,
        *,
        kinds: Collection[str] = (),
        session_id: SessionId | None = None,
        limit: int = 500,
    ) -> list[EventRow]:
        return await self._page(
            lambda db: telling.events(
                db, after, kinds=kinds, session_id=session_id, limit=limit
            )
        )

    async def newest_event(self) -> int:
        return self._look_up(telling.newest_event)

    async def lanes(self, lanes: Mapping[str, Lane]) -> list[LaneState]:
        return await self._page(lambda db: telling.lanes(db, lanes))

    async def holders(self) -> list[Holder]:
        return await self._page(telling.holders)

    async def why(self, session_id: SessionId, lanes: Mapping[str, Lane]) -> Why:
        return await self._page(lambda db: telling.why(db, session_id, lanes))
