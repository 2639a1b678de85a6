"""Leases, slots, tokens, and what a turn comes to."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from holdfast.backends.files.control import handing, leases, merging, queries, waits
from holdfast.backends.files.control.rows import fetch_turn, hosted
from holdfast.backends.files.control.two_ways import TwoWays
from holdfast.errors import UnavailableError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Mapping

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
            lambda db: leases.pick(
                db, owner_id, agents, lanes, overdue=overdue, session_id=session_id, only=only
            ),
            pokes=False,
            begins=True,
        )

    async def has_heads(
        self,
        agents: Collection[str],
        *,
        session_id: SessionId | None = None,
        owner_id: OwnerId | None = None,
    ) -> bool:
        return self._look_up(lambda db: queries.has_heads(db, agents, session_id, owner_id))

    async def is_head(self, turn_id: TurnId) -> bool:
        return self._look_up(lambda db: queries.is_head(db, turn_id))

    def newest_token(self, session_id: SessionId) -> tuple[int, str] | None:
        """Inline: the look-up that every append makes while it holds the write lock."""
        return self._look_up(lambda db: queries.newest_token(db, session_id))

    async def make_effective(self, turn_id: TurnId, token: FencingToken) -> Turn:
        return await self._write(
            lambda db: leases.make_effective(db, turn_id, token), pokes=False
        )

    async def count_attempt(self, turn_id: TurnId, token: FencingToken) -> int:
        return await self._write(
            lambda db: leases.count_attempt(db, turn_id, token), pokes=False
        )

    async def commit(self, turn_id: TurnId, token: FencingToken, what: Commit) -> Turn:
        return await self._write(
            lambda db: leases.commit(db, turn_id, token, what), landed=_ended(turn_id)
        )

    async def end(
        self,
        turn_id: TurnId,
        token: FencingToken,
        outcome: str,
        reason: str | None,
        hint: str | None,
    ) -> Turn:
        return await self._write(
            lambda db: leases.end(db, turn_id, token, outcome, reason, hint),
            landed=_ended(turn_id),
        )

    async def end_waiting(self, turn_id: TurnId, outcome: str, reason: str | None) -> Turn:
        return await self._write(lambda db: leases.end_waiting(db, turn_id, outcome, reason))

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
            lambda db: leases.put_back(
                db, turn_id, token, what=what, reason=reason, delay_ms=delay_ms
            )
        )

    async def keep(self, turn_id: TurnId, token: FencingToken, finished: bytes) -> None:
        await self._write(lambda db: leases.keep(db, turn_id, token, finished), pokes=False)

    async def salvage(self, turn_id: TurnId, token: FencingToken, finished: bytes) -> None:
        await self._write(lambda db: leases.salvage(db, turn_id, token, finished), pokes=False)

    async def take_over(
        self, session_id: SessionId, token: FencingToken, owner_id: OwnerId
    ) -> FencingToken:
        return await self._write(lambda db: leases.take_over(db, session_id, token, owner_id))

    # Merges.

    def hosted(self, turn_id: TurnId) -> list[Turn]:
        return self._look_up(lambda db: hosted(db, turn_id))

    async def take(
        self, turn_id: TurnId, token: FencingToken, taken: Mapping[TurnId, str]
    ) -> None:
        await self._write(lambda db: merging.take(db, turn_id, token, taken), pokes=False)

    # A turn that waits for another turn.

    async def wait_for(self, turn_id: TurnId, token: FencingToken, child: TurnId) -> None:
        await self._write(lambda db: waits.wait_for(db, turn_id, token, child))

    async def regain(
        self,
        turn_id: TurnId,
        token: FencingToken,
        lanes: Mapping[str, Lane],
        *,
        child: TurnId | None = None,
    ) -> bool:
        return await self._write(
            lambda db: waits.regain(db, turn_id, token, lanes, child), pokes=False
        )

    # Letting go of a session, on request.

    async def ask_handover(self, session_id: SessionId) -> Handover | None:
        return await self._write(lambda db: handing.ask_handover(db, session_id))

    async def handover(self, request_id: str) -> Handover:
        return self._look_up(lambda db: handing.handover(db, request_id))

    async def handovers(self, owner_id: OwnerId) -> list[Handover]:
        return self._look_up(lambda db: handing.handovers(db, owner_id))

    async def answer_handover(self, request_id: str, answer: str, detail: str) -> None:
        await self._write(lambda db: handing.answer_handover(db, request_id, answer, detail))


def _ended(turn_id: TurnId) -> Callable[[sqlite3.Connection], Turn | None]:
    """After a COMMIT of unknown fate: has the turn got its outcome?"""

    def look(db: sqlite3.Connection) -> Turn | None:
        with suppress(UnavailableError):
            turn = fetch_turn(db, turn_id)
            return turn if turn.ended else None
        return None

    return look
