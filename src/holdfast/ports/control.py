"""What the runtime asks of the rows that coordinate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from holdfast._core.settings import Lane
    from holdfast._core.turns import Event
    from holdfast.types import (
        Admission,
        Admitted,
        Commit,
        Counts,
        FencingToken,
        Leased,
        Look,
        Owner,
        OwnerId,
        Place,
        Pulse,
        Session,
        SessionId,
        Turn,
        TurnId,
        TurnState,
    )

__all__ = [
    "ControlStore",
]


class ControlStore(Protocol):
    """
    The rows that coordinate.

    Authority: the store issues admission numbers and fencing tokens, and nobody else does.
    A token never repeats and never goes back, not even after its lease has ended.
    """

    async def close(self) -> None: ...
    def watch(self, told: Callable[[], None]) -> Callable[[], None]:
        """Hint *told* (on the running loop) when others commit.  Returns: stops watching."""
        ...

    # Owners and runners.
    async def register(self, owner: Owner) -> None: ...
    async def register_runner(
        self, owner_id: OwnerId, agents: Collection[str], *, permanent: bool
    ) -> None: ...
    async def permanent_runners(self, agent_id: str) -> list[Owner]: ...
    async def beat(self, owner_id: OwnerId) -> bool:
        """Say that we are here.  False: we were buried, and hold nothing any more."""
        ...

    async def set_draining(self, owner_id: OwnerId) -> None: ...
    async def leave(self, owner_id: OwnerId) -> None: ...
    async def bury(self, owner_id: OwnerId, reason: str) -> bool: ...
    async def look(self, owner_id: OwnerId) -> Look: ...
    async def trim_events(self, keep: int) -> int: ...

    # Admission.
    async def admit(self, asked: Admission, known_agents: Collection[str]) -> Admitted:
        """
        Take a message in, durably, or refuse it without a trace.

        Returns:
            The new turn; or the earlier one, if the idempotency key was used before with
            the same content.

        Raises:
            IdempotencyConflictError, UnknownAgentError, QueueFullError, RejectedError.
            UnavailableError: not accepted; ``landed=None``: ask again with the same id.
        """
        ...

    async def make_alias(self, alias: str, key: str) -> str: ...
    async def cancel(self, turn_id: TurnId) -> Turn: ...

    # Leases.
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
        self, agents: Collection[str], *, session_id: SessionId | None = None
    ) -> bool:
        """Whether a pick could find anything at all.  Cheap; no lock."""
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
        not_before_ms: int = 0,
    ) -> Turn: ...
    async def keep(self, turn_id: TurnId, token: FencingToken, finished: bytes) -> None: ...
    async def salvage(self, turn_id: TurnId, token: FencingToken, finished: bytes) -> None: ...
    async def take_over(
        self, session_id: SessionId, token: FencingToken, owner_id: OwnerId
    ) -> FencingToken:
        """Fence whoever holds *token*; hold the lease in order to end its attempt."""
        ...

    # Reading.
    async def turn(self, turn_id: TurnId) -> Turn: ...
    def turn_now(self, turn_id: TurnId) -> Turn: ...
    async def turns(
        self, *, session_id: SessionId | None = None, state: str | None = None, after: int = 0
    ) -> list[Turn]: ...
    async def ended(self, turn_ids: list[TurnId]) -> list[Turn]: ...
    async def aborts(self, owner_id: OwnerId) -> list[TurnId]: ...
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
