"""What is owed to channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.backends.files.control import deliveries
from holdfast.backends.files.control.two_ways import TwoWays

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast.types import Delivery, OwnerId, TurnId

__all__ = ["Delivering"]


class Delivering(TwoWays):
    async def next_delivery(
        self, owner_id: OwnerId, channels: Collection[str]
    ) -> Delivery | None:
        return await self._write(
            lambda db: deliveries.next_one(db, owner_id, channels), pokes=False
        )

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
        return await self._write(
            lambda db: deliveries.settle(
                db, delivery_id, owner_id, state, attempt=attempt, reason=reason, hint=hint,
                remote_id=remote_id, delay_ms=delay_ms,
            ),
            landed=lambda db: deliveries.settled(db, delivery_id, owner_id),
        )  # fmt: skip

    async def due_ms(self, channels: Collection[str]) -> int | None:
        return self._look_up(lambda db: deliveries.due_ms(db, channels))

    def delivery_now(self, delivery_id: str) -> Delivery:
        return self._look_up(lambda db: deliveries.fetch(db, delivery_id))

    async def deliveries(
        self, *, turn_id: TurnId | None = None, state: str | None = None, after: int = 0
    ) -> list[Delivery]:
        return await self._page(
            lambda db: deliveries.deliveries(db, turn_id=turn_id, state=state, after=after)
        )

    async def expire_deliveries(self) -> int:
        return await self._write(deliveries.expire, pokes=False)

    async def drop_delivery(self, delivery_id: str) -> Delivery:
        return await self._write(lambda db: deliveries.drop(db, delivery_id))

    async def disown_deliveries(self, owner_id: OwnerId) -> int:
        return await self._write(lambda db: deliveries.disown(db, owner_id))
