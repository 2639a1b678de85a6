"""
Which turn is next.

`queues` has one row a session and lane: the first that waits there.  So a session's head is
found in as many rows as it has lanes, however many turns wait in them.

Among all sessions: the rows of one home, lane and priority, in the order of admission, stand
in the order of effective priority too, because all of them age alike and the store's clock
never goes back.  So the best of all is at the front of one of a few streams, and each stream
is read only as far as sessions are busy or their rows may not run now.  Rows of full lanes,
and those that another living home is to start, are not read at all.

One thing is not in that order: where several people's lanes of one session wait, their
earliest turn has the greatest effective priority among them, which may not be its own.  Such
sessions are `mixed`; they are few, and each is looked at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

from holdfast._core.lanes import Head, effective, head_of, is_people
from holdfast.types import TurnId

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from holdfast._core.settings import Lane
    from holdfast.types import OwnerId, SessionId

__all__ = ["Asks", "best", "foreign_heads", "full_lanes", "has_heads", "head_of_session"]

PAGE_FIRST: Final = 4  #: Rows; mostly the first is the one.
PAGE_MOST: Final = 256
FOREIGN_MOST: Final = 200  #: Of each home, lane and priority, at one look.

_KIND: Final = (
    "SELECT lane, priority FROM queues INDEXED BY queues_by_home WHERE admission IS NOT NULL"
)
_HOME: Final = (
    "SELECT home FROM queues INDEXED BY queues_by_home"
    " WHERE admission IS NOT NULL AND home >= ? ORDER BY home LIMIT 1"
)
_ROWS: Final = (
    "SELECT q.priority, q.accepted_ms, q.admission, q.session_id, t.turn_id"
    " FROM queues q CROSS JOIN turns t ON t.admission = q.admission"
)
_IDLE: Final = "NOT EXISTS (SELECT 1 FROM leases WHERE session_id = q.session_id)"
#: Turns that whoever asks may start now: …
_MAY: Final = """
 t.not_before_ms <= :now_ms
 AND iif(:only IS NULL,
         t.bound = 0 AND t.agent_id IN (SELECT value FROM json_each(:agents)),
         t.turn_id = :only)
 AND (t.home IS NULL OR t.home = :me OR t.turn_id IN (SELECT value FROM json_each(:overdue))
      OR NOT EXISTS (SELECT 1 FROM owners WHERE owner_id = t.home AND draining = 0))
