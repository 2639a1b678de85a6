"""
What tending transcripts asks of the rows.  Each function is one transaction's body.

A session that was deleted keeps its row, because its turns, their outcomes and their
idempotency keys do; no key names it any more, and `transcript` says where the file went.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from holdfast._stamps import now_iso
from holdfast.backends.files.control.deliveries import drop
from holdfast.backends.files.control.rows import event, fetch_session
from holdfast.errors import BadRequestError, SessionBusyError
from holdfast.types import SessionId
from holdfast.types.tending import Belonging, Commitment

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from holdfast.types import Session

__all__ = [
    "DELETED",
    "PURGED",
    "adopt",
    "belonging",
    "mark_deleted",
    "owner_of",
    "raise_generation",
    "turns_of",
    "unwritten",
]

#: What follows a deleted session's file name, before the time; `queries.sessions` knows it.
DELETED: Final = ".deleted-"
_OWED: Final = "its replies are still owed to channels; wait until they are there, or drop them"
#: What a purged turn keeps is that it was, and how it ended.
PURGED: Final = (
    "UPDATE turns SET text = '', reply = NULL, instructions = NULL, seed = NULL, hint = NULL,"
    " entries = NULL, finished = NULL, salvaged = NULL, attachments = NULL, approvals = NULL"
    " WHERE session_id = ?"
)


def owner_of(db: sqlite3.Connection, transcript: str) -> Session | None:
    """The session whose transcript is *transcript*, relative to the state directory."""
    row = db.execute(
        "SELECT session_id FROM sessions WHERE transcript = ?", (transcript,)
    ).fetchone()
    return None if row is None else fetch_session(db, SessionId(row[0]))


def belonging(db: sqlite3.Connection, session_id: SessionId) -> Belonging:
    """The session, and every committed turn of it, in one moment."""
    session = fetch_session(db, session_id)
    rows = db.execute(
        "SELECT turn_id, final_entry, end_offset, generation, entries FROM turns"
        " WHERE session_id = ? AND final_entry IS NOT NULL ORDER BY generation, end_offset",
        (session_id,),
    ).fetchall()
    salvaged = db.execute(
        "SELECT turn_id FROM turns WHERE session_id = ? AND salvaged IS NOT NULL", (session_id,)
    ).fetchall()
    return Belonging(
        session, tuple(Commitment(*row) for row in rows), tuple(row[0] for row in salvaged)
    )


def raise_generation(
    db: sqlite3.Connection, session_id: SessionId, generation: int, end_offset: int,
    told: Mapping[str, Any],
) -> int:  # fmt: skip
    """
    The transcript was rewritten, whole and synced: book that.  Asked under its write lock.

    The copies that rows kept of its lines are not needed any more: they are in the file.

    Returns:
        The generation that now stands, which is *generation* or more.
    """
    db.execute(
        "UPDATE sessions SET generation = max(generation, ?), end_offset = ?"
        " WHERE session_id = ?",
        (generation, end_offset, session_id),
    )
    db.execute("UPDATE turns SET entries = NULL WHERE session_id = ?", (session_id,))
    event(db, "repaired", session_id, None, None, generation=generation, **told)
    return fetch_session(db, session_id).generation


def unwritten(db: sqlite3.Connection, key: str) -> Session | None:
    """
    The session that *key* names, if nothing was ever written to it; None: there is none.

    Raises:
        BadRequestError: it has a conversation.
    """
    row = db.execute(
        "SELECT session_id FROM keys WHERE session_key ="
        " coalesce((SELECT session_key FROM aliases WHERE alias = ?1), ?1)",
        (key,),
    ).fetchone()
    if row is None:
        return None
    session = fetch_session(db, SessionId(row[0]))
    started = db.execute(
        "SELECT 1 FROM turns WHERE session_id = ? AND started_at IS NOT NULL", (row[0],)
    ).fetchone()
    if session.end_offset or started:
        raise _taken(key)
    return session


def adopt(
    db: sqlite3.Connection, session: Session, key: str, *, end_offset: int, token: int
) -> None:
    """
    Give *key* the session whose transcript stands in its place already.

    *token*: none in it is greater, so that no token of this store repeats one.

    Raises:
        BadRequestError: somebody else was faster with this key.  Never for a session that
            had its row before: a turn may have begun on what was brought.
    """
    known = db.execute(
        "SELECT 1 FROM sessions WHERE session_id = ?", (session.session_id,)
    ).fetchone()
    if known is None:
        if unwritten(db, key) is not None:
            raise _taken(key)
        now = now_iso()
        alias = db.execute("SELECT session_key FROM aliases WHERE alias = ?", (key,)).fetchone()
        db.execute(
            "INSERT INTO sessions (session_id, agent_id, transcript, token, end_offset,"
            " created_at) VALUES (?, ?, ?, ?, ?, ?)",
            (
                session.session_id, session.agent_id, session.transcript, token, end_offset,
                session.created_at,
            ),
        )  # fmt: skip
        db.execute(
            "INSERT INTO keys VALUES (?, ?, ?)",
            (alias[0] if alias else key, session.session_id, now),
        )
    else:
        db.execute(
            "UPDATE sessions SET end_offset = max(end_offset, ?), token = max(token, ?)"
            " WHERE session_id = ?",
            (end_offset, token, session.session_id),
        )
    event(db, "imported", session.session_id, None, None, bytes=end_offset)


def mark_deleted(
    db: sqlite3.Connection, session_id: SessionId, moved_to: str, *, purge: bool
) -> tuple[str, ...]:
    """
    From here on nobody finds the session; its turns keep their outcomes.

    Returns:
        The keys that named it.  Aliases of them stay: they are other spellings of a key.

    Raises:
        SessionBusyError: a turn runs or waits.  Asked in the transaction that takes the keys
            away, so that a message is either seen here or finds a new session.
    """
    busy = dict(
        db.execute(
            "SELECT turn_id, state = 'committed' FROM turns WHERE session_id = ?1"
            " AND (state IN ('accepted', 'running', 'committed')"
            "  OR turn_id IN (SELECT turn_id FROM leases WHERE session_id = ?1)"
            # What is being sent may have to be sent again, and a purge leaves nothing of it.
            "  OR ?2 AND turn_id IN (SELECT turn_id FROM deliveries WHERE state = 'attempting'"
            "                        AND session_id = ?1)) ORDER BY 1",
            (session_id, purge),
        ).fetchall()
    )
    found = tuple(
        row[0]
        for row in db.execute(
            "SELECT session_key FROM keys WHERE session_id = ? ORDER BY 1", (session_id,)
        )
    )
    if busy:
        name = found[0] if found else session_id
        error = SessionBusyError(session=name, turns=list(busy))
        if all(busy.values()):
            error.hint = f"{_OWED}: holdfast deliveries drop --session {name}"
        raise error
    db.execute("DELETE FROM keys WHERE session_id = ?", (session_id,))
    db.execute(
        "UPDATE sessions SET transcript = ? WHERE session_id = ?", (moved_to, session_id)
    )
    if purge:
        for (owed,) in db.execute(
            "SELECT delivery_id FROM deliveries WHERE session_id = ?"
            " AND state IN ('pending', 'unknown')",
            (session_id,),
        ).fetchall():
            drop(db, owed)
        db.execute(PURGED, (session_id,))
        db.execute("UPDATE deliveries SET body = x'' WHERE session_id = ?", (session_id,))
        mine = "(SELECT turn_id FROM turns WHERE session_id = ?)"
        for table in ("tool_calls", "made"):
            db.execute(f"DELETE FROM {table} WHERE turn_id IN {mine}", (session_id,))
    else:
        db.execute("UPDATE turns SET entries = NULL WHERE session_id = ?", (session_id,))
    event(db, "deleted", session_id, None, None, keys=list(found), purged=purge or None)
    return found


def turns_of(db: sqlite3.Connection, session_id: SessionId) -> int:
    (count,) = db.execute(
        "SELECT count(*) FROM turns WHERE session_id = ?", (session_id,)
    ).fetchone()
    return int(count)


def _taken(key: str) -> BadRequestError:
    return BadRequestError(
        detail=f"{key} has a conversation already",
        hint="give another key with --key, or delete that session first",
    )
