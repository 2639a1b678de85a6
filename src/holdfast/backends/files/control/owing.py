"""
What is owed to channels: rows made in the transaction that gives a turn its outcome.

Knows nothing of the other tables' rows, so that whoever changes those may call it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.delivery import State, look, ttl_ms
from holdfast._core.parts import notice_of, parts_of
from holdfast._stamps import now_iso
from holdfast.backends.files.control.clock import tick_ms
from holdfast.types import Delivery

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from holdfast._core.delivery import Queue
    from holdfast.types import Turn

__all__ = ["DELIVERY", "OWED", "owe_notice", "owe_reply", "queue_of", "to_delivery"]

#: Word for word the condition of two indexes.
OWED: Final = "state IN ('pending', 'attempting', 'unknown')"
_COLUMNS: Final = tuple(Delivery.__dataclass_fields__)
_OVERTAKEN: Final = _COLUMNS.index("overtaken")
DELIVERY: Final = f"SELECT {', '.join(_COLUMNS)} FROM deliveries"


def to_delivery(row: tuple[Any, ...]) -> Delivery:
    values = list(row)
    values[_OVERTAKEN] = bool(values[_OVERTAKEN])
    return Delivery(*values)


def owe_reply(db: sqlite3.Connection, turn: Turn, text: str) -> bool:
    """
    The reply of *turn*, which has its outcome, is owed to its target.

    Returns:
        Whether anything is owed: False settles the turn.
    """
    return _owe(db, turn, "reply", text)


def owe_notice(
    db: sqlite3.Connection, turn: Turn, outcome: str, reason: str | None, hint: str | None
) -> None:
    """*turn* ends without a reply.  Whoever is refused is told, where the reply would go."""
    turn = replace(turn, outcome=outcome, reason=reason, hint=hint)
    text = notice_of(turn) if turn.target is not None else None
    if text is not None:
        _owe(db, turn, "notice", text)


def _owe(db: sqlite3.Connection, turn: Turn, kind: str, text: str) -> bool:
    parts = parts_of(turn, kind, text)
    if turn.target is None or not parts:
        return False
    now, at_ms = now_iso(), tick_ms(db)
    channel, expires_ms = turn.target.partition(":")[0], at_ms + ttl_ms(turn.lane)
    db.executemany(
        "INSERT INTO deliveries (delivery_id, turn_id, session_id, kind, part, parts, target,"
        " channel, body, body_hash, state, created_ms, expires_ms, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                each.delivery_id, turn.turn_id, turn.session_id, kind, each.part, each.parts,
                turn.target, channel, each.body, each.body_hash, State.PENDING.value, at_ms,
                expires_ms, now,
            )
            for each in parts
        ],
    )  # fmt: skip
    queue_of(db, turn.target, at_ms)
    return True


def queue_of(db: sqlite3.Connection, target: str, at_ms: int) -> Queue:
    """
    What *target* is owed, now.  To be called after each change of it: notes since when its head
    keeps others waiting, and when to look again.
    """
    queue = look(_owed_to(db, target), at_ms)
    if queue.blocks is not None:
        db.execute(
            "UPDATE deliveries SET blocking_ms = ? WHERE delivery_id = ?",
            (at_ms, queue.blocks.delivery_id),
        )
        queue = look(_owed_to(db, target), at_ms)
    if queue.head is None:
        db.execute("DELETE FROM targets WHERE target = ?", (target,))
    else:
        db.execute(
            "INSERT OR REPLACE INTO targets VALUES (?, ?, ?, ?)",
            (target, queue.head.channel, queue.wake_ms, (queue.take or queue.head).seq),
        )
    return queue


def _owed_to(db: sqlite3.Connection, target: str) -> Iterator[Delivery]:
    rows = db.execute(f"{DELIVERY} WHERE target = ? AND {OWED} ORDER BY seq", (target,))
    return (to_delivery(row) for row in rows)
