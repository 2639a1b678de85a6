"""
Admission: keys become sessions, messages become turns.  Each function is one transaction's
body; it raises before it writes, or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast._core import keys
from holdfast._core.turns import Event, State, step
from holdfast.backends.memory import policies
from holdfast.backends.memory.rows import enqueued, fetch_turn
from holdfast.backends.memory.waits import refuse_cycle
from holdfast.backends.memory.world import Beside, Room
from holdfast.errors import (
    BadKeyError,
    IdempotencyConflictError,
    QueueFullError,
    RejectedError,
    UnknownAgentError,
)
from holdfast.types import Admitted, Session, SessionId, Turn

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast.backends.memory.policies import Stand
    from holdfast.backends.memory.world import World
    from holdfast.types import Admission

__all__ = ["admit", "make_alias", "make_room"]


def make_alias(world: World, alias: str, key: str) -> str:
    """
    Let *alias* stand for *key* from now on.

    Raises:
        BadKeyError: *alias* is the name of a conversation of its own already.
    """
    key = world.aliases.get(key, key)
    if alias == key:
        return key
    if alias in world.keys or alias in world.aliases.values():
        raise BadKeyError(key=alias, detail="it names a conversation or has aliases of its own")
    world.aliases[alias] = key
    return key


def admit(world: World, asked: Admission, known_agents: Collection[str]) -> Admitted:
    """
    Take a message in, or refuse it without a trace.

    The order matters: a retried message finds its earlier receipt before anything about
    the session's present state can refuse it.
    """
    key = world.aliases.get(asked.session_key, asked.session_key)
    earlier = _earlier(world, key, asked)
    if earlier is not None:
        return Admitted(earlier, fresh=False)
    _check_agent(world, asked.agent_id, known_agents)
    session_id = world.keys.get(key)
    room = None if session_id is None else world.rooms[session_id]
    _check_room(world, room, key, asked)
    now_ms = world.clock_ms()
    stand = policies.stand_of(world, room, asked, now_ms)
    _check_wait(world, session_id, asked, stand)
    if room is None:
        room = make_room(world, key, asked.agent_id)
    policies.press(world, room, asked, stand)
    policies.wait_longer(world, stand)
    turn = _new_turn(world, room, key, asked, stand, now_ms)
    if asked.idempotency_key is not None:
        receipt = (asked.request_hash, turn.turn_id)
        world.receipts[key, asked.idempotency_key] = receipt
    world.event(
        "accepted", turn.session_id, turn.turn_id, asked.home, lane=asked.lane, host=stand.host
    )
    return Admitted(turn, fresh=True)


def _earlier(world: World, key: str, asked: Admission) -> Turn | None:
    if asked.idempotency_key is None:
        return None
    found = world.receipts.get((key, asked.idempotency_key))
    if found is None:
        return None
    request_hash, turn_id = found
    if request_hash != asked.request_hash:
        raise IdempotencyConflictError(idempotency_key=asked.idempotency_key, turn_id=turn_id)
    return fetch_turn(world, turn_id)


def _check_agent(world: World, agent_id: str, known: Collection[str]) -> None:
    if agent_id == keys.AGENT_DEFAULT or agent_id in known or agent_id in world.agents:
        return
    everybody = sorted({keys.AGENT_DEFAULT, *known, *world.agents})
    raise UnknownAgentError(agent=agent_id, known=everybody)


def _check_room(world: World, room: Room | None, key: str, asked: Admission) -> None:
    waiting = len(room.waiting) if room is not None else 0
    leased = room is not None and room.session.session_id in world.leases
    if asked.policy == "reject" and (waiting or leased):
        raise RejectedError(session=key)
    if waiting >= asked.queue_max:
        raise QueueFullError(session=key, limit=asked.queue_max)
    step(State.ACCEPTED, Event.LEASE)  # What is let in here can leave by the table.


def _check_wait(
    world: World, session_id: SessionId | None, asked: Admission, stand: Stand
) -> None:
    """Raises DeadlockError if the parent that awaits this turn keeps it from running."""
    if asked.awaited and asked.parent is not None and session_id is not None:
        lease = world.leases.get(session_id)
        ahead = stand.host or (None if lease is None else lease.turn_id)
        refuse_cycle(world, asked.parent, asked.turn_id, ahead)


def make_room(world: World, key: str, agent_id: str) -> Room:
    session_id = SessionId(world.new_id())
    room = Room(
        Session(
            session_id,
            agent_id,
            f"agents/{agent_id}/sessions/{session_id}.jsonl",
            generation=1,
            end_offset=0,
            created_at=world.now_iso(),
        ),
        keys=[key],
    )
    world.rooms[session_id] = room
    world.keys[key] = session_id
    return room


def _new_turn(
    world: World, room: Room, key: str, asked: Admission, stand: Stand, now_ms: int
) -> Turn:
    assert asked.turn_id not in world.turns, "a turn's id is its own"
    turn = Turn(
        turn_id=asked.turn_id, admission=world.next_admission(),
        session_id=room.session.session_id, session_key=key, agent_id=asked.agent_id,
        lane=asked.lane, source=asked.source, priority=asked.priority, policy=asked.policy,
        state=State.ACCEPTED.value, outcome=None, reason=None, hint=None, text=asked.text,
        reply=None, model=asked.model, attempts=0, reruns=0,
        idempotency_key=asked.idempotency_key, home=asked.home, bound=asked.bound,
        not_before_ms=0 if stand.host else stand.not_before_ms, host=stand.host,
        token=None, owner_id=None, abort_requested=False,
        accepted_at=world.now_iso(), started_at=None, ended_at=None, final_entry=None,
        finished=None, salvaged=None, usage=None, sender=asked.sender, target=asked.target,
        part_chars=asked.part_chars, parent=asked.parent, hosted=stand.host is not None,
        accepted_ms=now_ms,
    )  # fmt: skip
    world.turns[turn.turn_id] = turn
    world.beside[turn.turn_id] = Beside(asked.instructions, asked.seed)
    room.turns.append(turn.turn_id)
    enqueued(world, turn)
    return turn
