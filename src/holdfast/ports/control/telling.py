"""What happened and what stands, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from holdfast._core.settings import Lane
    from holdfast.types import EventRow, Holder, LaneState, SessionId, Why

__all__ = ["Telling"]


class Telling(Protocol):
    """What happened and what stands, for people.  Reading only; a page at most."""

    async def events(
        self,
        after: int = 0,
        *,
        kinds: Collection[str] = (),
        session_id: SessionId | None = None,
        limit: int = 500,
    ) -> list[EventRow]:
        """Events behind number *after*, oldest first; of *kinds* only, if any are named."""
        ...

    async def newest_event(self) -> int:
        """The number of the newest event; 0: there is none."""
        ...

    async def lanes(self, lanes: Mapping[str, Lane]) -> list[LaneState]:
        """Every lane that is set, or has a turn: what runs and what waits in it."""
        ...

    async def holders(self) -> list[Holder]:
        """Every lease that is held, longest first."""
        ...

    async def why(self, session_id: SessionId, lanes: Mapping[str, Lane]) -> Why:
        """Who holds a session, who waits for it and for what, in one moment."""
        ...
