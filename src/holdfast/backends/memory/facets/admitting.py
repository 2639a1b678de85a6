"""Messages in, and their end asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.backends.memory import aborting, admission, moving
from holdfast.backends.memory.two_ways import TwoWays

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


class Admitting(TwoWays):
    async def admit(self, asked: Admission, known_agents: Collection[str]) -> Admitted:
        return await self._write(lambda w: admission.admit(w, asked, known_agents))

    async def make_alias(self, alias: str, key: str) -> str:
        return await self._write(lambda w: admission.make_alias(w, alias, key))

    async def cancel(
        self, turn_id: TurnId, *, reason: str = "cancelled", rollback: bool = False
    ) -> Turn:
        return await self._write(
            lambda w: aborting.cancel(w, turn_id, reason=reason, rollback=rollback)
        )

    async def reset(self, key: str) -> Reset:
        return await self._write(lambda w: moving.reset(w, key))
