"""Reading the control store: one connection, one read at a time, none of them long."""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

from holdfast.backends.files.control.faults import translated

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["READ_MAX_S", "Reader"]

T = TypeVar("T")

READ_MAX_S: Final = 0.25  #: No read lives longer: an open reader makes the WAL grow.
_STEPS: Final = 2_000  #: SQLite instructions between two looks at the clock.


class Reader:
    """One reading connection; any thread, one read at a time, none longer than READ_MAX_S."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._path, self._db = path, connection
        self._lock = threading.Lock()
        self._until_s = 0.0
        connection.set_progress_handler(self._out_of_time, _STEPS)

    def read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            self._until_s = time.monotonic() + READ_MAX_S
            try:
                return self._in_one_moment(run)
            except sqlite3.Error as error:
                raise translated(error, self._path) from error

    def _in_one_moment(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Several SELECTs must not see others commit in between."""
        self._db.execute("BEGIN")
        try:
            return run(self._db)
        finally:
            if self._db.in_transaction:  # An interrupted read may have ended it.
                self._db.execute("ROLLBACK")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _out_of_time(self) -> bool:
        return time.monotonic() > self._until_s
