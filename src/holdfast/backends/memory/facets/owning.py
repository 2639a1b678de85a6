"""Owners and runners: who is there, who can run what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.backends.memory import owners
from holdfast.backends.memory.two_ways import TwoWays

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
        await self._write(lambda w: owners.register(w, owner), pokes=False)

    async def register_runner(
        self, owner_id: OwnerId, agents: Collection[str], *, permanent: bool
    ) -> None:
        await self._write(
            lambda w: owners.register_runner(w, owner_id, agents, permanent=permanent)
        )

    async def permanent_runners(self, agent_id: str) -> list[Owner]:
        return self._read(lambda w: owners.permanent_runners(w, agent_id))

    async def beat(
        self, owner_id: OwnerId, progress: Mapping[TurnId, Mapping[str, Any]] | None = None
    ) -> bool:
        return await self._write(lambda w: owners.beat(w, owner_id, progress), pokes=False)

    async def set_draining(self, owner_id: OwnerId) -> None:
        await self._write(lambda w: owners.set_draining(w, owner_id))

    async def leave(self, owner_id: OwnerId) -> None:
        await self._write(lambda w: owners.leave(w, owner_id))

    async def bury(self, owner_id: OwnerId, reason: str) -> bool:
        return await self._write(lambda w: owners.bury(w, owner_id, reason))

    async def look(self, owner_id: OwnerId) -> Look:
        return self._read(lambda w: owners.look(w, owner_id))

    async def trim_events(self, keep: int) -> int:
        return await self._write(lambda w: owners.trim_events(w, keep), pokes=False)

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
            lambda w: w.event(kind, session_id, turn_id, owner_id, **(data or {})),
            pokes=False,
        )

    async def vouched(self, after: SessionId | None = None) -> list[Vouched]:
        return self._read(lambda w: owners.vouched(w, after))

    async def commits(self, session_id: SessionId) -> list[Commitment]:
        return self._read(lambda w: owners.commits(w, session_id))

    async def restored(
        self,
        session_id: SessionId,
        was: int,
        end_offset: int,
        moved: Mapping[TurnId, int],
        told: Mapping[str, Any],
    ) -> None:
        await self._write(
            lambda w: owners.restored(w, session_id, was, end_offset, moved, told)
        )
