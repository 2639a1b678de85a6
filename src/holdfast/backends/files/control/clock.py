"""
The store's clock: milliseconds that never go back, whatever anybody does to the wall clock.

A boot's monotonic clock, shared by all its processes, plus an offset: one row a boot.  A new
boot goes on where the greatest of all boots has stopped, so the time between does not count;
the first of all begins with the wall clock, which is read once in the life of a store.

Every decision about time asks here: waiting, `not_before`, quiet windows, expiry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast import _stamps
from holdfast.backends.files import fs, identity

if TYPE_CHECKING:
    import sqlite3

__all__ = ["clock_ms", "tick_ms"]


def clock_ms(db: sqlite3.Connection) -> int:
    """The time now.  Reads one row, writes nothing."""
    return _read(db, _monotonic_ms())


def tick_ms(db: sqlite3.Connection) -> int:
    """The time now, noted: no later boot begins before it.  In a write transaction."""
    at_ms = _monotonic_ms()
    row = db.execute(
        "UPDATE clock SET last_ms = max(last_ms, offset_ms + ?) WHERE boot_id = ?"
        " RETURNING last_ms",
        (at_ms, _boot()),
    ).fetchone()
    if row is not None:
        return int(row[0])
    now_ms = _read(db, at_ms)  # The first of this boot.
    db.execute("INSERT INTO clock VALUES (?, ?, ?)", (_boot(), now_ms - at_ms, now_ms))
    return now_ms


def _read(db: sqlite3.Connection, at_ms: int) -> int:
    row = db.execute(
        "SELECT offset_ms, last_ms FROM clock WHERE boot_id = ?", (_boot(),)
    ).fetchone()
    if row is not None:
        return max(int(row[0]) + at_ms, int(row[1]))
    (newest_ms,) = db.execute("SELECT max(last_ms) FROM clock").fetchone()
    return _stamps.now_ms() if newest_ms is None else int(newest_ms)


def _monotonic_ms() -> int:
    return int(fs.table.monotonic() * 1000)


def _boot() -> str:
    return identity.me().boot or ""
