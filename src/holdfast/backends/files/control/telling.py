"""
What happened and what stands, for people: one moment each, a page at most.

Places are asked for one by one: what `place` says is the one truth about the order.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.turns import State
from holdfast.backends.files.control.clock import clock_ms
from holdfast.backends.files.control.queries import PAGE, place
from holdfast.backends.files.control.rows import TURN, fetch_session, fetch_turn, to_turn
from holdfast.types import (
    EventRow,
    FencingToken,
    Holder,
    LaneState,
    Owed,
    Owner,
    OwnerId,
    TurnId,
    Waiting,
    Why,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping

    from holdfast._core.settings import Lane
    from holdfast.types import SessionId, Turn

__all__ = ["events", "holders", "lanes", "longest_waits", "newest_event", "owed", "why"]

WAITING_MAX: Final = 100  #: Of each lane of a session; the rest is counted.
OWED_MAX: Final = 50

_OWED: Final = "state IN ('pending', 'attempting', 'unknown')"


def events(
    db: sqlite3.Connection,
    after: int,
    *,
    kinds: Collection[str] = (),
    session_id: SessionId | None = None,
    limit: int = PAGE,
) -> list[EventRow]:
    """A page of events behind number *after*, oldest first."""
    where, values = ["event_id > ?"], list[Any]([after])
    if kinds:
        where.append(f"kind IN ({','.join('?' * len(kinds))})")
        values += kinds
    if session_id is not None:
        where.append("session_id = ?")
        values.append(session_id)
    rows = db.execute(
        "SELECT event_id, at, kind, session_id, turn_id, owner_id, lane, data FROM events"
        f" WHERE {' AND '.join(where)} ORDER BY event_id LIMIT ?",
        (*values, min(limit, PAGE)),
    )
    return [
        EventRow(
            row[0], row[1], row[2], row[3], row[4], row[5], row[6],
            json.loads(row[7]) if row[7] else {},
        )
        for row in rows
    ]  # fmt: skip


def newest_event(db: sqlite3.Connection) -> int:
    (newest,) = db.execute("SELECT coalesce(max(event_id), 0) FROM events").fetchone()
    return int(newest)


def lanes(db: sqlite3.Connection, known: Mapping[str, Lane]) -> list[LaneState]:
    """Every lane of *known*, and every other that has a turn."""
    now_ms = clock_ms(db)
    running = dict(
        db.execute(
            "SELECT lane, count(*) FROM (SELECT lane FROM slots UNION ALL"
            " SELECT lane FROM turns WHERE state = 'running' AND slot_wanted) GROUP BY lane"
        ).fetchall()
    )
    waiting = {
        lane: (int(count), first)
        for lane, count, first in db.execute(
            "SELECT lane, sum(waiting + hosted), min(admission) FROM queues GROUP BY lane"
        )
    }
    found = []
    for lane in [*known, *sorted((running.keys() | waiting.keys()) - known.keys())]:
        told, (count, first) = known.get(lane), waiting.get(lane, (0, None))
        since, ms = _oldest(db, first)
        found.append(
            LaneState(
                lane, told.concurrency if told else 0, told.priority if told else 0,
                running.get(lane, 0), count, since, max(0, now_ms - ms) if since else 0,
            )
        )  # fmt: skip
    return found


def _oldest(db: sqlite3.Connection, admission: int | None) -> tuple[str | None, int]:
    if admission is None:
        return None, 0
    row = db.execute(
        "SELECT accepted_at, accepted_ms FROM turns WHERE admission = ?", (admission,)
    ).fetchone()
    return (None, 0) if row is None else (row[0], row[1])


def why(db: sqlite3.Connection, session_id: SessionId, known: Mapping[str, Lane]) -> Why:
    """Who holds a session, who waits for it and for what."""
    session = fetch_session(db, session_id)
    one = (session_id,)
    keys = db.execute("SELECT session_key FROM keys WHERE session_id = ? ORDER BY 1", one)
    (count,) = db.execute(
        "SELECT coalesce(sum(waiting + hosted), 0) FROM queues WHERE session_id = ?", one
    ).fetchone()
    waiting = [Waiting(turn, place(db, turn.turn_id, known)) for turn in _first(db, session_id)]
    waiting.sort(key=lambda w: (w.turn.host is not None, w.place.position, w.turn.admission))
    runners = db.execute(
        "SELECT owner_id, pid, start_time, boot_id, pid_namespace, host, permanent"
        " FROM runners JOIN owners USING (owner_id) WHERE agent_id = ? AND draining = 0"
        " ORDER BY permanent DESC, owner_id",
        (session.agent_id,),
    ).fetchall()
    parts = owed(db, session_id)
    return Why(
        session=session,
        keys=tuple(row[0] for row in keys),
        holder=next(iter(holders(db, session_id)), None),
        waiting=tuple(waiting),
        waiting_count=count,
        runners=tuple((_owner(row), bool(row[6])) for row in runners),
        owed=parts,
        deliveries=(deliveries := _owed(db, session_id) if parts else ()),
        senders=_senders(db, deliveries),
    )


def _first(db: sqlite3.Connection, session_id: SessionId) -> list[Turn]:
    """The first that wait in each lane of a session, and those merged into any of them."""
    found: list[Turn] = []
    for (lane,) in db.execute(
        "SELECT lane FROM queues WHERE session_id = ?", (session_id,)
    ).fetchall():
        rows = db.execute(
            f"{TURN} WHERE session_id = ? AND lane = ? AND state = 'accepted' AND host IS NULL"
            " ORDER BY admission LIMIT ?",
            (session_id, lane, WAITING_MAX),
        )
        found += [to_turn(row) for row in rows]
    hosts = [turn.turn_id for turn in found]
    hosts += [
        row[0]
        for row in db.execute("SELECT turn_id FROM leases WHERE session_id = ?", (session_id,))
    ]
    for host in hosts:
        rows = db.execute(
            f"{TURN} WHERE host = ? AND state = '{State.ACCEPTED.value}'"
            " ORDER BY admission LIMIT ?",
            (host, WAITING_MAX),
        )
        found += [to_turn(row) for row in rows]
    return found


def holders(db: sqlite3.Connection, session_id: SessionId | None = None) -> list[Holder]:
    """Who holds *session_id*'s lease, if anybody; None: every session's, longest first."""
    where, values = ("WHERE l.session_id = ?", [session_id]) if session_id else ("", [])
    rows = db.execute(
        "SELECT o.owner_id, pid, start_time, boot_id, pid_namespace, host, l.turn_id, l.token,"
        " l.taken_at, l.effective, l.recovering, l.progress FROM leases l"
        f" LEFT JOIN owners o USING (owner_id) {where} ORDER BY l.taken_at LIMIT {PAGE}",
        values,
    ).fetchall()
    return [
        Holder(
            turn=fetch_turn(db, row[6]),
            token=FencingToken(row[7]),
            owner=None if row[0] is None else _owner(row),
            since=row[8],
            effective=bool(row[9]),
            recovering=bool(row[10]),
            progress=json.loads(row[11]) if row[11] else {},
        )
        for row in rows
    ]


def owed(db: sqlite3.Connection, session_id: SessionId | None = None) -> int:
    """How many parts of replies are owed; None: of all sessions."""
    where, values = ("session_id = ?", [session_id]) if session_id else ("true", [])
    (count,) = db.execute(
        f"SELECT count(*) FROM deliveries WHERE {where} AND {_OWED}", values
    ).fetchone()
    return int(count)


def _owed(db: sqlite3.Connection, session_id: SessionId) -> tuple[Owed, ...]:
    now_ms = clock_ms(db)
    rows = db.execute(
        "SELECT delivery_id, turn_id, target, state, part, parts, attempts, not_before_ms,"
        " (SELECT delivery_id FROM deliveries h WHERE h.target = d.target AND h.seq < d.seq"
        f"   AND NOT h.overtaken AND {_OWED} ORDER BY seq LIMIT 1),"
        " owner_id, reason, created_at"
        f" FROM deliveries d WHERE session_id = ? AND {_OWED} ORDER BY seq LIMIT ?",
        (session_id, OWED_MAX),
    )
    return tuple(
        Owed(
            row[0], TurnId(row[1]), row[2], row[3], row[4], row[5], row[6],
            max(0, row[7] - now_ms), row[8], row[9], row[10], row[11],
        )
        for row in rows
    )  # fmt: skip


def _senders(db: sqlite3.Connection, owed: tuple[Owed, ...]) -> tuple[Owner, ...]:
    names = sorted({each.owner_id for each in owed if each.owner_id is not None})
    rows = db.execute(
        "SELECT owner_id, pid, start_time, boot_id, pid_namespace, host FROM owners"
        f" WHERE owner_id IN ({', '.join('?' * len(names))}) ORDER BY owner_id",
        names,
    )
    return tuple(map(_owner, rows))


def _owner(row: tuple[Any, ...]) -> Owner:
    return Owner(OwnerId(row[0]), *row[1:6])


def longest_waits(
    db: sqlite3.Connection, known: Mapping[str, Lane], limit: int
) -> list[tuple[int, Waiting]]:
    """The sessions whose turns have waited longest: how many wait, and the first of them."""
    rows = db.execute(
        "SELECT sum(waiting + hosted), min(admission) FROM queues WHERE admission IS NOT NULL"
        " GROUP BY session_id ORDER BY min(admission) LIMIT ?",
        (limit,),
    ).fetchall()
    found = []
    for count, admission in rows:
        row = db.execute(f"{TURN} WHERE admission = ?", (admission,)).fetchone()
        turn = to_turn(row)
        found.append((int(count), Waiting(turn, place(db, turn.turn_id, known))))
    return found
