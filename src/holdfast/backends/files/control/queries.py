"""Reading: one SELECT each, a page at most, no transaction left open behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from holdfast._core.turns import State
from holdfast.backends.files.control import order
from holdfast.backends.files.control.clock import clock_ms
from holdfast.backends.files.control.places import place
from holdfast.backends.files.control.rows import TURN, fetch_session, to_turn
from holdfast.errors import NotFoundError
from holdfast.types import (
    Counts,
    FencingToken,
    Place,
    Pulse,
    Session,
    SessionId,
    TurnId,
    TurnState,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping

    from holdfast._core.settings import Lane
    from holdfast.types import OwnerId, Turn

__all__ = [
    "PAGE",
    "aborts",
    "counts",
    "ended",
    "has_heads",
    "is_head",
    "known_agents",
    "newest_token",
    "place",
    "pulses",
    "session_facts",
    "session_of_key",
    "sessions",
    "turn_states",
    "turns",
]

#: Not deleted: see control/tending.py.
STANDING: Final = "transcript NOT LIKE '%.jsonl.deleted-%'"
PAGE: Final = 500  #: Rows a page: a few milliseconds of reading.


def newest_token(db: sqlite3.Connection, session_id: SessionId) -> tuple[int, str] | None:
    """(token, owner) of the session's lease as it stands.  One index look-up."""
    row = db.execute(
        "SELECT token, owner_id FROM leases WHERE session_id = ?", (session_id,)
    ).fetchone()
    return None if row is None else (FencingToken(row[0]), row[1])


def has_heads(
    db: sqlite3.Connection,
    agents: Collection[str],
    session_id: SessionId | None,
    me: OwnerId | None = None,
) -> bool:
    """See `order.has_heads`."""
    return order.has_heads(db, agents, session_id, me, clock_ms(db))


def is_head(db: sqlite3.Connection, turn_id: TurnId) -> bool:
    row = db.execute(
        "SELECT admission, session_id FROM turns AS t WHERE turn_id = ? AND state = 'accepted'"
        " AND NOT EXISTS (SELECT 1 FROM leases WHERE session_id = t.session_id)",
        (turn_id,),
    ).fetchone()
    if row is None:
        return False
    head = order.head_of_session(db, row[1], clock_ms(db))
    return head is not None and head.admission == row[0]


def session_of_key(db: sqlite3.Connection, key: str) -> Session:
    row = db.execute(
        "SELECT session_id FROM keys WHERE session_key ="
        " coalesce((SELECT session_key FROM aliases WHERE alias = ?1), ?1)",
        (key,),
    ).fetchone()
    if row is None:
        raise NotFoundError(what="session", name=key[:80])
    return fetch_session(db, SessionId(row[0]))


def sessions(
    db: sqlite3.Connection, after: str = "", *, newest_first: bool = False
) -> list[tuple[Session, dict[str, Any]]]:
    """
    A page of sessions by id, each with its keys, its counts and who runs it.

    Ids are in the order of creation; *after* is the last one seen.
    """
    compare, order = ("<", "DESC") if newest_first else (">", "ASC")
    after = after or ("~" if newest_first else "")
    rows = db.execute(
        "SELECT session_id, agent_id, transcript, generation, end_offset, created_at,"
        " (SELECT json_group_array(session_key) FROM keys k WHERE k.session_id = s.session_id),"
        " (SELECT count(*) FROM turns t WHERE t.session_id = s.session_id),"
        " (SELECT count(*) FROM turns t WHERE t.session_id = s.session_id"
        "   AND state = 'accepted'),"
        " (SELECT turn_id FROM leases l WHERE l.session_id = s.session_id)"
        f" FROM sessions s WHERE session_id {compare} ? AND {STANDING}"
        f" ORDER BY session_id {order} LIMIT ?",
        (after, PAGE),
    ).fetchall()
    return [
        (
            Session(*row[:6]),
            {"keys": row[6], "turns": row[7], "waiting": row[8], "running": row[9]},
        )
        for row in rows
    ]


def turns(
    db: sqlite3.Connection,
    *,
    session_id: SessionId | None = None,
    state: str | None = None,
    after: int = 0,
) -> list[Turn]:
    """A page of turns in admission order."""
    where, values = ["admission > ?"], [after]
    for column, value in (("session_id", session_id), ("state", state)):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)  # type: ignore[arg-type]
    rows = db.execute(
        f"{TURN} WHERE {' AND '.join(where)} ORDER BY admission LIMIT {PAGE}", values
    ).fetchall()
    return [to_turn(row) for row in rows]


