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
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from holdfast.backends.files.control.checkpoints import Checkpoints
from holdfast.backends.files.control.faults import translated
from holdfast.backends.files.control.lineage import START_ANEW
from holdfast.backends.files.control.opening import connect, prepare
from holdfast.backends.files.control.reader import Reader
from holdfast.backends.files.control.writer import Writer
from holdfast.backends.files.lock.gate import Gate
from holdfast.backends.files.wake import Wake
from holdfast.errors import ForkedError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.errors import HoldfastError

__all__ = ["DATABASE", "GATE", "TwoWays"]

T = TypeVar("T")

DATABASE: Final = "control.db"
GATE: Final = "control.gate"
GATE_TIMEOUT_S: Final = 30.0  #: One total deadline for a write, a frozen neighbour included.


class TwoWays:
    """The open database: writing through one thread, reading through two connections."""

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
        self._checkpoints = Checkpoints(partial(connect, self._path))
        self._writer = Writer(
            self._path,
            partial(connect, self._path),
            gate,
            self._wake,
            timeout_s=GATE_TIMEOUT_S,
            wrote=self._checkpoints.wrote,
        )

    # -------------------------------------------------------------------------- closing

    async def close(self) -> None:
        """Finish queued writes, then let go of every file.  Idempotent."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.close_now)

    def close_now(self) -> None:
        self._writer.close()
        self._checkpoints.close()
        self._readers.shutdown()
        self._lookups.close()
        self._pages.close()
        self._wake.close()

    def watch(self, told: Callable[[], object]) -> Callable[[], None]:
        """Call *told* on this event loop when another commit may matter.  See `Wake`."""
        return self._wake.watch(told)

    @property
    def outgrown(self) -> HoldfastError | None:
        return self._writer.outgrown

    # -------------------------------------------------------------------- the two ways

    async def _write(
        self,
        run: Callable[[sqlite3.Connection], T],
        *,
        landed: Callable[[sqlite3.Connection], T | None] | None = None,
        pokes: bool = True,
        begins: bool = False,
    ) -> T:
        """*begins*: it would begin something new; see `writer`, rule 5."""
        self._not_forked()
        return await asyncio.wrap_future(
            self._writer.submit(run, landed=landed, pokes=pokes, begins=begins)
        )

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
