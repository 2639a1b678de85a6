"""
What every transaction body needs.  All of it runs under `World.mutex`.

`move` is the only place that changes a turn's state, and it asks `_core.turns` first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdfast._core.turns import State, step
from holdfast.errors import LeaseLostError, NotFoundError

if TYPE_CHECKING:
    from holdfast._core.turns import Event
    from holdfast.backends.memory.world import Room, World
    from holdfast.types import FencingToken, SessionId, Turn, TurnId

__all__ = ["change", "fetch_room", "fetch_turn", "guard", "move", "queued"]


def fetch_turn(world: World, turn_id: TurnId) -> Turn:
    turn = world.turns.get(turn_id)
    if turn is None:
        raise NotFoundError(what="turn", name=turn_id[:80])
    return turn


def fetch_room(world: World, session_id: SessionId) -> Room:
    room = world.rooms.get(session_id)
    if room is None:
        raise NotFoundError(what="session", name=session_id[:80])
    return room


def guard(world: World, turn_id: TurnId, token: FencingToken) -> Turn:
    """
    The running turn, if *token* still holds its lease.

    Raises:
        LeaseLostError: it does not: the token moved on, or the turn ended.
    """
    turn = fetch_turn(world, turn_id)
    lease = world.leases.get(turn.session_id)
    if lease is None or (lease.turn_id, lease.token) != (turn_id, token):
        raise LeaseLostError(turn_id=turn_id, token=token)
    return turn


def change(world: World, turn_id: TurnId, **fields: Any) -> Turn:
    """Put a changed row in place of the turn's."""
    turn = world.turns[turn_id] = replace(world.turns[turn_id], **fields)
    return turn


def queued(world: World, room: Room) -> list[Turn]:
    """A session's waiting turns in the order in which they run."""
    turns = (world.turns[turn_id] for turn_id in room.waiting)
    return sorted(turns, key=lambda turn: (-turn.priority, turn.admission))


def move(
    world: World,
    turn: Turn,
    what: Event,
    *,
    outcome: str | None = None,
    reason: str | None = None,
    hint: str | None = None,
) -> Turn:
    """Take one step of the turn table.  Leaving RUNNING gives lease and slot back."""
    row = step(State(turn.state), what, outcome)
    room = world.rooms[turn.session_id]
    fields: dict[str, Any] = {
        "state": row.to.value, "outcome": outcome, "reason": reason, "hint": hint,
        "attempts": turn.attempts + row.attempts,
    }  # fmt: skip
    if turn.state == State.RUNNING.value:
        lease = world.leases.get(turn.session_id)
        if lease is not None and lease.turn_id == turn.turn_id:
            del world.leases[turn.session_id]
        world.slots.pop(turn.turn_id, None)
        world.running.discard(turn.turn_id)
        fields |= {"token": None, "owner_id": None}
    room.waiting.discard(turn.turn_id)
    if row.to is State.ACCEPTED:
        room.waiting.add(turn.turn_id)
    elif row.to is State.RUNNING:
        world.running.add(turn.turn_id)
    if outcome is not None:
        fields |= {
            "ended_at": turn.ended_at or world.now_iso(), "host": None, "finished": None,
        }  # fmt: skip
        world.beside[turn.turn_id].seed = None
    world.event(
        what.value, turn.session_id, turn.turn_id, turn.owner_id, outcome=outcome, reason=reason
    )
    return change(world, turn.turn_id, **fields)