def ended(db: sqlite3.Connection, turn_ids: list[TurnId]) -> list[Turn]:
    """Those of *turn_ids* that have their outcome."""
    marks = ",".join("?" * len(turn_ids))
    rows = db.execute(
        f"{TURN} WHERE turn_id IN ({marks}) AND outcome IS NOT NULL", turn_ids
    ).fetchall()
    return [to_turn(row) for row in rows]


def aborts(db: sqlite3.Connection, owner_id: OwnerId) -> dict[TurnId, str]:
    """Turns that this owner runs and somebody wants ended."""
    rows = db.execute(
        "SELECT turn_id, coalesce(abort_reason, 'cancelled') FROM turns"
        " WHERE owner_id = ? AND state = 'running' AND abort_requested",
        (owner_id,),
    ).fetchall()
    return {TurnId(row[0]): row[1] for row in rows}


def turn_states(
    db: sqlite3.Connection, turn_ids: Collection[TurnId], lanes: Mapping[str, Lane]
) -> dict[TurnId, TurnState]:
    """State and place of each of *turn_ids*.  One that is not there is left out."""
    marks = ",".join("?" * len(turn_ids))
    rows = db.execute(
        f"SELECT turn_id, state, outcome FROM turns WHERE turn_id IN ({marks})", [*turn_ids]
    ).fetchall()
    nowhere = Place(0, None)
    return {
        turn_id: TurnState(
            state,
            outcome,
            place(db, turn_id, lanes) if state == State.ACCEPTED.value else nowhere,
        )
        for turn_id, state, outcome in rows
    }


def pulses(
    db: sqlite3.Connection, session_ids: Collection[SessionId]
) -> dict[SessionId, Pulse]:
    """What goes on in each of *session_ids*."""
    marks = ",".join("?" * len(session_ids))
    running = dict(
        db.execute(
            f"SELECT session_id, turn_id FROM leases WHERE session_id IN ({marks})",
            [*session_ids],
        ).fetchall()
    )
    waiting = dict(
        db.execute(
            "SELECT session_id, count(*) FROM turns WHERE state = 'accepted'"
            f" AND session_id IN ({marks}) GROUP BY session_id",
            [*session_ids],
        ).fetchall()
    )
    generations = db.execute(
        f"SELECT session_id, generation FROM sessions WHERE session_id IN ({marks})",
        [*session_ids],
    )
    return {
        each: Pulse(running.get(each), waiting.get(each, 0), generation)
        for each, generation in generations
    }


def counts(db: sqlite3.Connection) -> Counts:
    """The whole store in numbers.  Counts partial indexes, not the table of all turns."""
    ask = (
        "SELECT (SELECT count(*) FROM turns WHERE state = 'accepted'),"
        " (SELECT count(*) FROM turns WHERE state = 'running'),"
        " (SELECT count(*) FROM leases),"
        f" (SELECT count(*) FROM sessions WHERE {STANDING})"
    )
    return Counts(*db.execute(ask).fetchone())


def session_facts(db: sqlite3.Connection, session_id: SessionId) -> dict[str, Any]:
    """Keys, aliases and counts of one session."""
    one = (session_id,)
    keys = db.execute("SELECT session_key FROM keys WHERE session_id = ? ORDER BY 1", one)
    aliases = db.execute(
        "SELECT alias FROM aliases JOIN keys USING (session_key)"
        " WHERE session_id = ? ORDER BY 1",
        one,
    )
    states = dict(
        db.execute(
            "SELECT state, count(*) FROM turns WHERE session_id = ? GROUP BY 1", one
        ).fetchall()
    )
    running = db.execute("SELECT turn_id FROM leases WHERE session_id = ?", one).fetchone()
    return {
        "keys": [row[0] for row in keys],
        "aliases": [row[0] for row in aliases],
        "turns": sum(states.values()),
        "waiting": states.get("accepted", 0),
        "running": running[0] if running else None,
    }


def known_agents(db: sqlite3.Connection) -> set[str]:
    """Every agent that a runner ever registered in this store."""
    return {str(row[0]) for row in db.execute("SELECT agent_id FROM agents")}
