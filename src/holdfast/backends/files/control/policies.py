"""
What a new message does to a busy session, in the transaction that takes it in.

Each function looks at things as they stand before the new turn is among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast._core.lanes import is_people
from holdfast.backends.files.control.aborting import ask_to_end
from holdfast.backends.files.control.clock import clock_ms
from holdfast.backends.files.control.order import head_of_session
from holdfast.backends.files.control.rows import HEARTBEAT, TURN, event, fetch_turn, to_turn

if TYPE_CHECKING:
    import sqlite3

    from holdfast.types import Admission, SessionId, Turn, TurnId

__all__ = ["PRESSING", "Stand", "press", "stand_of", "wait_longer"]

PREEMPTED_MOST: Final = 2  #: Heartbeats in a row.
QUIETS_MOST: Final = 10  #: A burst waits for so many quiet windows at most.
#: Policies whose messages make the running turn end → why it ends.
PRESSING: Final = {"interrupt": "interrupted", "rollback": "rolled_back"}


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a new turn stands."""

    host: TurnId | None = None
    not_before_ms: int = 0  #: Its own, or its host's from now on.


def stand_of(
    db: sqlite3.Connection, session_id: SessionId | None, asked: Admission, now_ms: int
) -> Stand:
    """Where *asked* stands by its policy.  Changes nothing."""
    if asked.policy == "steer":
        running = None if session_id is None else _running(db, session_id)
        if running is None or not _answers(db, running, asked):
            return Stand()
        return Stand(running.turn_id)
    if asked.policy != "collect":
        return Stand()
    until_ms = now_ms + asked.quiet_ms
    host = None if session_id is None else _last_of_people(db, session_id)
    if host is None or not _takes(db, host, asked):
        return Stand(None, until_ms)
    return Stand(host.turn_id, min(until_ms, host.accepted_ms + QUIETS_MOST * asked.quiet_ms))


def press(
    db: sqlite3.Connection, session_id: SessionId, asked: Admission, stand: Stand
) -> None:
    """Ask the running turn to end, if the policy or the lane of *asked* says so."""
    if asked.policy in PRESSING:
        pressed = _running(db, session_id, recovering=True) or _going_on(db, session_id)
        if pressed is not None:
            ask_to_end(db, pressed, PRESSING[asked.policy])
        return
    running = _running(db, session_id)
    if (
        running is not None
        and is_people(asked.lane)
        and asked.preempts
        and running.turn_id != stand.host
        and running.lane == HEARTBEAT
        and not running.bound
        and not running.abort_requested
    ):
        _preempt(db, running, asked.turn_id)


def wait_longer(db: sqlite3.Connection, stand: Stand) -> None:
    """A burst goes on: its host waits until it is quiet again."""
    if stand.host is not None and stand.not_before_ms:
        db.execute(
            "UPDATE turns SET not_before_ms = ? WHERE turn_id = ?",
            (stand.not_before_ms, stand.host),
        )


def _preempt(db: sqlite3.Connection, running: Turn, by: TurnId) -> None:
    """Not one that has begun a tool whose effect cannot be had twice; not for ever."""
    counted = db.execute(
        "UPDATE sessions SET preempted = preempted + 1 WHERE session_id = ?1 AND preempted < ?2"
        " AND NOT EXISTS (SELECT 1 FROM tool_calls WHERE turn_id = ?3 AND replay = 'never')",
        (running.session_id, PREEMPTED_MOST, running.turn_id),
    )
    if counted.rowcount:
        ask_to_end(db, running, "preempted")
        event(
            db, "preempted", running.session_id, running.turn_id, running.owner_id,
            lane=running.lane, by=by,
        )  # fmt: skip


def _running(
    db: sqlite3.Connection, session_id: SessionId, *, recovering: bool = False
) -> Turn | None:
    """The turn that runs in the session; *recovering*: or whose attempt is being ended."""
    row = db.execute(
        "SELECT turn_id FROM leases WHERE session_id = ? AND recovering <= ?",
        (session_id, recovering),
    ).fetchone()
    return None if row is None else fetch_turn(db, row[0])


def _going_on(db: sqlite3.Connection, session_id: SessionId) -> Turn | None:
    """The turn that has run, went back to its place, and is the next to run."""
    head = head_of_session(db, session_id, clock_ms(db))
    if head is None:
        return None
    turn = to_turn(db.execute(f"{TURN} WHERE admission = ?", (head.admission,)).fetchone())
    return None if turn.started_at is None else turn


def _answers(db: sqlite3.Connection, running: Turn, asked: Admission) -> bool:
    """Whether the reply of *running* can be the answer to a message that is sent into it."""
    if running.abort_requested or asked.bound:
        return False
    if asked.target not in {None, running.target} or asked.model not in {None, running.model}:
        return False  # It would never reach its sender; or another model was asked for.
    (instructions,) = db.execute(
        "SELECT instructions FROM turns WHERE turn_id = ?", (running.turn_id,)
    ).fetchone()
    return asked.instructions in {None, instructions}


def _last_of_people(db: sqlite3.Connection, session_id: SessionId) -> Turn | None:
    """The last message of a person that waits: the end of one of a few queues."""
    lanes = db.execute(
        "SELECT lane FROM queues WHERE session_id = ? AND admission IS NOT NULL", (session_id,)
    ).fetchall()
    last = [
        db.execute(
            "SELECT max(admission) FROM turns WHERE session_id = ? AND lane = ?"
            " AND state = 'accepted' AND host IS NULL",
            (session_id, lane),
        ).fetchone()[0]
        for (lane,) in lanes
        if is_people(lane)
    ]
    if not last:
        return None
    found = to_turn(db.execute(f"{TURN} WHERE admission = ?", (max(last),)).fetchone())
    # What was said behind it into another turn's run may come back to its place.
    elsewhere = db.execute(
        "SELECT 1 FROM turns WHERE session_id = ? AND admission > ? AND state = 'accepted'"
        " AND host IS NOT NULL AND host != ? LIMIT 1",
        (session_id, found.admission, found.turn_id),
    ).fetchone()
    return None if elsewhere else found


def _takes(db: sqlite3.Connection, host: Turn, asked: Admission) -> bool:
    """Whether a collecting turn takes one more message."""
    mine, theirs = (
        (each.policy, each.lane, each.sender, each.target, each.model) for each in (host, asked)
    )
    if mine != theirs or host.started_at is not None or host.bound or asked.bound:
        return False
    instructions, seed, guests = db.execute(
        "SELECT instructions, seed, (SELECT count(*) FROM turns g"
        "  WHERE g.host = t.turn_id AND g.state = 'accepted')"
        " FROM turns t WHERE turn_id = ?",
        (host.turn_id,),
    ).fetchone()
    return (instructions, seed, asked.seed) == (
        asked.instructions,
        None,
        None,
    ) and 1 + guests < asked.collect_max
