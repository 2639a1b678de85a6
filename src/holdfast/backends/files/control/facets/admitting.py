"""Messages in, and their end asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.backends.files.control import aborting, admission, moving
from holdfast.backends.files.control.two_ways import TwoWays

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
        return await self._write(
            lambda db: admission.admit(db, asked, known_agents),
            landed=lambda db: admission.admitted(db, asked.turn_id),
            begins=True,
        )

    async def make_alias(self, alias: str, key: str) -> str:
        return await self._write(lambda db: admission.make_alias(db, alias, key), begins=True)

    async def cancel(
        self, turn_id: TurnId, *, reason: str = "cancelled", rollback: bool = False
    ) -> Turn:
        return await self._write(
            lambda db: aborting.cancel(db, turn_id, reason=reason, rollback=rollback)
        )

    async def reset(self, key: str) -> Reset:
        return await self._write(lambda db: moving.reset(db, key), begins=True)
