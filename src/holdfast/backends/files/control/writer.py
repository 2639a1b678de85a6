"""
The one writer thread a process has, and the fair gate it goes through.

SQLite lets one process write at a time; left to its own busy handler, four processes starve
one of them for seconds.  So every write transaction goes through a FIFO gate shared by all
processes, and inside a process through one thread that commits together what is queued:

    queue ─▶ gate (FIFO, bounded) ─▶ BEGIN IMMEDIATE ─▶ each request in its own savepoint
          ─▶ COMMIT (synced) ─▶ gate left ─▶ only now is anybody answered

Rules
-----
1. A request is a function of the connection.  It raises before it writes or is rolled back
   alone; its neighbours in the batch do not notice.
2. Nobody is answered before COMMIT.  A COMMIT that fails is *unknown* for the whole batch:
   each request that can is looked up by its id, and the others are told that it is unknown.
3. Inside a transaction: a few statements, no waiting, no callbacks.
4. `busy_timeout` is 0: the deadline is ours, and one total.
5. Each transaction looks at the schema's version.  If a newer Holdfast has migrated the store
   under us, whatever would begin something new is refused, and what runs may still end:
   migrations only add.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from holdfast import _points
from holdfast.backends.files.control import schema
from holdfast.backends.files.control.entrance import inside, roll_back
from holdfast.backends.files.control.faults import translated
from holdfast.errors import HoldfastError, NewerSchemaError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.backends.files.lock.gate import Gate
    from holdfast.backends.files.wake import Wake

__all__ = ["Writer"]

T = TypeVar("T")

BATCH_MAX: Final = 64  #: Requests a transaction: a few milliseconds at most.

_log = logging.getLogger("holdfast.store")


@dataclass(slots=True)
class _Request:
    run: Callable[[sqlite3.Connection], Any]
    #: Looks the request up by its id after a COMMIT of unknown fate; None = not there.
    landed: Callable[[sqlite3.Connection], Any] | None
    pokes: bool
    begins: bool  #: It would begin something new.
    answer: Future[Any] = field(default_factory=Future)
    result: Any = None
    refusal: BaseException | None = None


class Writer:
    """Owns the writing connection.  `submit` may be called from any thread."""

    def __init__(
        self, path: str, connect: Callable[[], sqlite3.Connection], gate: Gate, wake: Wake, *,
        timeout_s: float, wrote: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        """*wrote*: told, in the writer's thread, how many rows each transaction has changed."""
        self._path, self._connect, self._gate, self._wake = path, connect, gate, wake
        self._timeout_s, self._wrote = timeout_s, wrote
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closing = False
        #: A newer Holdfast has this store now.
        self.outgrown: NewerSchemaError | None = None
        self._thread = threading.Thread(target=self._work, name="holdfast-writer", daemon=True)
        self._thread.start()

    def submit(
        self,
        run: Callable[[sqlite3.Connection], T],
        *,
        landed: Callable[[sqlite3.Connection], T | None] | None = None,
        pokes: bool = True,
        begins: bool = False,
    ) -> Future[T]:
        """Queue a transaction body; the future is answered after COMMIT, or with an error."""
        request = _Request(run, landed, pokes, begins)
        if self._closing:
            request.answer.set_exception(self._gone("the store is closed"))
        else:
            self._queue.put(request)
        return request.answer

    def close(self) -> None:
        """Finish what is queued, then end the thread.  Idempotent."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        connection = self._connect()
        try:
            while (first := self._queue.get()) is not None:
                batch, last = self._batch(first)
                if batch:
                    self._transact(connection, batch)
                if last:
                    break
        finally:
            connection.close()
            while not self._queue.empty():
                if (request := self._queue.get()) is not None:
                    request.answer.set_exception(self._gone("the store is closed"))

    def _batch(self, first: _Request) -> tuple[list[_Request], bool]:
        """What is queued now, less what was cancelled before it began."""
        found, last = [first], False
        while len(found) < BATCH_MAX:
            try:
                request = self._queue.get_nowait()
            except queue.Empty:
                break
            if request is None:
                last = True
                break
            found.append(request)
        return [r for r in found if r.answer.set_running_or_notify_cancel()], last

    def _transact(self, db: sqlite3.Connection, batch: list[_Request]) -> None:
        changed = db.total_changes
        try:
            with inside(db, self._gate, self._path, self._timeout_s):
                _points.reach("control.begun")
                self._look_at_version(db)
                for request in batch:
                    self._run_one(db, request, alone=len(batch) == 1)
                self._commit(db, batch)
        except HoldfastError as error:  # The gate: nothing of it has happened.
            self._fail(batch, error)
            return
        except sqlite3.Error as error:
            self._fail(batch, translated(error, self._path))
            return
        _points.reach("control.committed")
        if any(request.pokes and request.refusal is None for request in batch):
            self._wake.poke()
        for request in batch:
            if request.refusal is not None:
                request.answer.set_exception(request.refusal)
            else:
                request.answer.set_result(request.result)
        if self._wrote is not None:
            self._wrote(db.total_changes - changed)

    def _look_at_version(self, db: sqlite3.Connection) -> None:
        try:
            schema.checked_version(db, self._path)
        except NewerSchemaError as error:
            self.outgrown = error

    def _run_one(self, db: sqlite3.Connection, request: _Request, *, alone: bool) -> None:
        if request.begins and self.outgrown is not None:
            request.refusal = self.outgrown
            return
        if not alone:
            db.execute("SAVEPOINT request")
        try:
            request.result = request.run(db)
        except sqlite3.Error:
            raise  # The medium's, not the request's: the whole batch is undone.
        except Exception as refusal:  # noqa: BLE001  A bug in one body is its caller's alone.
            request.refusal = refusal
            if alone:
                db.execute("ROLLBACK")
                return
            db.execute("ROLLBACK TO request")
        if not alone:
            db.execute("RELEASE request")

    def _commit(self, db: sqlite3.Connection, batch: list[_Request]) -> None:
        if not db.in_transaction:  # A lone request was refused and rolled back.
            return
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            roll_back(db)
            for request in batch:
                if request.refusal is None:
                    request.refusal = self._looked_up(db, request, error)

    def _looked_up(
        self, db: sqlite3.Connection, request: _Request, error: sqlite3.Error
    ) -> BaseException | None:
        """Ask the store what became of a request whose COMMIT failed."""
        if request.landed is None:
            return translated(error, self._path, landed=None)
        try:
            found = request.landed(db)
        except (sqlite3.Error, HoldfastError) as echo:
            _log.warning("store: cannot look up a write of unknown fate: %s", echo)
            return translated(error, self._path, landed=None)
        if found is None:
            return translated(error, self._path)
        request.result = found
        return None

    @staticmethod
    def _fail(batch: list[_Request], error: HoldfastError) -> None:
        for request in batch:
            request.answer.set_exception(error)

    def _gone(self, detail: str) -> UnavailableError:
        return UnavailableError(path=self._path, detail=detail)
