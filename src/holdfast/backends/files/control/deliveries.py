"""Attempts at what is owed to channels.  Each function is one transaction's body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast._core import delivery, turns
from holdfast._core.delivery import Event, State
from holdfast._stamps import now_iso
from holdfast.backends.files.control.clock import clock_ms, tick_ms
from holdfast.backends.files.control.owing import (
    DELIVERY,
    OWED,
    queue_of,
    to_delivery,
)
from holdfast.backends.files.control.queries import PAGE
from holdfast.backends.files.control.rows import event, fetch_turn, move
from holdfast.errors import LeaseLostError, NotFoundError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

    from holdfast._core.delivery import Queue
    from holdfast.types import Delivery, OwnerId, SessionId, TurnId

__all__ = [
    "deliveries",
    "disown",
    "drop",
    "due_ms",
    "expire",
    "fetch",
    "listed",
    "next_one",
    "settle",
    "settled",
]

EXPIRE_SLICE: Final = 50
#: By state: the event of who comes to it.
_TOLD: Final = {
    State.DELIVERED: "delivered",
    State.FAILED: "delivery_failed",
    State.UNKNOWN: "delivery_unknown",
}
_EVENTS: Final = {
    State.DELIVERED: Event.LAND,
    State.FAILED: Event.REFUSE,
    State.UNKNOWN: Event.LOSE,
    State.PENDING: Event.RETRY,
}


def fetch(db: sqlite3.Connection, delivery_id: str) -> Delivery:
    row = db.execute(f"{DELIVERY} WHERE delivery_id = ?", (delivery_id,)).fetchone()
    if row is None:
        raise NotFoundError(what="delivery", name=delivery_id[:80])
    return to_delivery(row)


def next_one(
    db: sqlite3.Connection, owner_id: OwnerId, channels: Collection[str]
) -> Delivery | None:
    """Take the oldest part that may be attempted now."""
    if db.execute("SELECT 1 FROM owners WHERE owner_id = ?", (owner_id,)).fetchone() is None:
        return None  # Buried: whoever died is nobody's sender.
    at_ms = tick_ms(db)
    expire(db, at_ms)
    queue = _first(db, channels, at_ms)
    if queue is None or queue.take is None:
        return None
    best, passed = queue.take, queue.passed
    for each in passed:
        if not each.overtaken:
            db.execute(
                "UPDATE deliveries SET overtaken = 1, hint = ? WHERE delivery_id = ?",
                (delivery.PASSED, each.delivery_id),
            )
            event(
                db, "overtaken", each.session_id, each.turn_id, owner_id,
                delivery=each.delivery_id, by=best.delivery_id,
            )  # fmt: skip
    state = delivery.step(best.state, Event.TAKE)
    db.execute(
        "UPDATE deliveries SET state = ?, owner_id = ?, attempts = attempts + 1"
        " WHERE delivery_id = ?",
        (state.value, owner_id, best.delivery_id),
    )
    queue_of(db, best.target, at_ms)
    return fetch(db, best.delivery_id)


def _first(db: sqlite3.Connection, channels: Collection[str], at_ms: int) -> Queue | None:
    """Of the targets that are due, the one whose part has been owed for longest."""
    due = f"channel IN ({', '.join('?' * len(channels))}) AND wake_ms <= ?"
    while True:
        row = db.execute(
            f"SELECT target FROM targets WHERE {due} ORDER BY seq LIMIT 1", (*channels, at_ms)
        ).fetchone()
        if row is None:
            return None
        queue = queue_of(db, row[0], at_ms)
        if queue.take is not None:  # Else it is due later, and says so now.
            return queue


def settle(
    db: sqlite3.Connection,
    delivery_id: str,
    owner_id: OwnerId,
    state: str,
    *,
    attempt: int | None,
    reason: str | None,
    hint: str | None,
    remote_id: str | None,
    delay_ms: int,
) -> Delivery:
    """See the port."""
    row = fetch(db, delivery_id)
    ours = row.state == State.ATTEMPTING.value and row.owner_id == owner_id
    if not ours or (attempt is not None and attempt != row.attempts):
        raise LeaseLostError(turn_id=row.turn_id, token=row.attempts)
    landing = delivery.step(row.state, _EVENTS[State(state)])
    return _move(
        db, row, landing, owner_id, reason=reason, hint=hint, remote_id=remote_id,
        delay_ms=delay_ms,
    )  # fmt: skip


def settled(db: sqlite3.Connection, delivery_id: str, owner_id: OwnerId) -> Delivery | None:
    """After a COMMIT of unknown fate: is the attempt over?"""
    row = fetch(db, delivery_id)
    return None if (row.state, row.owner_id) == (State.ATTEMPTING.value, owner_id) else row


def expire(db: sqlite3.Connection, at_ms: int | None = None) -> int:
    """Give up on one slice of what nobody wants any more; returns how many."""
    at_ms = tick_ms(db) if at_ms is None else at_ms
    rows = db.execute(
        f"{DELIVERY} WHERE expires_ms <= ? AND {OWED} AND state != 'attempting'"
        " ORDER BY expires_ms, seq LIMIT ?",
        (at_ms, EXPIRE_SLICE),
    ).fetchall()
    for row in map(to_delivery, rows):
        _give_up(db, row, "expired")
    return len(rows)


def drop(db: sqlite3.Connection, delivery_id: str) -> Delivery:
    """See the port."""
    row = fetch(db, delivery_id)
    return _give_up(db, row, "dropped") if delivery.may_drop(row.state) else row


def _give_up(db: sqlite3.Connection, row: Delivery, reason: str) -> Delivery:
    lost = row.state == State.UNKNOWN.value
    landing = delivery.step(row.state, Event.EXPIRE)
    hint = delivery.MAY_HAVE_ARRIVED if lost else None
    return _move(db, row, landing, None, reason=reason, hint=hint)


def disown(db: sqlite3.Connection, owner_id: OwnerId) -> int:
    """*owner_id* is gone: whether what it was sending has arrived, nobody knows."""
    rows = db.execute(
        f"{DELIVERY} WHERE {OWED} AND state = 'attempting' AND owner_id = ?", (owner_id,)
    ).fetchall()
    for row in map(to_delivery, rows):
        landing = delivery.step(row.state, Event.LOSE)
        _move(db, row, landing, owner_id, reason="owner_died")
    return len(rows)


def _move(
    db: sqlite3.Connection,
    row: Delivery,
    to: State,
    owner_id: OwnerId | None,
    *,
    reason: str | None = None,
    hint: str | None = None,
    remote_id: str | None = None,
    delay_ms: int = 0,
) -> Delivery:
    """The attempt is over, or there will be none.  The last part settles its turn."""
    over, at_ms = delivery.terminal(to), tick_ms(db)
    db.execute(
        "UPDATE deliveries SET state = ?, owner_id = NULL, reason = ?,"
        " hint = coalesce(?, hint), remote_id = coalesce(?, remote_id), not_before_ms = ?,"
        " ended_at = ? WHERE delivery_id = ?",
        (
            to.value, reason, hint, remote_id, at_ms + delay_ms if delay_ms else 0,
            now_iso() if over else None, row.delivery_id,
        ),
    )  # fmt: skip
    if to in _TOLD:
        event(
            db, _TOLD[to], row.session_id, row.turn_id, owner_id, delivery=row.delivery_id,
            target=row.target, attempts=row.attempts, reason=reason,
        )  # fmt: skip
    if over:
        _settle_turn(db, row.turn_id)
    queue_of(db, row.target, at_ms)
    return fetch(db, row.delivery_id)


def _settle_turn(db: sqlite3.Connection, turn_id: TurnId) -> None:
    turn = fetch_turn(db, turn_id)
    owed = db.execute(f"SELECT 1 FROM deliveries WHERE turn_id = ? AND {OWED}", (turn_id,))
    if turn.state == turns.State.COMMITTED.value and owed.fetchone() is None:
        move(db, turn, turns.Event.SETTLE, outcome="replied")


# ---------------------------------------------------------------------------- reading


def due_ms(db: sqlite3.Connection, channels: Collection[str]) -> int | None:
    """Milliseconds until there may be something to do; None: nothing is owed."""
    at_ms = clock_ms(db)
    (wake_ms,) = db.execute(
        f"SELECT min(wake_ms) FROM targets WHERE channel IN ({', '.join('?' * len(channels))})",
        tuple(channels),
    ).fetchone()
    (expires_ms,) = db.execute(
        f"SELECT min(expires_ms) FROM deliveries WHERE {OWED} AND state != 'attempting'"
    ).fetchone()
    wakes = [each for each in (wake_ms, expires_ms) if each is not None]
    return max(0, min(wakes) - at_ms) if wakes else None


def deliveries(
    db: sqlite3.Connection, *, turn_id: TurnId | None, state: str | None, after: int
) -> list[Delivery]:
    """A page, by `seq`."""
    where, values = "seq > ?", list[object]([after])
    if turn_id is not None:
        where += " AND turn_id = ?"
        values.append(turn_id)
    if state is not None:
        where += f" AND state = ?{'' if delivery.terminal(state) else f' AND {OWED}'}"
        values.append(state)
    rows = db.execute(f"{DELIVERY} WHERE {where} ORDER BY seq LIMIT ?", (*values, PAGE))
    return [to_delivery(row) for row in rows]


def listed(
    db: sqlite3.Connection,
    session_id: SessionId | None,
    channel: str | None,
    state: str | None,
    after: int,
) -> list[Delivery]:
    """A page of what stands in *state*, by `seq`; None: of what is still owed."""
    where, values = ["seq > ?", OWED if state is None else "state = ?"], list[object]([after])
    values += [] if state is None else [state]
    for column, value in (("session_id", session_id), ("channel", channel)):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    rows = db.execute(
        f"{DELIVERY} WHERE {' AND '.join(where)} ORDER BY seq LIMIT ?", (*values, PAGE)
    )
    return [to_delivery(row) for row in rows]
