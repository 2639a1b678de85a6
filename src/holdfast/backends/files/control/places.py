"""Where a turn stands, and in one word what it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from holdfast._core.lanes import AGED_MOST, Head, effective, head_of, is_people
from holdfast._core.turns import State
from holdfast.backends.files.control.clock import clock_ms
from holdfast.backends.files.control.order import full_lanes
from holdfast.backends.files.control.rows import fetch_turn
from holdfast.types import Place, TurnId

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from holdfast._core.settings import Lane
    from holdfast.types import Turn

__all__ = ["place"]

BEHIND_MOST: Final = 256  #: Up to so many behind are counted, else those ahead.

_QUEUES: Final = (
    "SELECT lane, waiting, priority, accepted_ms, admission FROM queues"
    " WHERE session_id = ? AND admission IS NOT NULL"
)
#: Who holds the session, and whether anybody could run a turn of the agent.
_AROUND: Final = """
SELECT (SELECT turn_id FROM leases WHERE session_id = ?),
       EXISTS (SELECT 1 FROM runners JOIN owners USING (owner_id)
                WHERE agent_id = ? AND draining = 0)
"""
#: All of it stands in the index `turns_waiting`.
_WAITING: Final = "session_id = ? AND lane = ? AND state = 'accepted' AND host IS NULL"
_AGED: Final = f"max(priority, min({AGED_MOST}, priority + max(? - accepted_ms, 0) / 1000))"


def place(db: sqlite3.Connection, turn_id: TurnId, lanes: Mapping[str, Lane]) -> Place:
    turn = fetch_turn(db, turn_id)
    if turn.state != State.ACCEPTED.value:
        return Place(0, None)
    if turn.host is not None:
        return _behind(db, 1, "merge", turn.host)
    now_ms = clock_ms(db)
    queues = db.execute(_QUEUES, (turn.session_id,)).fetchall()
    head = head_of(
        Head(effective(priority, now_ms - accepted_ms), admission, lane)
        for lane, _, priority, accepted_ms, admission in queues
    )
    assert head is not None, "a waiting turn is in a queue"
    first = head.admission == turn.admission
    ahead = 0 if first else max(_ahead(db, turn, queues, now_ms), 1)
    running, has_runner = db.execute(_AROUND, (turn.session_id, turn.agent_id)).fetchone()
    position = ahead + (0 if running is None else 1)
    if not (turn.bound or has_runner):
        return Place(position, "no_runner")
    if running is not None:
        return _behind(db, position, "turn" if first else "queue", running)
    if not first:
        return _behind(db, position, "queue", _turn_id(db, head.admission))
    return _alone(db, turn, now_ms, lanes)


def _alone(db: sqlite3.Connection, turn: Turn, now_ms: int, lanes: Mapping[str, Lane]) -> Place:
    """It is the head of an idle session."""
    left_ms = turn.not_before_ms - now_ms
    if left_ms > 0:
        return Place(0, turn.reason or "quiet", left_ms=left_ms)
    if turn.lane in full_lanes(db, lanes):
        return Place(0, "slot", lane=turn.lane)
    return Place(0, None)


def _turn_id(db: sqlite3.Connection, admission: int) -> TurnId:
    row = db.execute("SELECT turn_id FROM turns WHERE admission = ?", (admission,)).fetchone()
    return TurnId(row[0])


def _behind(db: sqlite3.Connection, position: int, why: str, blocker: TurnId) -> Place:
    turn = fetch_turn(db, blocker)
    since = turn.started_at if turn.state == State.RUNNING.value else None
    return Place(position, why, blocker=turn.turn_id, lane=turn.lane, since=since)


def _ahead(
    db: sqlite3.Connection, turn: Turn, queues: Iterable[tuple[Any, ...]], now_ms: int
) -> int:
    """
    How many turns run before *turn*, as things stand: of its own kind those admitted earlier,
    of any other those that rank before it.
    """
    people, ahead = is_people(turn.lane), 0
    for lane, waiting, *_ in queues:
        if lane == turn.lane or (people and is_people(lane)):
            ahead += _earlier(db, turn, lane, waiting)
        else:
            ahead += _better(db, turn, lane, now_ms)
    return ahead


def _earlier(db: sqlite3.Connection, turn: Turn, lane: str, waiting: int) -> int:
    """Counted from the nearer end, so that the newest of many costs no more than of a few."""
    one = (turn.session_id, lane, turn.admission)
    (behind,) = db.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM turns WHERE {_WAITING} AND admission >= ?"
        f" LIMIT {BEHIND_MOST})",
        one,
    ).fetchone()
    if behind < BEHIND_MOST:
        return int(waiting - behind)
    (ahead,) = db.execute(
        f"SELECT count(*) FROM turns WHERE {_WAITING} AND admission < ?", one
    ).fetchone()
    return int(ahead)


def _better(db: sqlite3.Connection, turn: Turn, lane: str, now_ms: int) -> int:
    mine = Head(effective(turn.priority, now_ms - turn.accepted_ms), turn.admission, turn.lane)
    (ahead,) = db.execute(
        f"SELECT count(*) FROM turns WHERE {_WAITING} AND (-{_AGED}, admission) < (?, ?)",
        (turn.session_id, lane, now_ms, *mine.rank),
    ).fetchone()
    return int(ahead)
