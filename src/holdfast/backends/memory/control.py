"""
The control store in memory.  A transaction is one block under the world's mutex.

Every write gives the loop one turn first, as a store with a disk does: no task that talks to
its store without end can starve the others, and who is cancelled there has done nothing.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast.backends.memory import admission, leases, owners, queries
from holdfast.backends.memory.rows import fetch_room, fetch_turn
from holdfast.errors import ForkedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from holdfast._core.settings import Lane
    from holdfast._core.turns import Event
    from holdfast.backends.memory.world import World
    from holdfast.types import (
        Admission,
        Admitted,
        Commit,
        Counts,
        FencingToken,
        Leased,
        Look,
        Owner,
        OwnerId,
        Place,
        Pulse,
        Session,
        SessionId,
        Turn,
        TurnId,
        TurnState,
    )

__all__ = ["MemoryControl"]

T = TypeVar("T")


class MemoryControl:
    """The `ControlStore` port on a `World`, for one owner.  Usable from any loop or thread."""

    def __init__(self, world: World, owner_id: OwnerId) -> None:
        self._world, self._owner_id = world, owner_id
        self._pid = os.getpid()

    async def close(self) -> None:
        """Nothing of this owner goes on.  Idempotent."""
        self._world.kill(self._owner_id)

    def watch(self, told: Callable[[], None]) -> Callable[[], None]:
        """Call *told* on this event loop after each change of the rows."""
        self.check_open()
        return self._world.watch(self._owner_id, told)

    def check_open(self) -> None:
        """Raises UnavailableError once this owner was closed or killed; ForkedError."""
        if os.getpid() != self._pid:
            raise ForkedError(what="this open store")
        if self._owner_id in self._world.gone:
            raise UnavailableError(path="memory:", detail="the store is closed")

    # -------------------------------------------------------------------- the two ways

    async def _write(self, run: Callable[[World], T], *, pokes: bool = True) -> T:
        await asyncio.sleep(0)
        done = self._read(run)
        if pokes:
            self._world.poke()
        return done

    def _read(self, run: Callable[[World], T]) -> T:
        with self._world.mutex:
            self.check_open()
            return run(self._world)

    # ------------------------------------------------------------------ owners, runners

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

    async def beat(self, owner_id: OwnerId) -> bool:
        return await self._write(lambda w: owners.beat(w, owner_id), pokes=False)

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

    # ---------------------------------------------------------------------- admission

    async def admit(self, asked: Admission, known_agents: Collection[str]) -> Admitted:
        return await self._write(lambda w: admission.admit(w, asked, known_agents))

    async def make_alias(self, alias: str, key: str) -> str:
        return await self._write(lambda w: admission.make_alias(w, alias, key))

    async def cancel(self, turn_id: TurnId) -> Turn:
        return await self._write(lambda w: admission.cancel(w, turn_id))

    # ------------------------------------------------------------------------- leases

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
        self, agents: Collection[str], *, session_id: SessionId | None = None
    ) -> bool:
        return self._read(lambda w: queries.has_heads(w, agents, session_id))

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
        not_before_ms: int = 0,
    ) -> Turn:
        return await self._write(
            lambda w: leases.put_back(
                w, turn_id, token, what=what, reason=reason, not_before_ms=not_before_ms
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

    # ------------------------------------------------------------------------ reading

    async def turn(self, turn_id: TurnId) -> Turn:
        return self._read(lambda w: fetch_turn(w, turn_id))

    def turn_now(self, turn_id: TurnId) -> Turn:
        """Inline, for who holds the write lock and must know before it appends."""
        return self._read(lambda w: fetch_turn(w, turn_id))

    async def turns(
        self, *, session_id: SessionId | None = None, state: str | None = None, after: int = 0
    ) -> list[Turn]:
        return self._read(
            lambda w: queries.turns(w, session_id=session_id, state=state, after=after)
        )

    async def ended(self, turn_ids: list[TurnId]) -> list[Turn]:
        return self._read(lambda w: queries.ended(w, turn_ids))

    async def aborts(self, owner_id: OwnerId) -> list[TurnId]:
        return self._read(lambda w: queries.aborts(w, owner_id))

    async def place(self, turn_id: TurnId, lanes: Mapping[str, Lane]) -> Place:
        return self._read(lambda w: queries.place(w, turn_id, lanes))

    async def turn_states(
        self, turn_ids: Collection[TurnId], lanes: Mapping[str, Lane]
    ) -> dict[TurnId, TurnState]:
        return self._read(lambda w: queries.turn_states(w, turn_ids, lanes))

    async def pulses(self, session_ids: Collection[SessionId]) -> dict[SessionId, Pulse]:
        return self._read(lambda w: queries.pulses(w, session_ids))

    async def counts(self) -> Counts:
        return self._read(queries.counts)

    async def session(self, session_id: SessionId) -> Session:
        return self._read(lambda w: fetch_room(w, session_id).session)

    async def session_of_key(self, key: str) -> Session:
        return self._read(lambda w: queries.session_of_key(w, key))

    async def session_facts(self, session_id: SessionId) -> dict[str, Any]:
        return self._read(lambda w: queries.session_facts(w, session_id))

    async def sessions(
        self, after: str = "", *, newest_first: bool = False
    ) -> list[tuple[Session, dict[str, Any]]]:
        return self._read(lambda w: queries.sessions(w, after, newest_first=newest_first))

    async def known_agents(self) -> set[str]:
        """Every agent that a runner ever registered in this store."""
        return self._read(lambda w: set(w.agents))
