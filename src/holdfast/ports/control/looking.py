"""What the rows say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

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


class Looking(Protocol):
    """What the rows say."""

    async def turn(self, turn_id: TurnId) -> Turn: ...
    def turn_now(self, turn_id: TurnId) -> Turn: ...
    async def turns(
        self, *, session_id: SessionId | None = None, state: str | None = None, after: int = 0
    ) -> list[Turn]: ...
    async def ended(self, turn_ids: list[TurnId]) -> list[Turn]: ...
    async def aborts(self, owner_id: OwnerId) -> dict[TurnId, str]:
        """Turns that this owner runs and somebody wants ended, and why.  Inline."""
        ...

    async def place(self, turn_id: TurnId, lanes: Mapping[str, Lane]) -> Place: ...
    async def turn_states(
        self, turn_ids: Collection[TurnId], lanes: Mapping[str, Lane]
    ) -> dict[TurnId, TurnState]:
        """State and place of many turns at once; one that is not there is left out."""
        ...

    async def pulses(self, session_ids: Collection[SessionId]) -> dict[SessionId, Pulse]: ...
    async def counts(self) -> Counts: ...
    async def session(self, session_id: SessionId) -> Session: ...
    async def session_facts(self, session_id: SessionId) -> dict[str, Any]:
        """``keys``, ``aliases``, ``turns`` and ``waiting`` (counts), ``running`` (an id)."""
        ...

    async def session_of_key(self, key: str) -> Session: ...
    async def sessions(
        self, after: str = "", *, newest_first: bool = False
    ) -> list[tuple[Session, dict[str, Any]]]: ...
    async def known_agents(self) -> set[str]:
        """Every agent that a runner ever registered in this store."""
        ...
