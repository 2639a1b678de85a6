"""Messages in, and their end asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast.types import (
        Admission,
        Admitted,
        Reset,
        Turn,
        TurnId,
    )

__all__ = ["Admitting"]


class Admitting(Protocol):
    """Messages in, and their end asked for."""

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
    async def cancel(
        self, turn_id: TurnId, *, reason: str = "cancelled", rollback: bool = False
    ) -> Turn:
        """
        Ask for a turn's end.  One that never started and has no host ends here; any other
        gets an abort row, which its owner sees.  What has its outcome keeps it.

        Args:
            reason: one of `turns.ABORTS`.
            rollback: its question is to leave the branch, too (`rolled_back`).

        Raises:
            NotFoundError.
            RejectedError: rollback of a turn that has committed; nothing was changed.
        """
        ...

    async def reset(self, key: str) -> Reset:
        """
        Let *key* name a new, empty session from now on.

        Its waiting turns go along, in admission order, merges that were not taken yet too;
        a turn that has started ends in the old session.  Other keys of the old one stay.

        Raises:
            NotFoundError: no session has this key.
        """
        ...
