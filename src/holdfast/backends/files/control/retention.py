"""
Forgetting, a slice at a time.  Each function is one transaction's body; see `_core/retention`.

A slice looks at `SLICE` rows at most, in the order of an index, and stops early once it has
taken `SLICE_S`: one row may be as large as a message may be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast import _stamps
from holdfast._core import retention
from holdfast._core.retention import DAY_MS, SLICE
from holdfast.backends.files import fs
from holdfast.backends.files.control.clock import clock_ms
from holdfast.types import Trimmed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

__all__ = ["trim"]

SLICE_S: Final = 0.002

#: Nobody may attempt a part of it any more.
_SETTLED: Final = (
    "NOT EXISTS (SELECT 1 FROM deliveries AS d WHERE d.turn_id = t.turn_id"
    " AND d.state NOT IN ('delivered', 'failed'))"
)
#: A commit is an anchor by which a transcript that was cut is known, unless a later one is.
_NO_ANCHOR: Final = (
    "(t.final_entry IS NULL"
    " OR t.generation <> (SELECT generation FROM sessions AS s"
    "                      WHERE s.session_id = t.session_id)"
    " OR EXISTS (SELECT 1 FROM turns AS l WHERE l.session_id = t.session_id"
    "             AND l.admission > t.admission AND l.final_entry IS NOT NULL"
    "             AND l.generation = t.generation AND l.end_offset >= t.end_offset"
    "             AND l.entries IS NULL))"
)
_ENDED: Final = f"""
SELECT t.admission, t.turn_id, t.ended_at, t.accepted_ms < ? AND {_SETTLED} AND {_NO_ANCHOR}
       AND (t.idempotency_key IS NULL OR (t.ended_at < ? AND t.accepted_ms < ?))
  FROM turns AS t
 WHERE t.state = 'done' AND t.entries IS NULL AND t.salvaged IS NULL
   AND t.ended_at >= ? AND t.ended_at < ? AND (t.ended_at > ? OR t.admission > ?)
 ORDER BY t.ended_at, t.admission LIMIT ?
"""
_KEYS: Final = f"""
SELECT i.session_key, i.idempotency_key, i.turn_id,
       t.turn_id IS NULL
       OR (t.state = 'done' AND t.ended_at < ? AND t.accepted_ms < ? AND {_SETTLED})
  FROM idempotency AS i LEFT JOIN turns AS t USING (turn_id)
 WHERE i.turn_id > ? AND i.turn_id < ? ORDER BY i.turn_id LIMIT ?
"""
_MADE: Final = """
SELECT turn_id FROM made WHERE turn_id > ? ORDER BY turn_id LIMIT 1
"""


def trim(db: sqlite3.Connection, kind: str, keep_days: int, after: str) -> Trimmed:
    """One slice of what is over.  Raises KeyError: no such *kind*."""
    return _WAYS[kind](db, keep_days, after)


def _turns(db: sqlite3.Connection, keep_days: int, after: str) -> Trimmed:
    wall_ms, now_ms = _stamps.now_ms(), clock_ms(db)
    ended_at, _, admission = after.partition(" ")
    rows = db.execute(
        _ENDED,
        (
            now_ms - keep_days * DAY_MS,
            _stamps.days_before(wall_ms, retention.IDEMPOTENCY_DAYS),
            now_ms - retention.IDEMPOTENCY_DAYS * DAY_MS,
            ended_at, _stamps.days_before(wall_ms, keep_days), ended_at, int(admission or 0),
            SLICE,
        ),
    ).fetchall()  # fmt: skip
    until_s, removed = fs.table.monotonic() + SLICE_S, 0
    for number, (at, turn_id, ended, over) in enumerate(rows, start=1):
        after = f"{ended} {at}"
        if over:
            removed += 1
            for table in ("tool_calls", "deliveries", "made", "idempotency", "turns"):
                db.execute(f"DELETE FROM {table} WHERE turn_id = ?", (turn_id,))
        if fs.table.monotonic() >= until_s and number < len(rows):
            return Trimmed(removed, after)
    return Trimmed(removed, after if len(rows) == SLICE else None)


def _idempotency(db: sqlite3.Connection, keep_days: int, after: str) -> Trimmed:
    del keep_days
    days, wall_ms = retention.IDEMPOTENCY_DAYS, _stamps.now_ms()
    rows = db.execute(
        _KEYS,
        (
            _stamps.days_before(wall_ms, days), clock_ms(db) - days * DAY_MS, after,
            retention.id_before(wall_ms, days), SLICE,
        ),
    ).fetchall()  # fmt: skip
    over = [row[:2] for row in rows if row[3]]
    db.executemany(
        "DELETE FROM idempotency WHERE session_key = ? AND idempotency_key = ?", over
    )
    return Trimmed(len(over), rows[-1][2] if len(rows) == SLICE else None)


def _handovers(db: sqlite3.Connection, keep_days: int, after: str) -> Trimmed:
    del keep_days, after
    done = db.execute(
        "DELETE FROM handovers WHERE request_id IN"
        " (SELECT request_id FROM handovers WHERE request_id < ? ORDER BY request_id LIMIT ?)",
        (retention.id_before(_stamps.now_ms(), retention.HANDOVER_DAYS), SLICE),
    )
    return Trimmed(done.rowcount, "" if done.rowcount == SLICE else None)


def _made(db: sqlite3.Connection, keep_days: int, after: str) -> Trimmed:
    del keep_days
    removed = 0
    for _ in range(SLICE):
        row = db.execute(_MADE, (after,)).fetchone()
        if row is None:
            return Trimmed(removed, None)
        (after,) = row
        done = db.execute(
            "DELETE FROM made WHERE turn_id = ? AND NOT EXISTS"
            " (SELECT 1 FROM turns WHERE turn_id = ? AND outcome IS NULL)",
            (after, after),
        )
        removed += done.rowcount
    return Trimmed(removed, after)


_WAYS: Final[dict[str, Callable[[sqlite3.Connection, int, str], Trimmed]]] = {
    "turns": _turns,
    "idempotency": _idempotency,
    "handovers": _handovers,
    "made": _made,
}
assert _WAYS.keys() == set(retention.KINDS)
