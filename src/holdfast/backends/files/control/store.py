"""
The control store on one machine's files: SQLite in WAL mode, FULL, behind the fair gate.

Writing goes through `Writer`.  Reading has two connections of its own: one for look-ups by
index, made inline because a thread's hop would cost ten times as much, and one on a thread
for pages.  A page being read never makes a look-up wait.

Nobody may `open()` the database, its `-wal` or its `-shm` in a process that has them open:
closing *any* descriptor of a file drops the POSIX locks that SQLite holds on it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from holdfast.backends.files.control import admission, leases, owners, queries
from holdfast.backends.files.control.faults import translated
from holdfast.backends.files.control.lineage import START_ANEW
from holdfast.backends.files.control.opening import connect, prepare
from holdfast.backends.files.control.reader import Reader
from holdfast.backends.files.control.rows import fetch_session, fetch_turn
from holdfast.backends.files.control.writer import Writer
from holdfast.backends.files.lock.gate import Gate
from holdfast.backends.files.wake import Wake
from holdfast.errors import ForkedError, StoreError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from holdfast._core.settings import Lane
    from holdfast._core.turns import Event
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

__all__ = ["DATABASE", "GATE", "FilesControl"]

T = TypeVar("T")

DATABASE: Final = "control.db"
GATE: Final = "control.gate"
GATE_TIMEOUT_S: Final = 30.0  #: One total deadline for a write, a frozen neighbour included.


class FilesControl:
    """The `ControlStore` port on a state directory.  Make one with `open`."""

    def __init__(self, state: str) -> None:
        self._path = os.path.join(state, DATABASE)
        self._pid = os.getpid()
        self._wake = Wake(os.path.join(state, "control.wake"))
        gate = Gate(os.path.join(state, GATE))
        try:
            prepare(self._path, gate)
            self._lookups = Reader(self._path, connect(self._path, reading=True))
            self._pages = Reader(self._path, connect(self._path, reading=True))
        except sqlite3.Error as error:
            self._wake.close()
            raise translated(error, self._path) from error
        except (StoreError, ForkedError):
            self._wake.close()
            raise
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="holdfast-reader")
        self._writer = Writer(
            self._path,
            partial(connect, self._path),
            gate,
            self._wake,
            timeout_s=GATE_TIMEOUT_S,
        )

    # -------------------------------------------------------------------------- closing

    async def close(self) -> None:
        """Finish queued writes, then let go of every file.  Idempotent."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.close_now)

    def close_now(self) -> None:
        self._writer.close()
        self._readers.shutdown()
        self._lookups.close()
        self._pages.close()
        self._wake.close()

    def watch(self, told: Callable[[], None]) -> Callable[[], None]:
        """Call *told* on this event loop when another commit may matter.  See `Wake`."""
        return self._wake.watch(told)

    # -------------------------------------------------------------------- the two ways

    async def _write(
        self,
        run: Callable[[sqlite3.Connection], T],
        *,
        landed: Callable[[sqlite3.Connection], T | None] | None = None,
        pokes: bool = True,
    ) -> T:
        self._not_forked()
        return await asyncio.wrap_future(self._writer.submit(run, landed=landed, pokes=pokes))

    def tend(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """One write transaction, blocking this thread: for who tends transcripts."""
        self._not_forked()
        return self._writer.submit(run).result()

    def _look_up(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """A few index look-ups, tens of microseconds, inline."""
        self._not_forked()
        return self._lookups.read(run)

    async def _page(self, run: Callable[[sqlite3.Connection], T]) -> T:
        self._not_forked()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._pages.read, run)

    def _not_forked(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedError(what="this open store", hint=START_ANEW)

    # ------------------------------------------------------------------ owners, runners

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

    async def beat(self, owner_id: OwnerId) -> bool:
        return await self._write(lambda db: owners.beat(db, owner_id), pokes=False)

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

    # -------------------------------------------------------------------- admission

    async def admit(self, asked: Admission, known_agents: Collection[str]) -> Admitted:
        return await self._write(
            lambda db: admission.admit(db, asked, known_agents),
            landed=lambda db: admission.admitted(db, asked.turn_id),
        )

    async def make_alias(self, alias: str, key: str) -> str:
        return await self._write(lambda db: admission.make_alias(db, alias, key))

    async def cancel(self, turn_id: TurnId) -> Turn:
        return await self._write(lambda db: admission.cancel(db, turn_id))

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
            lambda db: leases.pick(
                db, owner_id, agents, lanes, overdue=overdue, session_id=session_id, only=only
            ),
            pokes=False,
        )

    async def has_heads(
        self, agents: Collection[str], *, session_id: SessionId | None = None
    ) -> bool:
        return self._look_up(lambda db: queries.has_heads(db, agents, session_id))

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
        not_before_ms: int = 0,
    ) -> Turn:
        return await self._write(
            lambda db: leases.put_back(
                db, turn_id, token, what=what, reason=reason, not_before_ms=not_before_ms
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

    # ------------------------------------------------------------------------ reading

    async def turn(self, turn_id: TurnId) -> Turn:
        return self._look_up(lambda db: fetch_turn(db, turn_id))

    def turn_now(self, turn_id: TurnId) -> Turn:
        """Inline, for who holds the write lock and must know before it appends."""
        return self._look_up(lambda db: fetch_turn(db, turn_id))

    async def turns(
        self, *, session_id: SessionId | None = None, state: str | None = None, after: int = 0
    ) -> list[Turn]:
        return await self._page(
            lambda db: queries.turns(db, session_id=session_id, state=state, after=after)
        )

    async def ended(self, turn_ids: list[TurnId]) -> list[Turn]:
        return self._look_up(lambda db: queries.ended(db, turn_ids))

    async def aborts(self, owner_id: OwnerId) -> list[TurnId]:
        return self._look_up(lambda db: queries.aborts(db, owner_id))

    async def place(self, turn_id: TurnId, lanes: Mapping[str, Lane]) -> Place:
        return self._look_up(lambda db: queries.place(db, turn_id, lanes))

    async def turn_states(
        self, turn_ids: Collection[TurnId], lanes: Mapping[str, Lane]
    ) -> dict[TurnId, TurnState]:
        return await self._page(lambda db: queries.turn_states(db, turn_ids, lanes))

    async def pulses(self, session_ids: Collection[SessionId]) -> dict[SessionId, Pulse]:
        return await self._page(lambda db: queries.pulses(db, session_ids))

    async def counts(self) -> Counts:
        return await self._page(queries.counts)

    async def session(self, session_id: SessionId) -> Session:
        return self._look_up(lambda db: fetch_session(db, session_id))

    async def session_of_key(self, key: str) -> Session:
        return self._look_up(lambda db: queries.session_of_key(db, key))

    async def session_facts(self, session_id: SessionId) -> dict[str, Any]:
        return self._look_up(lambda db: queries.session_facts(db, session_id))

    async def sessions(
        self, after: str = "", *, newest_first: bool = False
    ) -> list[tuple[Session, dict[str, Any]]]:
        return await self._page(
            lambda db: queries.sessions(db, after, newest_first=newest_first)
        )

    async def known_agents(self) -> set[str]:
        return self._look_up(queries.known_agents)


def _ended(turn_id: TurnId) -> Callable[[sqlite3.Connection], Turn | None]:
    """After a COMMIT of unknown fate: has the turn got its outcome?"""

    def look(db: sqlite3.Connection) -> Turn | None:
        with suppress(UnavailableError):
            turn = fetch_turn(db, turn_id)
            return turn if turn.ended else None
        return None

    return look
