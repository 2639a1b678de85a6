"""Owners (processes) and runners: who is there, who can run what.  Transaction bodies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.turns import State
from holdfast._stamps import now_iso
from holdfast.backends.files.control.clock import clock_ms, tick_ms
from holdfast.backends.files.control.deliveries import disown
from holdfast.backends.files.control.order import foreign_heads
from holdfast.backends.files.control.rows import event
from holdfast.backends.files.control.tending import DELETED
from holdfast.types import (
    FencingToken,
    Look,
    Owner,
    OwnerId,
    SessionId,
    Standing,
    TurnId,
    Vouched,
)
from holdfast.types.tending import Commitment

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping

__all__ = [
    "beat",
    "bury",
    "commits",
    "leave",
    "look",
    "permanent_runners",
    "register",
    "register_runner",
    "restored",
    "set_draining",
    "trim_events",
    "vouched",
]

EVENTS_SLICE: Final = 500  #: Rows a slice: well under 5 ms.
VOUCHED_SLICE: Final = 2_000  #: Rows a page: a few milliseconds.


def register(db: sqlite3.Connection, owner: Owner) -> None:
    db.execute(
        "INSERT INTO owners (owner_id, pid, start_time, boot_id, pid_namespace, host, since)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            owner.owner_id, owner.pid, owner.start_time, owner.boot_id, owner.pid_namespace,
            owner.host, now_iso(),
        ),
    )  # fmt: skip


def register_runner(
    db: sqlite3.Connection, owner_id: OwnerId, agents: Collection[str], *, permanent: bool
) -> None:
    for agent_id in agents:
        db.execute("INSERT OR IGNORE INTO agents VALUES (?, ?)", (agent_id, now_iso()))
        db.execute(
            "INSERT OR REPLACE INTO runners VALUES (?, ?, ?)", (owner_id, agent_id, permanent)
        )


def permanent_runners(db: sqlite3.Connection, agent_id: str) -> list[Owner]:
    """Those registered; a dead one stays so until it is buried."""
    rows = db.execute(
        "SELECT owner_id, pid, start_time, boot_id, pid_namespace, host"
        " FROM runners JOIN owners USING (owner_id)"
        " WHERE agent_id = ? AND permanent = 1 AND draining = 0",
        (agent_id,),
    ).fetchall()
    return [Owner(*row) for row in rows]


def beat(
    db: sqlite3.Connection,
    owner_id: OwnerId,
    progress: Mapping[TurnId, Mapping[str, Any]] | None = None,
) -> bool:
    """Say that we are here.  False: somebody has buried us; every lease of ours is gone."""
    tick_ms(db)
    done = db.execute("UPDATE owners SET beat = beat + 1 WHERE owner_id = ?", (owner_id,))
    db.executemany(
        "UPDATE leases SET progress = ? WHERE turn_id = ? AND owner_id = ?",
        [(json.dumps(told), turn, owner_id) for turn, told in (progress or {}).items()],
    )
    return done.rowcount == 1


def set_draining(db: sqlite3.Connection, owner_id: OwnerId) -> None:
    """Take no new turn; let others adopt what waits for us."""
    db.execute("UPDATE owners SET draining = 1 WHERE owner_id = ?", (owner_id,))
    _let_go(db, owner_id)


def leave(db: sqlite3.Connection, owner_id: OwnerId) -> None:
    """Our own orderly end.  Leases must be given back before."""
    _let_go(db, owner_id)
    disown(db, owner_id)
    db.execute("DELETE FROM runners WHERE owner_id = ?", (owner_id,))
    db.execute("DELETE FROM owners WHERE owner_id = ?", (owner_id,))


def bury(db: sqlite3.Connection, owner_id: OwnerId, reason: str) -> bool:
    """Forget an owner that is dead or silent.  Its leases must have been moved before."""
    _let_go(db, owner_id)
    disown(db, owner_id)
    db.execute("DELETE FROM runners WHERE owner_id = ?", (owner_id,))
    done = db.execute("DELETE FROM owners WHERE owner_id = ?", (owner_id,))
    if done.rowcount:
        event(db, "buried", None, None, owner_id, reason=reason)
    return done.rowcount == 1


def _let_go(db: sqlite3.Connection, owner_id: OwnerId) -> None:
    db.execute(
        "UPDATE turns SET home = NULL WHERE home = ? AND state = ? AND bound = 0",
        (owner_id, State.ACCEPTED.value),
    )


def look(db: sqlite3.Connection, owner_id: OwnerId) -> Look:
    """Everything that is held, and by whom.  *owner_id*: who is looking."""
    owners = tuple(
        (Owner(*row[:-1]), int(row[-1]))
        for row in db.execute(
            "SELECT owner_id, pid, start_time, boot_id, pid_namespace, host, beat FROM owners"
        )
    )
    now_ms = clock_ms(db)
    leases = tuple(
        Standing(
            SessionId(row[0]), TurnId(row[1]), FencingToken(row[2]), row[3], bool(row[4]),
            None if row[5] is None else now_ms - row[5],
        )
        for row in db.execute(
            "SELECT session_id, turn_id, leases.token, leases.owner_id, recovering, abort_at_ms"
            " FROM leases JOIN turns USING (session_id, turn_id)"
        )
    )  # fmt: skip
    orphans = tuple(
        (TurnId(row[0]), OwnerId(row[1]))
        for row in db.execute(
            "SELECT turn_id, home FROM turns WHERE state = 'accepted' AND bound = 1"
        )
    )
    return Look(owners, leases, orphans, tuple(foreign_heads(db, owner_id, now_ms)))


def restored(
    db: sqlite3.Connection,
    session_id: SessionId,
    was: int,
    end_offset: int,
    moved: Mapping[TurnId, int],
    told: Mapping[str, Any],
) -> None:
    """A transcript that was cut is whole again: its rows say where things stand now."""
    db.executemany(
        "UPDATE turns SET end_offset = ? WHERE turn_id = ? AND session_id = ?",
        [(end, turn_id, session_id) for turn_id, end in moved.items()],
    )
    db.execute(
        "UPDATE sessions SET end_offset = ? WHERE session_id = ? AND end_offset = ?",
        (end_offset, session_id, was),
    )
    event(db, "restored", session_id, None, None, **told)


def trim_events(db: sqlite3.Connection, keep: int) -> int:
    """Remove one slice of the oldest events beyond *keep*; returns how many went."""
    done = db.execute(
        "DELETE FROM events WHERE event_id IN (SELECT event_id FROM events"
        " WHERE event_id <= (SELECT max(event_id) FROM events) - ? ORDER BY event_id LIMIT ?)",
        (keep, EVENTS_SLICE),
    )
    return done.rowcount


def vouched(db: sqlite3.Connection, after: SessionId | None) -> list[Vouched]:
    """A page of sessions that a commit has vouched for, deleted ones left out."""
    return [
        Vouched(SessionId(row[0]), *row[1:])
        for row in db.execute(
            "SELECT session_id, transcript, generation, end_offset FROM sessions"
            " WHERE session_id > ? AND end_offset > 0 AND instr(transcript, ?) = 0"
            " ORDER BY session_id LIMIT ?",
            (after or "", DELETED, VOUCHED_SLICE),
        )
    ]


def commits(db: sqlite3.Connection, session_id: SessionId) -> list[Commitment]:
    """The commits of a session, of the generation it has now, by offset."""
    return [
        Commitment(*row)
        for row in db.execute(
            "SELECT turn_id, final_entry, end_offset, generation, entries FROM turns"
            " WHERE session_id = ?1 AND final_entry IS NOT NULL AND generation ="
            " (SELECT generation FROM sessions WHERE session_id = ?1) ORDER BY end_offset",
            (session_id,),
        )
    ]
