"""What is owed to channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.backends.memory import deliveries
from holdfast.backends.memory.two_ways import TwoWays

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast.types import Delivery, OwnerId, TurnId

__all__ = ["Delivering"]


class Delivering(TwoWays):
    async def next_delivery(
        self, owner_id: OwnerId, channels: Collection[str]
    ) -> Delivery | None:
        return await self._write(
            lambda w: deliveries.next_one(w, owner_id, channels), pokes=False
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
            lambda w: deliveries.settle(
                w, delivery_id, owner_id, state, attempt=attempt, reason=reason, hint=hint,
                remote_id=remote_id, delay_ms=delay_ms,
            ),
        )  # fmt: skip

    async def due_ms(self, channels: Collection[str]) -> int | None:
        return self._read(lambda w: deliveries.due_ms(w, channels))

    def delivery_now(self, delivery_id: str) -> Delivery:
        return self._read(lambda w: deliveries.fetch(w, delivery_id))

    async def deliveries(
        self, *, turn_id: TurnId | None = None, state: str | None = None, after: int = 0
    ) -> list[Delivery]:
        return self._read(
            lambda w: deliveries.deliveries(w, turn_id=turn_id, state=state, after=after)
        )

    async def expire_deliveries(self) -> int:
        return await self._write(deliveries.expire, pokes=False)

    async def drop_delivery(self, delivery_id: str) -> Delivery:
        return await self._write(lambda w: deliveries.drop(w, delivery_id))

    async def disown_deliveries(self, owner_id: OwnerId) -> int:
        return await self._write(lambda w: deliveries.disown(w, owner_id))
