"""
Turns that wait for turns.  Transaction bodies.

Every turn waits for one other at most: a merged one for its host, a waiting one for the turn
that holds its session's lease, a running one for the child that it awaits.  So a cycle is
found by following one chain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast._core.turns import State
from holdfast.backends.files.control.rows import fetch_turn, guard
from holdfast.errors import DeadlockError
from holdfast.types import TurnId

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from holdfast._core.settings import Lane
    from holdfast.types import FencingToken, SessionId

__all__ = ["holder", "refuse_cycle", "regain", "wait_for"]


def refuse_cycle(
    db: sqlite3.Connection, waiter: TurnId, child: TurnId, following: TurnId | None
) -> None:
    """
    Args:
        following: whom *child* waits for.

    Raises:
        DeadlockError: *waiter* waits for *child*, and *child*, at whatever distance, for
            *waiter*.
    """
    cycle = [waiter, child]
    while following is not None and following not in cycle:
        cycle.append(following)
        following = _blocker(db, following)
    if following == waiter:
        raise DeadlockError(cycle=[*cycle])


def _blocker(db: sqlite3.Connection, turn_id: TurnId) -> TurnId | None:
    """The turn that *turn_id* waits for."""
    row = db.execute(
        "SELECT state, waits_for, host, session_id FROM turns WHERE turn_id = ?", (turn_id,)
    ).fetchone()
    if row is None:
        return None
    state, waits_for, host, session_id = row
    if state == State.RUNNING.value:
        return None if waits_for is None else TurnId(waits_for)
    if state != State.ACCEPTED.value:
        return None
    return holder(db, session_id) if host is None else TurnId(host)


def holder(db: sqlite3.Connection, session_id: SessionId) -> TurnId | None:
    """The turn that holds the session's lease."""
    row = db.execute(
        "SELECT turn_id FROM leases WHERE session_id = ?", (session_id,)
    ).fetchone()
    return None if row is None else TurnId(row[0])


def wait_for(
    db: sqlite3.Connection, turn_id: TurnId, token: FencingToken, child: TurnId
) -> None:
    """A running turn waits for the end of *child*: its slot goes back, its lease stays."""
    guard(db, turn_id, token)
    fetch_turn(db, child)
    if child == turn_id:
        raise DeadlockError(cycle=[turn_id])
    refuse_cycle(db, turn_id, child, _blocker(db, child))
    db.execute("DELETE FROM slots WHERE turn_id = ?", (turn_id,))
    db.execute(
        "UPDATE turns SET waits_for = ?, slot_wanted = 0 WHERE turn_id = ?", (child, turn_id)
    )


def regain(
    db: sqlite3.Connection, turn_id: TurnId, token: FencingToken, lanes: Mapping[str, Lane]
) -> bool:
    """Take a slot again.  False: none is free; the next one is ours, ahead of new turns."""
    turn = guard(db, turn_id, token)
    had = db.execute("SELECT 1 FROM slots WHERE turn_id = ?", (turn_id,)).fetchone()
    if had is None and turn.lane in lanes:
        (used,) = db.execute(
            "SELECT count(*) FROM slots WHERE lane = ?", (turn.lane,)
        ).fetchone()
        if used >= lanes[turn.lane].concurrency:
            db.execute(
                "UPDATE turns SET waits_for = NULL, slot_wanted = 1 WHERE turn_id = ?",
                (turn_id,),
            )
            return False
    if had is None:
        db.execute("INSERT INTO slots VALUES (?, ?, ?)", (turn_id, turn.lane, turn.owner_id))
    db.execute(
        "UPDATE turns SET waits_for = NULL, slot_wanted = 0 WHERE turn_id = ?", (turn_id,)
    )
    return True
