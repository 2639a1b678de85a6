"""
Rows to values and back: what every transaction body needs.

`move` is the only place that changes a turn's state, and it asks `_core.turns` first.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.turns import State, step
from holdfast._stamps import now_iso
from holdfast.errors import LeaseLostError, NotFoundError
from holdfast.types import Session, Turn

if TYPE_CHECKING:
    import sqlite3

    from holdfast._core.turns import Event
    from holdfast.types import FencingToken, SessionId, TurnId

__all__ = ["TURN", "event", "fetch_session", "fetch_turn", "guard", "move", "to_turn"]

#: The columns of `types.Turn`, in its order.
_COLUMNS: Final = tuple(Turn.__dataclass_fields__)
_BOOLEANS: Final = tuple(_COLUMNS.index(name) for name in ("bound", "abort_requested"))
_USAGE: Final = _COLUMNS.index("usage")
TURN: Final = f"SELECT {', '.join(_COLUMNS)} FROM turns"


def to_turn(row: tuple[Any, ...]) -> Turn:
    values = list(row)
    for at in _BOOLEANS:
        values[at] = bool(values[at])
    if values[_USAGE] is not None:
        values[_USAGE] = json.loads(values[_USAGE])
    return Turn(*values)


def fetch_turn(db: sqlite3.Connection, turn_id: str) -> Turn:
    row = db.execute(f"{TURN} WHERE turn_id = ?", (turn_id,)).fetchone()
    if row is None:
        raise NotFoundError(what="turn", name=turn_id[:80])
    return to_turn(row)


def fetch_session(db: sqlite3.Connection, session_id: SessionId) -> Session:
    row = db.execute(
        "SELECT session_id, agent_id, transcript, generation, end_offset, created_at"
        " FROM sessions WHERE session_id = ?",
        (session_id,),
    ).fetchone()
    if row is None:
        raise NotFoundError(what="session", name=session_id[:80])
    return Session(*row)


def guard(db: sqlite3.Connection, turn_id: TurnId, token: FencingToken) -> Turn:
    """
    The running turn, if *token* still holds its lease.

    Raises:
        LeaseLostError: it does not: the token moved on, or the turn ended.
    """
    turn = fetch_turn(db, turn_id)
    row = db.execute(
        "SELECT 1 FROM leases WHERE session_id = ? AND turn_id = ? AND token = ?",
        (turn.session_id, turn_id, token),
    ).fetchone()
    if row is None:
        raise LeaseLostError(turn_id=turn_id, token=token)
    return turn


def move(
    db: sqlite3.Connection,
    turn: Turn,
    what: Event,
    *,
    outcome: str | None = None,
    reason: str | None = None,
    hint: str | None = None,
) -> State:
    """Take one step of the turn table.  Leaving RUNNING gives lease and slot back."""
    row = step(State(turn.state), what, outcome)
    db.execute(
        "UPDATE turns SET state = ?, outcome = ?, reason = ?, hint = ?, attempts = attempts + ?"
        " WHERE turn_id = ?",
        (row.to.value, outcome, reason, hint, row.attempts, turn.turn_id),
    )
    if turn.state == State.RUNNING.value:
        db.execute("DELETE FROM leases WHERE turn_id = ?", (turn.turn_id,))
        db.execute("DELETE FROM slots WHERE turn_id = ?", (turn.turn_id,))
        db.execute(
            "UPDATE turns SET token = NULL, owner_id = NULL WHERE turn_id = ?", (turn.turn_id,)
        )
    if outcome is not None:
        db.execute(
            "UPDATE turns SET ended_at = coalesce(ended_at, ?), host = NULL,"
            " finished = NULL, seed = NULL WHERE turn_id = ?",
            (now_iso(), turn.turn_id),
        )
    event(
        db, what.value, turn.session_id, turn.turn_id, turn.owner_id,
        outcome=outcome, reason=reason,
    )  # fmt: skip
    return row.to


def event(
    db: sqlite3.Connection,
    kind: str,
    session_id: str | None,
    turn_id: str | None,
    owner_id: str | None,
    **data: Any,
) -> None:
    told = {name: value for name, value in data.items() if value is not None}
    db.execute(
        "INSERT INTO events (at, kind, session_id, turn_id, owner_id, data)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (now_iso(), kind, session_id, turn_id, owner_id, json.dumps(told) if told else None),
    )
