"""Reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.backends.memory import places, queries
from holdfast.backends.memory.rows import fetch_room, fetch_turn
from holdfast.backends.memory.two_ways import TwoWays

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
        return self._read(lambda w: fetch_turn(w, turn_id))

    def turn_now(self, turn_id: TurnId) -> Turn:
        """Inline, for who holds the write lock and must know before it appends."""
        return self._read(lambda w: fetch_turn(w, turn_id))

    async def turns(
        self, *, session_id: SessionId | None = None, state: str | None = None, after: int = 0
    ) -> list[Turn]:
        return self._read(
            lambda w: queries.turns(w, session_id=session_id, state=state, after=after)
        )

    async def ended(self, turn_ids: list[TurnId]) -> list[Turn]:
        return self._read(lambda w: queries.ended(w, turn_ids))

    async def aborts(self, owner_id: OwnerId) -> dict[TurnId, str]:
        return self._read(lambda w: queries.aborts(w, owner_id))

    async def place(self, turn_id: TurnId, lanes: Mapping[str, Lane]) -> Place:
        return self._read(lambda w: places.place(w, turn_id, lanes))

    async def turn_states(
        self, turn_ids: Collection[TurnId], lanes: Mapping[str, Lane]
    ) -> dict[TurnId, TurnState]:
        return self._read(lambda w: queries.turn_states(w, turn_ids, lanes))

    async def pulses(self, session_ids: Collection[SessionId]) -> dict[SessionId, Pulse]:
        return self._read(lambda w: queries.pulses(w, session_ids))

    async def counts(self) -> Counts:
        return self._read(queries.counts)

    async def session(self, session_id: SessionId) -> Session:
        return self._read(lambda w: fetch_room(w, session_id).session)

    async def session_of_key(self, key: str) -> Session:
        return self._read(lambda w: queries.session_of_key(w, key))

    async def session_facts(self, session_id: SessionId) -> dict[str, Any]:
        return self._read(lambda w: queries.session_facts(w, session_id))

    async def sessions(
        self, after: str = "", *, newest_first: bool = False
    ) -> list[tuple[Session, dict[str, Any]]]:
        return self._read(lambda w: queries.sessions(w, after, newest_first=newest_first))

    async def known_agents(self) -> set[str]:
        """Every agent that a runner ever registered in this store."""
        return self._read(lambda w: set(w.agents))
