"""What happened and what stands, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.backends.memory import telling
from holdfast.backends.memory.two_ways import TwoWays

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
        return self._read(
            lambda w: telling.events(w, after, kinds=kinds, session_id=session_id, limit=limit)
        )

    async def newest_event(self) -> int:
        return self._read(telling.newest_event)

    async def lanes(self, lanes: Mapping[str, Lane]) -> list[LaneState]:
        return self._read(lambda w: telling.lanes(w, lanes))

    async def holders(self) -> list[Holder]:
        return self._read(telling.holders)

    async def why(self, session_id: SessionId, lanes: Mapping[str, Lane]) -> Why:
        return self._read(lambda w: telling.why(w, session_id, lanes))
