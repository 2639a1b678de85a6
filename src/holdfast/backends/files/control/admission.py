"""
Admission: keys become sessions, messages become turns.  Each function is one transaction's
body; it raises before it writes, or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast._core import keys
from holdfast._core.turns import Event, State, step
from holdfast._stamps import now_iso, uuid7
from holdfast.backends.files.control import policies, waits
from holdfast.backends.files.control.clock import tick_ms
from holdfast.backends.files.control.queries import known_agents
from holdfast.backends.files.control.rows import (
    COLUMNS,
    event,
    fetch_session,
    fetch_turn,
    to_turn,
)
from holdfast.errors import (
    BadKeyError,
    IdempotencyConflictError,
    NotFoundError,
    QueueFullError,
    RejectedError,
    UnknownAgentError,
)
from holdfast.types import Admitted, Session, SessionId

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

    from holdfast.backends.files.control.policies import Stand
    from holdfast.types import Admission, Turn, TurnId

__all__ = ["admit", "admitted", "make_alias", "make_session", "resolve"]

#: The columns of `types.Session`, in its order, and two more: one statement, in the gate.
_STANDS: Final = f"""
SELECT {", ".join(f"s.{name}" for name in Session.__dataclass_fields__)},
       (SELECT coalesce(sum(waiting + hosted), 0) FROM queues AS q
         WHERE q.session_id = s.session_id),
       EXISTS (SELECT 1 FROM leases AS l WHERE l.session_id = s.session_id)
  FROM keys AS k CROSS JOIN sessions AS s ON s.session_id = k.session_id
 WHERE k.session_key = ?
