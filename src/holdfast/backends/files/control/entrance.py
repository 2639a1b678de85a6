"""
Into a write transaction: through the fair gate, then BEGIN IMMEDIATE; out again after COMMIT.

While the gate's next ticket belongs to a process that does not move, it is passed over by
trying BEGIN itself: SQLite's own lock is what excludes, the gate is only order.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from holdfast.backends.files.look.frozen import Lookout, transaction_of
from holdfast.backends.files.look.frozen import inside as who
from holdfast.errors import LockTimeoutError, StoreError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.backends.files.lock.gate import Gate, GatePass

__all__ = ["inside", "roll_back"]

BUSY_PAUSE_S: Final = 0.001  #: Between tries while a stranger (a backup, a shell) writes.

_log = logging.getLogger("holdfast.store")


@contextmanager
def inside(db: sqlite3.Connection, gate: Gate, path: str, timeout_s: float) -> Iterator[None]:
    """
    A write transaction on *db*.  The caller commits; what it left open is rolled back.

    Raises:
        UnavailableError: not within *timeout_s*, one total deadline; names who is inside.
        sqlite3.Error: SQLite failed.
    """
    deadline_s = time.monotonic() + timeout_s
    lookout = Lookout(transaction_of(os.path.dirname(path)), lambda: who(gate))

    def busy() -> bool:
        """Asked again and again while nobody before us moves."""
        lookout.look(time.monotonic())
        return not _begin(db)

    try:
        try:
            right_of_way = gate.acquire(timeout_s, busy=busy, record=True)
        except LockTimeoutError as error:
            detail = f"no write transaction in {timeout_s:g} s; inside: {error.holder}"
            raise UnavailableError(path=path, detail=detail) from error
        try:
            while not db.in_transaction and not _begin(db):
                if time.monotonic() > deadline_s:
                    detail = f"another program kept it locked for {timeout_s:g} s"
                    raise UnavailableError(path=path, detail=detail)
                time.sleep(BUSY_PAUSE_S)
            yield
        finally:
            _leave(right_of_way)
    finally:
        roll_back(db)


def roll_back(db: sqlite3.Connection) -> None:
    """Undo what is open, if anything is.  Never raises: the first cause is on its way."""
    if db.in_transaction:
        try:
            db.execute("ROLLBACK")
        except sqlite3.Error as echo:
            _log.warning("store: rollback failed: %s", echo)


def _begin(db: sqlite3.Connection) -> bool:
    try:
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if (error.sqlite_errorcode & 0xFF) != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _leave(right_of_way: GatePass) -> None:
    """The place is given back whatever this says; what was committed stays committed."""
    try:
        right_of_way.release()
    except StoreError as echo:
        _log.warning("store: %s", echo)
