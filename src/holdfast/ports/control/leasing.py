"""Leases, slots, tokens, and what a turn comes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from holdfast._core.settings import Lane
    from holdfast._core.turns import Event
    from holdfast.types import (
        Commit,
        FencingToken,
        Handover,
        Leased,
        OwnerId,
        SessionId,
        Turn,
        TurnId,
    )

__all__ = ["Leasing"]


class Leasing(Protocol):
    """Leases, slots, tokens, and what a turn comes to."""

    async def pick(
        self,
        owner_id: OwnerId,
        agents: Collection[str],
        lanes: Mapping[str, Lane],
        *,
        overdue: Collection[TurnId] = (),
        session_id: SessionId | None = None,
        only: TurnId | None = None,
    ) -> Leased | None:
        """Slot and lease, together, for the best turn that *owner_id* may run now."""
        ...

    async def has_heads(
        self,
        agents: Collection[str],
        *,
        session_id: SessionId | None = None,
        owner_id: OwnerId | None = None,
    ) -> bool:
        """
        Whether a pick could find anything at all.  Cheap; no lock.

        Args:
            owner_id: leave out what homes other than this one are alive to start.
        """
        ...

    async def is_head(self, turn_id: TurnId) -> bool:
        """Whether this turn stands first in an idle session.  Cheap; no lock."""
        ...

    def newest_token(self, session_id: SessionId) -> tuple[int, str] | None:
        """(token, owner) of the lease that stands.  Inline: asked before every append."""
        ...

    async def make_effective(self, turn_id: TurnId, token: FencingToken) -> Turn: ...
    async def count_attempt(self, turn_id: TurnId, token: FencingToken) -> int: ...
    async def commit(self, turn_id: TurnId, token: FencingToken, what: Commit) -> Turn: ...
    async def end(
        self,
        turn_id: TurnId,
        token: FencingToken,
        outcome: str,
        reason: str | None,
        hint: str | None,
    ) -> Turn: ...
    async def end_waiting(self, turn_id: TurnId, outcome: str, reason: str | None) -> Turn: ...
    async def put_back(
        self,
        turn_id: TurnId,
        token: FencingToken,
        *,
        what: Event,
        reason: str,
        delay_ms: int = 0,
    ) -> Turn:
        """Back to its place; a candidate again after *delay_ms* by the store's clock."""
        ...

    async def keep(self, turn_id: TurnId, token: FencingToken, finished: bytes) -> None: ...
    async def salvage(self, turn_id: TurnId, token: FencingToken, finished: bytes) -> None: ...
    async def take_over(
        self, session_id: SessionId, token: FencingToken, owner_id: OwnerId
    ) -> FencingToken:
        """Fence whoever holds *token*; hold the lease in order to end its attempt."""
        ...

    # Merges: turns with this turn as their host.

    def hosted(self, turn_id: TurnId) -> list[Turn]:
        """Those provisionally merged into *turn_id*, in admission order.  Inline, by index."""
        ...

    async def take(
        self, turn_id: TurnId, token: FencingToken, taken: Mapping[TurnId, str]
    ) -> None:
        """
        Note that the questions of merged turns stand in the transcript, under *token*.

        Args:
            taken: merged turn → id of its user entry.
        """
        ...

    # A turn that waits for another turn.

    async def wait_for(self, turn_id: TurnId, token: FencingToken, child: TurnId) -> None:
        """
        A running turn waits for the end of *child*: its slot goes back, its lease stays.

        Raises:
            DeadlockError: the child waits, at whatever distance, for this very turn; the
                cycle is named and nothing was changed.
            LeaseLostError.
        """
        ...

    async def regain(
        self,
        turn_id: TurnId,
        token: FencingToken,
        lanes: Mapping[str, Lane],
        *,
        child: TurnId | None = None,
    ) -> bool:
        """
        Take a slot again after `wait_for`; False: none is free, and the next one is ours,
        ahead of new turns.  Asked again after a change.

        Args:
            child: that has ended.  While the turn awaits others it takes no slot, and this
                returns True.  None: it awaits none any more.
        """
        ...

    # Letting go of a session, on request.

    async def ask_handover(self, session_id: SessionId) -> Handover | None:
        """Ask who holds the session to let go of it; None: nobody does."""
        ...

    async def handover(self, request_id: str) -> Handover: ...
    async def handovers(self, owner_id: OwnerId) -> list[Handover]:
        """Requests that this owner has not answered.  Inline; by index."""
        ...

    async def answer_handover(self, request_id: str, answer: str, detail: str) -> None: ...