"""
#: … that these agents could run at some time; that somebody else is to start.
_OURS: Final = "t.bound = 0 AND t.agent_id IN (SELECT value FROM json_each(:agents))"
_NOT_THEIRS: Final = (
    "(t.home IS NULL OR t.home = :me"
    " OR NOT EXISTS (SELECT 1 FROM owners WHERE owner_id = t.home AND draining = 0))"
)
_FOREIGN: Final = "t.bound = 0 AND t.home IS NOT NULL AND t.home != :me"

#: (-effective, admission, session, turn): in order, the best is first.
_Row: TypeAlias = "tuple[int, int, SessionId, TurnId]"


@dataclass(frozen=True, slots=True)
class Asks:
    """Who asks for a turn, and for which."""

    me: OwnerId
    agents: Collection[str]
    overdue: Collection[TurnId]
    only: TurnId | None
    now_ms: int

    def values(self) -> dict[str, object]:
        return {
            "me": self.me, "only": self.only, "now_ms": self.now_ms,
            "agents": json.dumps([*self.agents]), "overdue": json.dumps([*self.overdue]),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Which:
    """Which turns are looked for: those of *homes* and not of *full* lanes that are *where*."""

    where: str
    values: Mapping[str, object]
    homes: Iterable[str]
    full: Collection[str] = ()


def head_of_session(db: sqlite3.Connection, session_id: SessionId, now_ms: int) -> Head | None:
    """The turn that runs next in a session, whether it is idle or not."""
    rows = db.execute(
        "SELECT priority, accepted_ms, admission, lane FROM queues"
        " WHERE session_id = ? AND admission IS NOT NULL",
        (session_id,),
    )
    return head_of(
        Head(effective(priority, now_ms - accepted_ms), admission, lane)
        for priority, accepted_ms, admission, lane in rows
    )


def full_lanes(db: sqlite3.Connection, lanes: Mapping[str, Lane]) -> set[str]:
    """Lanes without a slot for a new turn: those who want theirs back come first."""
    used = dict(
        db.execute(
            "SELECT lane, count(*) FROM (SELECT lane FROM slots"
            " UNION ALL SELECT lane FROM turns WHERE slot_wanted = 1) GROUP BY lane"
        ).fetchall()
    )
    return {name for name, lane in lanes.items() if used.get(name, 0) >= lane.concurrency}


def best(
    db: sqlite3.Connection, asks: Asks, full: Collection[str], session_id: SessionId | None
) -> int | None:
    """The admission number of the best turn that may be started now."""
    values = asks.values()
    if session_id is None:
        live = _live(db) - {asks.me} if not asks.overdue else set()
        homes = [home for home in _homes(db) if home not in live]
        first = next(_in_order(db, _Which(_MAY, values, homes, full), asks.now_ms), None)
        return None if first is None else first[1]
    head = head_of_session(db, session_id, asks.now_ms)
    if head is None or head.lane in full or not _meets(db, _MAY, values, session_id, head):
        return None
    return head.admission


def has_heads(
    db: sqlite3.Connection,
    agents: Collection[str],
    session_id: SessionId | None,
    me: OwnerId | None,
    now_ms: int,
) -> bool:
    """
    Whether an idle session, or *session_id* alone, has a head that *agents* may run; less
    those whose home, other than *me*, is alive to start them.
    """
    values: dict[str, object] = {"agents": json.dumps([*agents]), "me": me}
    where = _OURS if me is None else f"{_OURS} AND {_NOT_THEIRS}"
    if session_id is None:
        others = set() if me is None else _live(db) - {me}
        homes = [home for home in _homes(db) if home not in others]
        return next(_in_order(db, _Which(where, values, homes), now_ms), None) is not None
    head = head_of_session(db, session_id, now_ms)
    if head is None:
        return False
    return _meets(db, where, values, session_id, head) is not None


def foreign_heads(db: sqlite3.Connection, me: OwnerId, now_ms: int) -> list[TurnId]:
    """Heads of idle sessions that another process is to start, best first; not all of many."""
    homes = [home for home in _homes(db) if home not in {"", me}]
    which = _Which(_FOREIGN, {"me": me}, homes)
    return [turn_id for _, _, _, turn_id in _in_order(db, which, now_ms, most=FOREIGN_MOST)]


def _live(db: sqlite3.Connection) -> set[str]:
    return {row[0] for row in db.execute("SELECT owner_id FROM owners WHERE draining = 0")}


def _in_order(
    db: sqlite3.Connection, which: _Which, now_ms: int, *, most: int | None = None
) -> Iterator[_Row]:
    """
    Heads of idle sessions, best first.

    Args:
        most: so many rows of each stream at most.
    """
    streams = [
        islice(_stream(db, which, (home, lane, priority), now_ms), most)
        for home in which.homes
        for lane, priority in _kinds(db, home)
        if lane not in which.full
    ]
    for row in merge(sorted(_mixed(db, which, now_ms)), *streams):
        head = head_of_session(db, row[2], now_ms)
        if head is not None and head.admission == row[1]:
            yield row


def _homes(db: sqlite3.Connection) -> Iterator[str]:
    """Homes of rows, `''` for none: a look-up each, however many rows they have."""
    row = db.execute(_HOME, ("",)).fetchone()
    while row is not None:
        yield row[0]
        row = db.execute(_HOME.replace(">=", ">"), row).fetchone()


def _kinds(db: sqlite3.Connection, home: str) -> Iterator[tuple[str, int]]:
    """Lanes and priorities of a home's rows: two look-ups each."""
    lane, priority = "", 0
    while True:
        kind = db.execute(
            f"{_KIND} AND home = ? AND lane = ? AND priority > ? ORDER BY priority LIMIT 1",
            (home, lane, priority),
        ).fetchone() or db.execute(
            f"{_KIND} AND home = ? AND lane > ? ORDER BY lane, priority LIMIT 1", (home, lane)
        ).fetchone()  # fmt: skip
        if kind is None:
            return
        lane, priority = kind
        yield lane, priority


def _stream(
    db: sqlite3.Connection, which: _Which, kind: tuple[str, str, int], now_ms: int
) -> Iterator[_Row]:
    """Rows of one home, lane and priority, in order.  Page by page, so none stays open."""
    values = {**which.values, **dict(zip(("home", "lane", "priority"), kind, strict=True))}
    after, size = 0, PAGE_FIRST
    while rows := db.execute(
        f"{_ROWS} WHERE q.home = :home AND q.lane = :lane AND q.priority = :priority"
        f" AND q.admission > :after AND q.mixed = 0 AND {_IDLE} AND {which.where}"
        " ORDER BY q.admission LIMIT :size",
        {**values, "after": after, "size": size},
    ).fetchall():
        for priority, accepted_ms, after, session_id, turn_id in rows:
            yield -effective(priority, now_ms - accepted_ms), after, session_id, turn_id
        if len(rows) < size:
            return
        size = min(size * 4, PAGE_MOST)


def _mixed(db: sqlite3.Connection, which: _Which, now_ms: int) -> Iterator[_Row]:
    """Heads of mixed sessions that are people's; any other is in its stream."""
    sessions = db.execute(
        f"SELECT DISTINCT session_id FROM queues q WHERE mixed = 1 AND {_IDLE}"
    ).fetchall()
    for (session_id,) in sessions:
        head = head_of_session(db, session_id, now_ms)
        if head is None or not is_people(head.lane) or head.lane in which.full:
            continue
        turn_id = _meets(db, which.where, which.values, session_id, head)
        if turn_id is not None:
            yield -head.effective, head.admission, session_id, turn_id


def _meets(
    db: sqlite3.Connection,
    where: str,
    values: Mapping[str, object],
    session_id: SessionId,
    head: Head,
) -> TurnId | None:
    """The turn of *head*, if its session is idle and it is *where*."""
    row = db.execute(
        f"{_ROWS} WHERE q.session_id = :session AND q.lane = :lane AND {_IDLE} AND {where}",
        {**values, "session": session_id, "lane": head.lane},
    ).fetchone()
    return None if row is None else TurnId(row[4])
