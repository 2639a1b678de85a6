"""
Turns that wait for turns.  Transaction bodies.

A merged turn waits for its host, a waiting one for the turn that holds its session's lease, a
running one for every child that it awaits: several, if its agent asks for several at once.  A
cycle is a way from whom one is about to wait for back to oneself.
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
    ways = [] if following is None else [[following]]
    seen: set[TurnId] = set()
    while ways:
        way = ways.pop()
        if way[-1] == waiter:
            raise DeadlockError(cycle=[waiter, child, *way[:-1]])
        if way[-1] not in seen:
            seen.add(way[-1])
            ways.extend([*way, each] for each in _blockers(db, way[-1]))


def _blockers(db: sqlite3.Connection, turn_id: TurnId) -> list[TurnId]:
    """The turns that *turn_id* waits for."""
    row = db.execute(
        "SELECT state, waits_for, host, session_id FROM turns WHERE turn_id = ?", (turn_id,)
    ).fetchone()
    if row is None:
        return []
    state, waits_for, host, session_id = row
    if state == State.RUNNING.value:
        return [TurnId(each) for each in (waits_for or "").split()]
    if state != State.ACCEPTED.value:
        return []
    blocker = holder(db, session_id) if host is None else TurnId(host)
    return [] if blocker is None else [blocker]


def holder(db: sqlite3.Connection, session_id: SessionId) -> TurnId | None:
    """The turn that holds the session's lease."""
    row = db.execute(
        "SELECT turn_id FROM leases WHERE session_id = ?", (session_id,)
    ).fetchone()
    return None if row is None else TurnId(row[0])


def wait_for(
    db: sqlite3.Connection, turn_id: TurnId, token: FencingToken, child: TurnId
) -> None:
    """A running turn waits for the end of *child*, too: its slot goes back, its lease stays."""
    turn = guard(db, turn_id, token)
    fetch_turn(db, child)
    if child == turn_id:
        raise DeadlockError(cycle=[turn_id])
    for blocker in _blockers(db, child):
        refuse_cycle(db, turn_id, child, blocker)
    db.execute("DELETE FROM slots WHERE turn_id = ?", (turn_id,))
    awaited = " ".join(dict.fromkeys([*(turn.waits_for or "").split(), child]))
    db.execute(
        "UPDATE turns SET waits_for = ?, slot_wanted = 0 WHERE turn_id = ?", (awaited, turn_id)
    )


def regain(
    db: sqlite3.Connection,
    turn_id: TurnId,
    token: FencingToken,
    lanes: Mapping[str, Lane],
    child: TurnId | None = None,
) -> bool:
    """Take a slot again.  False: none is free; the next one is ours, ahead of new turns."""
    turn = guard(db, turn_id, token)
    others = [each for each in (turn.waits_for or "").split() if each != child]
    if child is not None and others:
        db.execute(
            "UPDATE turns SET waits_for = ? WHERE turn_id = ?", (" ".join(others), turn_id)
        )
        return True
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
