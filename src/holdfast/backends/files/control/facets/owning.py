"""Owners and runners: who is there, who can run what."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from holdfast.backends.files.control import owners
from holdfast.backends.files.control.rows import event
from holdfast.backends.files.control.two_ways import TwoWays

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from holdfast.types import (
        Look,
        Owner,
        OwnerId,
        SessionId,
        TurnId,
        Vouched,
    )
    from holdfast.types.tending import Commitment

__all__ = ["Owning"]


class Owning(TwoWays):
    async def register(self, owner: Owner) -> None:
        await self._write(partial(owners.register, owner=owner), pokes=False)

    async def register_runner(
        self, owner_id: OwnerId, agents: Collection[str], *, permanent: bool
    ) -> None:
        await self._write(
            lambda db: owners.register_runner(db, owner_id, agents, permanent=permanent)
        )

    async def permanent_runners(self, agent_id: str) -> list[Owner]:
        return self._look_up(lambda db: owners.permanent_runners(db, agent_id))

    async def beat(
        self, owner_id: OwnerId, progress: Mapping[TurnId, Mapping[str, Any]] | None = None
    ) -> bool:
        return await self._write(lambda db: owners.beat(db, owner_id, progress), pokes=False)

    async def set_draining(self, owner_id: OwnerId) -> None:
        await self._write(lambda db: owners.set_draining(db, owner_id))

    async def leave(self, owner_id: OwnerId) -> None:
        await self._write(lambda db: owners.leave(db, owner_id))

    async def bury(self, owner_id: OwnerId, reason: str) -> bool:
        return await self._write(lambda db: owners.bury(db, owner_id, reason))

    async def look(self, owner_id: OwnerId) -> Look:
        return await self._page(lambda db: owners.look(db, owner_id))

    async def trim_events(self, keep: int) -> int:
        return await self._write(lambda db: owners.trim_events(db, keep), pokes=False)

    async def note(
        self,
        kind: str,
        owner_id: OwnerId,
        *,
        session_id: SessionId | None = None,
        turn_id: TurnId | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        await self._write(
            lambda db: event(db, kind, session_id, turn_id, owner_id, **(data or {})),
            pokes=False,
        )

    async def vouched(self, after: SessionId | None = None) -> list[Vouched]:
        return await self._page(lambda db: owners.vouched(db, after))

    async def commits(self, session_id: SessionId) -> list[Commitment]:
        return await self._page(lambda db: owners.commits(db, session_id))

    async def restored(
        self,
        session_id: SessionId,
        was: int,
        end_offset: int,
        moved: Mapping[TurnId, int],
        told: Mapping[str, Any],
    ) -> None:
        await self._write(
            lambda db: owners.restored(db, session_id, was, end_offset, moved, told)
        )
