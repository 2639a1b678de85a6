"""
What every transaction body needs.  All of it runs under `World.mutex`.

`move` is the only place that changes a turn's state, and it asks `_core.turns` first.
`change` keeps the queues, so that no writer can forget to.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.turns import State, step
from holdfast.backends.memory.owing import owe_notice
from holdfast.errors import LeaseLostError, NotFoundError

if TYPE_CHECKING:
    from holdfast._core.turns import Event
    from holdfast.backends.memory.world import Room, World
    from holdfast.types import FencingToken, SessionId, Turn, TurnId

__all__ = [
    "HEARTBEAT",
    "change",
    "enqueued",
    "fetch_room",
    "fetch_turn",
    "guard",
    "hosted",
    "move",
    "unhost",
]

HEARTBEAT: Final = "heartbeat"


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
    """Put a changed row in place of the turn's, and the turn where it belongs by it."""
    before = world.turns[turn_id]
    turn = world.turns[turn_id] = replace(before, **fields)
    if (before.state, before.host, before.session_id) != (
        turn.state, turn.host, turn.session_id,
    ):  # fmt: skip
        _dequeue(world, before)
        enqueued(world, turn)
    return turn


def enqueued(world: World, turn: Turn) -> None:
    """*turn* stands where its row says: in its queue, with its host, or among who runs."""
    if turn.state == State.RUNNING.value:
        world.running.add(turn.turn_id)
    if turn.state != State.ACCEPTED.value:
        return
    room, at = world.rooms[turn.session_id], (turn.admission, turn.turn_id)
    room.waiting.add(turn.turn_id)
    if turn.host is not None:
        insort(world.guests.setdefault(turn.host, []), at)
        return
    insort(room.queues.setdefault(turn.lane, []), at)
    world.lined[turn.session_id] = room


def _dequeue(world: World, turn: Turn) -> None:
    world.running.discard(turn.turn_id)
    if turn.state != State.ACCEPTED.value:
        return
    room, at = world.rooms[turn.session_id], (turn.admission, turn.turn_id)
    room.waiting.discard(turn.turn_id)
    if turn.host is not None:
        _strike(world.guests, turn.host, at)
        return
    _strike(room.queues, turn.lane, at)
    if not room.queues:
        del world.lined[turn.session_id]


def _strike(queues: dict[Any, list[tuple[int, TurnId]]], name: str, at: Any) -> None:
    queue = queues[name]
    del queue[bisect_left(queue, at)]
    if not queue:
        del queues[name]


def hosted(world: World, turn_id: TurnId) -> list[Turn]:
    """Those provisionally merged into *turn_id*, in the order of admission."""
    return [world.turns[each] for _, each in world.guests.get(turn_id, ())]


def unhost(world: World, turn: Turn) -> Turn:
    """A turn that was to be merged stands at its own place again."""
    world.event("unmerged", turn.session_id, turn.turn_id, None, host=turn.host)
    return change(world, turn.turn_id, host=None)


def move(
    world: World,
    turn: Turn,
    what: Event,
    *,
    outcome: str | None = None,
    reason: str | None = None,
    hint: str | None = None,
    owner_id: str | None = None,
) -> Turn:
    """
    Take one step of the turn table.  *owner_id*: whose step it is, if not its runner's.

    Leaving RUNNING gives lease and slot back; an outcome leaves nobody with this turn as
    host: who is merged by it ends before.
    """
    row = step(State(turn.state), what, outcome)
    fields: dict[str, Any] = {
        "state": row.to.value, "outcome": outcome, "reason": reason, "hint": hint,
        "attempts": turn.attempts + row.attempts,
    }  # fmt: skip
    ran_ms = waited_ms = None
    if row.to is State.RUNNING:
        waited_ms = world.clock_ms() - turn.accepted_ms
    if turn.state == State.RUNNING.value:
        lease = world.leases.get(turn.session_id)
        if lease is not None and outcome is not None:
            ran_ms = world.clock_ms() - lease.taken_ms
        fields |= _let_go(world, turn)
    if outcome is not None:
        fields |= _ended(world, turn, reason)
        owe_notice(world, turn, outcome, reason, hint)
    world.event(
        what.value, turn.session_id, turn.turn_id, owner_id or turn.owner_id,
        outcome=outcome, reason=reason, waited_ms=waited_ms, ran_ms=ran_ms,
    )  # fmt: skip
    return change(world, turn.turn_id, **fields)


def _let_go(world: World, turn: Turn) -> dict[str, Any]:
    """It runs no more: nothing is held in its name."""
    lease = world.leases.get(turn.session_id)
    if lease is not None and lease.turn_id == turn.turn_id:
        del world.leases[turn.session_id]
    world.slots.pop(turn.turn_id, None)
    world.wanted.pop(turn.turn_id, None)
    return {"token": None, "owner_id": None, "waits_for": None, "slot_wanted": False}


def _ended(world: World, turn: Turn, reason: str | None) -> dict[str, Any]:
    for guest in hosted(world, turn.turn_id):
        unhost(world, guest)
    # One that had its run, and where it gets its outcome: not once its deliveries are over.
    had_its_run = turn.started_at is not None and turn.outcome is None
    if turn.lane == HEARTBEAT and had_its_run and reason != "preempted":
        world.rooms[turn.session_id].preempted = 0
    world.beside[turn.turn_id].seed = None
    world.made.pop(turn.turn_id, None)
    calls = world.tool_calls.get(turn.turn_id, {})
    for call_id, call in calls.items():
        if call.state == "started":  # Nobody will ever say how it went.
            calls[call_id] = replace(call, state="interrupted", ended_at=world.now_iso())
    return {"ended_at": turn.ended_at or world.now_iso(), "host": None, "finished": None}