"""


def resolve(db: sqlite3.Connection, key: str) -> str:
    """The canonical key that *key*, canonical or an alias, stands for."""
    row = db.execute("SELECT session_key FROM aliases WHERE alias = ?", (key,)).fetchone()
    return str(row[0]) if row else key


def make_alias(db: sqlite3.Connection, alias: str, key: str) -> str:
    """
    Let *alias* stand for *key* from now on.

    Raises:
        BadKeyError: *alias* is the name of a conversation of its own already.
    """
    key = resolve(db, key)
    if alias == key:
        return key
    taken = db.execute("SELECT 1 FROM keys WHERE session_key = ?", (alias,)).fetchone()
    if taken or db.execute("SELECT 1 FROM aliases WHERE session_key = ?", (alias,)).fetchone():
        raise BadKeyError(key=alias, detail="it names a conversation or has aliases of its own")
    db.execute(
        "INSERT INTO aliases VALUES (?, ?)"
        " ON CONFLICT (alias) DO UPDATE SET session_key = excluded.session_key",
        (alias, key),
    )
    return key


def admit(db: sqlite3.Connection, asked: Admission, known_agents: Collection[str]) -> Admitted:
    """
    Take a message in, or refuse it without a trace.

    The order matters: a retried message finds its earlier receipt before anything about
    the session's present state can refuse it.
    """
    key = resolve(db, asked.session_key)
    earlier = _earlier(db, key, asked)
    if earlier is not None:
        return Admitted(earlier, fresh=False)
    _check_agent(db, asked.agent_id, known_agents)
    session, waiting, leased = _stands(db, key)
    _check_room(key, asked, waiting, leased=leased)
    now_ms = tick_ms(db)
    known = None if session is None else session.session_id
    stand = policies.stand_of(db, known, asked, now_ms)
    if session is None:
        session = make_session(db, key, asked.agent_id)
    else:
        _check_wait(db, session, asked, stand)
    if leased or (waiting and asked.policy in policies.PRESSING):
        policies.press(db, session.session_id, asked, stand)
    policies.wait_longer(db, stand)
    turn = _insert(db, session, key, asked, stand, now_ms)
    if asked.idempotency_key is not None:
        db.execute(
            "INSERT INTO idempotency VALUES (?, ?, ?, ?)",
            (key, asked.idempotency_key, asked.request_hash, asked.turn_id),
        )
    event(
        db, "accepted", session.session_id, asked.turn_id, asked.home,
        lane=asked.lane, host=stand.host,
    )  # fmt: skip
    return Admitted(turn, fresh=True)


def admitted(db: sqlite3.Connection, turn_id: TurnId) -> Admitted | None:
    """What became of an admission whose commit nobody could tell the fate of."""
    try:
        return Admitted(fetch_turn(db, turn_id), fresh=True)
    except NotFoundError:
        return None


def _earlier(db: sqlite3.Connection, key: str, asked: Admission) -> Turn | None:
    if asked.idempotency_key is None:
        return None
    row = db.execute(
        "SELECT request_hash, turn_id FROM idempotency"
        " WHERE session_key = ? AND idempotency_key = ?",
        (key, asked.idempotency_key),
    ).fetchone()
    if row is None:
        return None
    if row[0] != asked.request_hash:
        raise IdempotencyConflictError(idempotency_key=asked.idempotency_key, turn_id=row[1])
    return fetch_turn(db, row[1])


def _check_agent(db: sqlite3.Connection, agent_id: str, known: Collection[str]) -> None:
    if agent_id == keys.AGENT_DEFAULT or agent_id in known:
        return
    seen = known_agents(db)
    if agent_id not in seen:
        everybody = sorted({keys.AGENT_DEFAULT, *known, *seen})
        raise UnknownAgentError(agent=agent_id, known=everybody)


def _stands(db: sqlite3.Connection, key: str) -> tuple[Session | None, int, bool]:
    """The session that *key* names, how many turns wait there, and whether it is leased."""
    row = db.execute(_STANDS, (key,)).fetchone()
    return (None, 0, False) if row is None else (Session(*row[:-2]), row[-2], bool(row[-1]))


def make_session(db: sqlite3.Connection, key: str, agent_id: str) -> Session:
    """A new, empty session that *key* names from now on: two racers get one."""
    session_id, now = SessionId(uuid7()), now_iso()
    transcript = f"agents/{agent_id}/sessions/{session_id}.jsonl"
    db.execute(
        "INSERT INTO sessions (session_id, agent_id, transcript, created_at)"
        " VALUES (?, ?, ?, ?)",
        (session_id, agent_id, transcript, now),
    )
    db.execute("INSERT INTO keys VALUES (?, ?, ?)", (key, session_id, now))
    return fetch_session(db, session_id)


def _check_room(key: str, asked: Admission, waiting: int, *, leased: bool) -> None:
    if asked.policy == "reject" and (waiting or leased):
        raise RejectedError(session=key)
    if waiting >= asked.queue_max:
        raise QueueFullError(session=key, limit=asked.queue_max)
    step(State.ACCEPTED, Event.LEASE)  # What is let in here can leave by the table.


def _check_wait(
    db: sqlite3.Connection, session: Session, asked: Admission, stand: Stand
) -> None:
    """Raises DeadlockError if the parent that awaits this turn keeps it from running."""
    if asked.awaited and asked.parent is not None:
        ahead = stand.host or waits.holder(db, session.session_id)
        waits.refuse_cycle(db, asked.parent, asked.turn_id, ahead)


def _insert(
    db: sqlite3.Connection, session: Session, key: str, asked: Admission, stand: Stand,
    now_ms: int,
) -> Turn:  # fmt: skip
    row = {
        "turn_id": asked.turn_id, "session_id": session.session_id, "session_key": key,
        "agent_id": asked.agent_id, "lane": asked.lane, "source": asked.source,
        "priority": asked.priority, "policy": asked.policy, "state": State.ACCEPTED.value,
        "text": asked.text, "model": asked.model, "idempotency_key": asked.idempotency_key,
        "home": asked.home, "bound": asked.bound, "host": stand.host,
        "not_before_ms": stand.not_before_ms if stand.host is None else 0,
        "hosted": stand.host is not None, "sender": asked.sender, "target": asked.target,
        "part_chars": asked.part_chars, "parent": asked.parent,
        "accepted_at": now_iso(), "accepted_ms": now_ms,
        "instructions": asked.instructions, "seed": asked.seed,
    }  # fmt: skip
    made = db.execute(
        f"INSERT INTO turns ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
        f" RETURNING {COLUMNS}",
        [*row.values()],
    ).fetchone()
    return to_turn(made)
