"""Leases, slots, tokens, and what a turn comes to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.backends.memory import leases, moving, queries, rows, waits
from holdfast.backends.memory.two_ways import TwoWays

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


class Leasing(TwoWays):
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
        return await self._write(
            lambda w: leases.pick(
                w, owner_id, agents, lanes, overdue=overdue, session_id=session_id, only=only
            ),
            pokes=False,
        )

    async def has_heads(
        self,
        agents: Collection[str],
        *,
        session_id: SessionId | None = None,
        owner_id: OwnerId | None = None,
    ) -> bool:
        return self._read(lambda w: queries.has_heads(w, agents, session_id, owner_id))

    async def is_head(self, turn_id: TurnId) -> bool:
        return self._read(lambda w: queries.is_head(w, turn_id))

    def newest_token(self, session_id: SessionId) -> tuple[int, str] | None:
        """Inline: asked before every append, by who holds the write lock."""
        return self._read(lambda w: queries.newest_token(w, session_id))

    async def make_effective(self, turn_id: TurnId, token: FencingToken) -> Turn:
        return await self._write(
            lambda w: leases.make_effective(w, turn_id, token), pokes=False
        )

    async def count_attempt(self, turn_id: TurnId, token: FencingToken) -> int:
        return await self._write(lambda w: leases.count_attempt(w, turn_id, token), pokes=False)

    async def commit(self, turn_id: TurnId, token: FencingToken, what: Commit) -> Turn:
        return await self._write(lambda w: leases.commit(w, turn_id, token, what))

    async def end(
        self,
        turn_id: TurnId,
        token: FencingToken,
        outcome: str,
        reason: str | None,
        hint: str | None,
    ) -> Turn:
        return await self._write(lambda w: leases.end(w, turn_id, token, outcome, reason, hint))

    async def end_waiting(self, turn_id: TurnId, outcome: str, reason: str | None) -> Turn:
        return await self._write(lambda w: leases.end_waiting(w, turn_id, outcome, reason))

    async def put_back(
        self,
        turn_id: TurnId,
        token: FencingToken,
        *,
        what: Event,
        reason: str,
        delay_ms: int = 0,
    ) -> Turn:
        return await self._write(
            lambda w: leases.put_back(
                w, turn_id, token, what=what, reason=reason, delay_ms=delay_ms
            )
        )

    async def keep(self, turn_id: TurnId, token: FencingToken, finished: bytes) -> None:
        await self._write(lambda w: leases.keep(w, turn_id, token, finished), pokes=False)

    async def salvage(self, turn_id: TurnId, token: FencingToken, finished: bytes) -> None:
        await self._write(lambda w: leases.salvage(w, turn_id, token, finished), pokes=False)

    async def take_over(
        self, session_id: SessionId, token: FencingToken, owner_id: OwnerId
    ) -> FencingToken:
        return await self._write(lambda w: leases.take_over(w, session_id, token, owner_id))

    # Merges.

    def hosted(self, turn_id: TurnId) -> list[Turn]:
        return self._read(lambda w: rows.hosted(w, turn_id))

    async def take(
        self, turn_id: TurnId, token: FencingToken, taken: Mapping[TurnId, str]
    ) -> None:
        await self._write(lambda w: leases.take(w, turn_id, token, taken), pokes=False)

    # A turn that waits for another turn.

    async def wait_for(self, turn_id: TurnId, token: FencingToken, child: TurnId) -> None:
        await self._write(lambda w: waits.wait_for(w, turn_id, token, child))

    async def regain(
        self,
        turn_id: TurnId,
        token: FencingToken,
        lanes: Mapping[str, Lane],
        *,
        child: TurnId | None = None,
    ) -> bool:
        return await self._write(
            lambda w: waits.regain(w, turn_id, token, lanes, child), pokes=False
        )

    # Letting go of a session, on request.

    async def ask_handover(self, session_id: SessionId) -> Handover | None:
        return await self._write(lambda w: moving.ask_handover(w, session_id))

    async def handover(self, request_id: str) -> Handover:
        return self._read(lambda w: moving.handover(w, request_id))

    async def handovers(self, owner_id: OwnerId) -> list[Handover]:
        return self._read(lambda w: moving.handovers(w, owner_id))

    async def answer_handover(self, request_id: str, answer: str, detail: str) -> None:
        await self._write(lambda w: moving.answer_handover(w, request_id, answer, detail))
