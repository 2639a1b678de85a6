"""
Rows to values and back: what every transaction body needs.

`move` is the only place that changes a turn's state, and it asks `_core.turns` first.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.turns import Event, State, step
from holdfast._stamps import now_iso
from holdfast.backends.files.control.clock import clock_ms
from holdfast.backends.files.control.owing import owe_notice
from holdfast.errors import LeaseLostError, NotFoundError
from holdfast.types import Session, Turn

if TYPE_CHECKING:
    import sqlite3

    from holdfast.types import FencingToken, SessionId, TurnId

__all__ = [
    "COLUMNS",
    "HEARTBEAT",
    "TURN",
    "event",
    "fetch_session",
    "fetch_turn",
    "guard",
    "hosted",
    "move",
    "to_turn",
    "unhost",
]

HEARTBEAT: Final = "heartbeat"

#: The columns of `types.Turn`, in its order.
_COLUMNS: Final = tuple(Turn.__dataclass_fields__)
_BOOLEANS: Final = tuple(
    _COLUMNS.index(name) for name in ("bound", "abort_requested", "slot_wanted", "hosted")
)
_USAGE: Final = _COLUMNS.index("usage")
COLUMNS: Final = ", ".join(_COLUMNS)
TURN: Final = f"SELECT {COLUMNS} FROM turns"

#: What `move` changes in a turn's row: always, on leaving RUNNING, on getting its outcome.
_MOVED: Final = "state = ?2, outcome = ?3, reason = ?4, hint = ?5, attempts = attempts + ?6"
_LEFT: Final = ", token = NULL, owner_id = NULL, waits_for = NULL, slot_wanted = 0"
_OVER: Final = ", ended_at = coalesce(ended_at, ?7), host = NULL, finished = NULL, seed = NULL"


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
    owner_id: str | None = None,
) -> State:
    """
    Take one step of the turn table.  *owner_id*: whose step it is, if not its runner's.

    Leaving RUNNING gives lease and slot back; an outcome leaves nobody with this turn as
    host: who is merged by it ends before.
    """
    row = step(State(turn.state), what, outcome)
    told = _lasted(db, turn, what, outcome)
    running = turn.state == State.RUNNING.value
    ends = outcome is not None and turn.state != State.COMMITTED.value
    db.execute(
        f"UPDATE turns SET {_MOVED}{_LEFT if running else ''}{_OVER if ends else ''}"
        " WHERE turn_id = ?1",
        (turn.turn_id, row.to.value, outcome, reason, hint, row.attempts)
        + ((now_iso(),) if ends else ()),
    )
    if running:
        db.execute("DELETE FROM leases WHERE turn_id = ?", (turn.turn_id,))
        db.execute("DELETE FROM slots WHERE turn_id = ?", (turn.turn_id,))
    if ends:
        _ended(db, turn, reason)
    if outcome is not None:
        owe_notice(db, turn, outcome, reason, hint)
    event(
        db, what.value, turn.session_id, turn.turn_id, owner_id or turn.owner_id,
        lane=turn.lane, outcome=outcome, reason=reason, **told,
    )  # fmt: skip
    return row.to


def _lasted(
    db: sqlite3.Connection, turn: Turn, what: Event, outcome: str | None
) -> dict[str, int]:
    """How long it has waited, or run, by the store's clock: for the event."""
    if what is Event.LEASE:
        return {"waited_ms": max(clock_ms(db) - turn.accepted_ms, 0)}
    if turn.state != State.RUNNING.value or outcome is None:
        return {}
    row = db.execute(
        "SELECT taken_ms FROM leases WHERE turn_id = ?", (turn.turn_id,)
    ).fetchone()
    return {} if row is None else {"ran_ms": max(clock_ms(db) - row[0], 0)}


def _ended(db: sqlite3.Connection, turn: Turn, reason: str | None) -> None:
    """It has got its outcome: nothing is left open of what belongs to it."""
    db.execute("DELETE FROM made WHERE turn_id = ?", (turn.turn_id,))
    db.execute(  # Nobody will ever say how it went.
        "UPDATE tool_calls SET state = 'interrupted', ended_at = ?"
        " WHERE turn_id = ? AND state = 'started'",
        (now_iso(), turn.turn_id),
    )
    for guest in hosted(db, turn.turn_id):
        unhost(db, guest)
    # One that had its run, and where it gets its outcome: not once its deliveries are over.
    had_its_run = turn.started_at is not None and turn.outcome is None
    if turn.lane == HEARTBEAT and had_its_run and reason != "preempted":
        db.execute(
            "UPDATE sessions SET preempted = 0 WHERE session_id = ? AND preempted > 0",
            (turn.session_id,),
        )


def hosted(db: sqlite3.Connection, turn_id: TurnId) -> list[Turn]:
    """Those provisionally merged into *turn_id*, in the order of admission."""
    rows = db.execute(
        f"{TURN} WHERE host = ? AND state = 'accepted' ORDER BY admission", (turn_id,)
    )
    return [to_turn(row) for row in rows]


def unhost(db: sqlite3.Connection, turn: Turn) -> None:
    """A turn that was to be merged stands at its own place again."""
    db.execute("UPDATE turns SET host = NULL WHERE turn_id = ?", (turn.turn_id,))
    event(db, "unmerged", turn.session_id, turn.turn_id, None, lane=turn.lane, host=turn.host)


def event(
    db: sqlite3.Connection,
    kind: str,
    session_id: str | None,
    turn_id: str | None,
    owner_id: str | None,
    *,
    lane: str | None = None,
    **data: Any,
) -> None:
    """Note what happened, for people.  *lane*: the turn's own, if it is not given."""
    told = {name: value for name, value in data.items() if value is not None}
    db.execute(
        "INSERT INTO events (at, kind, session_id, turn_id, owner_id, lane, data) VALUES"
        " (?1, ?2, ?3, ?4, ?5, coalesce(?6, (SELECT lane FROM turns WHERE turn_id = ?4)), ?7)",
        (
            now_iso(), kind, session_id, turn_id, owner_id, lane,
            json.dumps(told) if told else None,
        ),
    )  # fmt: skip
