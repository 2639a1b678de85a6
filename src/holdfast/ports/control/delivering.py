"""Obligations to hand committed replies to channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast.types import Delivery, OwnerId, TurnId

__all__ = ["Delivering"]


class Delivering(Protocol):
    """
    Obligations to hand committed replies to channels.  Their rows are made by `commit` and
    `end`, from the turn's `target` and `part_chars`; nobody else makes any.
    """

    async def next_delivery(
        self, owner_id: OwnerId, channels: Collection[str]
    ) -> Delivery | None:
        """
        Take the oldest part that may be attempted now: due, of one of *channels*, and by
        `_core.delivery.look` not behind another one of its target.  It is `attempting` in our
        name from here on, and the attempt counts.  What an earlier attempt came to is still
        in its `reason`: see `_core.delivery.is_ambiguous`.
        """
        ...

    async def settle_delivery(
        self,
        delivery_id: str,
        owner_id: OwnerId,
        state: str,
        *,
        attempt: int | None = None,
        reason: str | None = None,
        hint: str | None = None,
        remote_id: str | None = None,
        delay_ms: int = 0,
    ) -> Delivery:
        """
        What the attempt came to: `delivered`, `failed`, or after *delay_ms* again: `pending`
        (it did not arrive) or `unknown` (it may have).  The last terminal part of a turn
        settles the turn.

        Args:
            attempt: its number; None: whichever this owner has under way.

        Raises:
            LeaseLostError: this attempt is not ours any more; nothing was changed.
        """
        ...

    async def due_ms(self, channels: Collection[str]) -> int | None:
        """Milliseconds until `next_delivery` may find something; None: nothing is owed."""
        ...

    def delivery_now(self, delivery_id: str) -> Delivery:
        """Inline, for who is about to send it.  Raises NotFoundError."""
        ...

    async def expire_deliveries(self) -> int:
        """
        Give up on one slice of what nobody wants any more, of whatever channel.  Returns how
        many.  `next_delivery` does it too; this is for who has no channels.
        """
        ...

    async def drop_delivery(self, delivery_id: str) -> Delivery:
        """
        Somebody says that nobody wants it any more: it is `failed`, reason `dropped`.

        Returns:
            Its row, as it stands now: unchanged if it is being sent, or has ended.

        Raises:
            NotFoundError: there is none.
        """
        ...

    async def deliveries(
        self, *, turn_id: TurnId | None = None, state: str | None = None, after: int = 0
    ) -> list[Delivery]:
        """A page, by `seq`."""
        ...

    async def disown_deliveries(self, owner_id: OwnerId) -> int:
        """An owner is gone: what it was attempting is `unknown` now.  Returns how many."""
        ...
