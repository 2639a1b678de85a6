"""A key that moves to a new session; a session that its owner is asked to let go of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast._core.turns import State
from holdfast.backends.memory.admission import make_room
from holdfast.backends.memory.rows import change, fetch_room, unhost
from holdfast.errors import NotFoundError
from holdfast.types import Handover, Reset

if TYPE_CHECKING:
    from holdfast.backends.memory.world import Room, World
    from holdfast.types import OwnerId, SessionId

__all__ = ["answer_handover", "ask_handover", "handover", "handovers", "reset"]

_UNENDED = frozenset({State.ACCEPTED.value, State.RUNNING.value})


def reset(world: World, key: str) -> Reset:
    """
    Let *key* name a new, empty session from now on.

    Its waiting turns go along, in the order of admission; one that has started, or whose
    question was taken by a host, ends in the old session.  Other keys of the old one stay.

    Raises:
        NotFoundError: no session has this key.
    """
    key = world.aliases.get(key, key)
    session_id = world.keys.get(key)
    if session_id is None:
        raise NotFoundError(what="session", name=key[:80])
    old = fetch_room(world, session_id)
    its_own = [
        turn
        for turn in (world.turns[each] for each in old.turns)
        if turn.session_key == key and turn.state in _UNENDED
    ]
    moved = [turn for turn in its_own if turn.started_at is None and turn.asked_entry is None]
    new = make_room(world, key, old.session.agent_id)
    old.keys.remove(key)
    for turn in moved:
        change(world, turn.turn_id, session_id=new.session.session_id)
        new.turns.append(turn.turn_id)
    gone = {turn.turn_id for turn in moved}
    old.turns = [each for each in old.turns if each not in gone]
    _part(world, old, new)
    world.event("reset", session_id, None, None, key=key, new=new.session.session_id)
    return Reset(
        old.session, new.session,
        tuple(turn.turn_id for turn in moved),
        tuple(turn.turn_id for turn in its_own if turn.turn_id not in gone),
    )  # fmt: skip


def _part(world: World, *rooms: Room) -> None:
    """Nobody has a host in another session."""
    waiting = [world.turns[turn_id] for room in rooms for turn_id in room.waiting]
    for turn in sorted(waiting, key=lambda each: each.admission):
        if turn.host and world.turns[turn.host].session_id != turn.session_id:
            unhost(world, turn)


def ask_handover(world: World, session_id: SessionId) -> Handover | None:
    """Ask who holds the session to let go of it; None: nobody does."""
    lease = world.leases.get(session_id)
    if lease is None:
        return None
    asked = Handover(world.new_id(), session_id, lease.turn_id, lease.owner_id, world.now_iso())
    world.handovers[asked.request_id] = asked
    world.event("handover", session_id, lease.turn_id, lease.owner_id)
    return asked


def handover(world: World, request_id: str) -> Handover:
    found = world.handovers.get(request_id)
    if found is None:
        raise NotFoundError(what="handover", name=request_id[:80])
    return found


def handovers(world: World, owner_id: OwnerId) -> list[Handover]:
    """Requests that this owner has not answered, oldest first."""
    return [
        each
        for each in world.handovers.values()
        if each.owner_id == owner_id and each.answer is None
    ]


def answer_handover(world: World, request_id: str, answer: str, detail: str) -> None:
    """The first answer stays."""
    asked = handover(world, request_id)
    if asked.answer is None:
        world.handovers[request_id] = replace(asked, answer=answer, detail=detail)
        world.event(
            "handover", asked.session_id, asked.turn_id, asked.owner_id,
            answer=answer, detail=detail,
        )  # fmt: skip
