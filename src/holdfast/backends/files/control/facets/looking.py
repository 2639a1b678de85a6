"""Reading: look-ups inline, pages on a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.backends.files.control import queries
from holdfast.backends.files.control.rows import fetch_session, fetch_turn
from holdfast.backends.files.control.two_ways import TwoWays

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from holdfast._core.settings import Lane
    from holdfast.types import (
        Counts,
        OwnerId,
        Place,
        Pulse,
        Session,
        SessionId,
        Turn,
        TurnId,
        TurnState,
    )

__all__ = ["Looking"]


class Looking(TwoWays):
    async def turn(self, turn_id: TurnId) -> Turn:
        return self._look_up(lambda db: fetch_turn(db, turn_id))

    def turn_now(self, turn_id: TurnId) -> Turn:
        """Inline, for who holds the write lock and must know before it appends."""
        return self._look_up(lambda db: fetch_turn(db, turn_id))

    async def turns(
        self, *, session_id: SessionId | None = None, state: str | None = None, after: int = 0
    ) -> list[Turn]:
        return await self._page(
            lambda db: queries.turns(db, session_id=session_id, state=state, after=after)
        )

    async def ended(self, turn_ids: list[TurnId]) -> list[Turn]:
        return self._look_up(lambda db: queries.ended(db, turn_ids))

    async def aborts(self, owner_id: OwnerId) -> dict[TurnId, str]:
        return self._look_up(lambda db: queries.aborts(db, owner_id))

    async def place(self, turn_id: TurnId, lanes: Mapping[str, Lane]) -> Place:
        return self._look_up(lambda db: queries.place(db, turn_id, lanes))

    async def turn_states(
        self, turn_ids: Collection[TurnId], lanes: Mapping[str, Lane]
    ) -> dict[TurnId, TurnState]:
        return await self._page(lambda db: queries.turn_states(db, turn_ids, lanes))

    async def pulses(self, session_ids: Collection[SessionId]) -> dict[SessionId, Pulse]:
        return await self._page(lambda db: queries.pulses(db, session_ids))

    async def counts(self) -> Counts:
        return await self._page(queries.counts)

    async def session(self, session_id: SessionId) -> Session:
        return self._look_up(lambda db: fetch_session(db, session_id))

    async def session_of_key(self, key: str) -> Session:
        return self._look_up(lambda db: queries.session_of_key(db, key))

    async def session_facts(self, session_id: SessionId) -> dict[str, Any]:
        return self._look_up(lambda db: queries.session_facts(db, session_id))

    async def sessions(
        self, after: str = "", *, newest_first: bool = False
    ) -> list[tuple[Session, dict[str, Any]]]:
        return await self._page(
            lambda db: queries.sessions(db, after, newest_first=newest_first)
        )

    async def known_agents(self) -> set[str]:
        return self._look_up(queries.known_agents)
