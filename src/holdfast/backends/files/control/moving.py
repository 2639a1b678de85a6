"""A key that moves to a new session.  Transaction bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.backends.files.control.admission import make_session, resolve
from holdfast.backends.files.control.queries import STANDING
from holdfast.backends.files.control.rows import TURN, event, fetch_session, to_turn, unhost
from holdfast.errors import NotFoundError
from holdfast.types import Reset, SessionId, TurnId

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

    from holdfast.types import Session

__all__ = ["older", "reset"]


def reset(db: sqlite3.Connection, key: str) -> Reset:
    """
    Let *key* name a new, empty session from now on.

    Its waiting turns go along, in the order of admission; one that has started, or whose
    question was taken by a host, ends in the old session.  Other keys of the old one stay.

    Raises:
        NotFoundError: no session has this key.
    """
    key = resolve(db, key)
    row = db.execute("SELECT session_id FROM keys WHERE session_key = ?", (key,)).fetchone()
    if row is None:
        raise NotFoundError(what="session", name=key[:80])
    old = fetch_session(db, SessionId(row[0]))
    db.execute("DELETE FROM keys WHERE session_key = ?", (key,))
    new = make_session(db, key, old.agent_id)
    moved = db.execute(
        "UPDATE turns SET session_id = ? WHERE session_id = ? AND session_key = ?"
        " AND state = 'accepted' AND started_at IS NULL AND asked_entry IS NULL"
        " RETURNING admission, turn_id",
        (new.session_id, old.session_id, key),
    ).fetchall()
    stayed = db.execute(
        "SELECT turn_id FROM turns WHERE session_id = ? AND session_key = ?"
        " AND state IN ('accepted', 'running') ORDER BY admission",
        (old.session_id, key),
    ).fetchall()
    _part(db, old.session_id, new.session_id)
    event(db, "reset", old.session_id, None, None, key=key, new=new.session_id)
    return Reset(
        old, new,
        tuple(TurnId(turn_id) for _, turn_id in sorted(moved)),
        tuple(TurnId(row[0]) for row in stayed),
    )  # fmt: skip


def older(db: sqlite3.Connection, session: Session, keys: Collection[str]) -> list[Session]:
    """Sessions without a key that one of *keys* named before it moved on, oldest first."""
    marks = ",".join("?" * len(keys))
    rows = db.execute(
        "SELECT session_id FROM sessions AS s WHERE session_id < ? AND agent_id = ?"
        f" AND {STANDING} AND NOT EXISTS (SELECT 1 FROM keys WHERE session_id = s.session_id)"
        " AND EXISTS (SELECT 1 FROM turns WHERE session_id = s.session_id"
        f"             AND session_key IN ({marks})) ORDER BY 1",
        (session.session_id, session.agent_id, *keys),
    ).fetchall()
    return [fetch_session(db, SessionId(row[0])) for row in rows]


def _part(db: sqlite3.Connection, *sessions: SessionId) -> None:
    """Nobody has a host in another session."""
    rows = db.execute(
        f"{TURN} AS t WHERE session_id IN (?, ?) AND state = 'accepted' AND host IS NOT NULL"
        " AND session_id != (SELECT session_id FROM turns WHERE turn_id = t.host)"
        " ORDER BY admission",
        sessions,
    ).fetchall()
    for row in rows:
        unhost(db, to_turn(row))
