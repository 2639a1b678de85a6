"""
Leases, slots and tokens.  Each function is one transaction's body.

Lane slot and turn lease are taken together, by one pick.  Nothing waits for a session while
it holds a slot, nor for a slot while it holds a session.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast._core.turns import Event, State
from holdfast.backends.memory.rows import change, fetch_turn, guard, move, queued
from holdfast.backends.memory.world import Lease
from holdfast.errors import LeaseLostError
from holdfast.types import FencingToken, Leased

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from holdfast._core.settings import Lane
    from holdfast.backends.memory.world import World
    from holdfast.types import Commit, OwnerId, SessionId, Turn, TurnId

__all__ = [
    "commit",
    "count_attempt",
    "end",
    "end_waiting",
    "heads",
    "keep",
    "make_effective",
    "pick",
    "put_back",
    "salvage",
    "take_over",
]


def heads(world: World, session_id: SessionId | None = None) -> list[Turn]:
    """
    The head of each idle session, best first: its waiting turn of highest priority, then
    lowest admission number.

    A head that nobody may run now still is the head: turns behind it wait for it, not
    around it.
    """
    rooms = world.rooms.values() if session_id is None else [world.rooms[session_id]]
    found = []
    for room in rooms:
        if room.waiting and room.session.session_id not in world.leases:
            found += [turn for turn in queued(world, room) if turn.host is None][:1]
    return sorted(found, key=lambda turn: (-turn.priority, turn.admission))


def pick(
    world: World,
    owner_id: OwnerId,
    agents: Collection[str],
    lanes: Mapping[str, Lane],
    *,
    overdue: Collection[TurnId] = (),
    session_id: SessionId | None = None,
    only: TurnId | None = None,
) -> Leased | None:
    """
    Slot and lease for the best turn that this process may run now, or None.

    Args:
        agents: those this process can run.
        overdue: turns whose home we have watched not starting them; ours to adopt.
        session_id: look at this session only (an embedded runner's).
        only: take this turn or none (`hf.turn`, which brings its own loop).
    """
    me = world.owners.get(owner_id)
    if me is None or me.draining:
        return None
    live = {each for each, row in world.owners.items() if not row.draining}
    used = Counter(world.slots.values())
    for turn in heads(world, session_id):
        home_starts_it = turn.home != owner_id and turn.home in live
        mine = turn.turn_id == only if only or turn.bound else turn.agent_id in agents
        if not mine or (home_starts_it and turn.turn_id not in overdue):
            continue
        lane = lanes.get(turn.lane)
        full = lane is not None and used[turn.lane] >= lane.concurrency
        if full or turn.not_before_ms > world.now_ms():
            continue
        return _lease(world, turn, owner_id)
    return None


def _lease(world: World, turn: Turn, owner_id: OwnerId) -> Leased:
    room, beside = world.rooms[turn.session_id], world.beside[turn.turn_id]
    move(world, turn, Event.LEASE)
    token = _next_token(world, turn.session_id)
    world.leases[turn.session_id] = Lease(turn.session_id, turn.turn_id, token, owner_id)
    world.slots[turn.turn_id] = turn.lane
    leased = change(
        world,
        turn.turn_id,
        token=token,
        owner_id=owner_id,
        started_at=turn.started_at or world.now_iso(),
        not_before_ms=0,
    )
    if turn.home not in {None, owner_id}:
        world.event("adopted", turn.session_id, turn.turn_id, owner_id, home=turn.home)
    return Leased(
        leased, room.session, token, turn.finished, beside.instructions, beside.seed,
        again=(turn.reason or "again") if turn.started_at is not None else None,
    )  # fmt: skip


def _next_token(world: World, session_id: SessionId) -> FencingToken:
    room = world.rooms[session_id]
    room.token += 1
    return FencingToken(room.token)


def make_effective(world: World, turn_id: TurnId, token: FencingToken) -> Turn:
    """The token was left under the write lock: from here on the model may be called."""
    turn = guard(world, turn_id, token)
    world.leases[turn.session_id].effective = True
    return turn


def count_attempt(world: World, turn_id: TurnId, token: FencingToken) -> int:
    """A new attempt inside the same run: the lease is kept, the count goes up."""
    turn = guard(world, turn_id, token)
    return change(world, turn_id, attempts=turn.attempts + 1).attempts


def commit(world: World, turn_id: TurnId, token: FencingToken, what: Commit) -> Turn:
    """
    The final entry stands in the transcript: book it.  No delivery is owed, so it settles.

    Raises:
        LeaseLostError: the token moved on; the successor finds the entry and books it.
    """
    turn = guard(world, turn_id, token)
    usage = None if what.usage is None else json.loads(what.usage)
    room = world.rooms[turn.session_id]
    turn = move(world, turn, Event.COMMIT, outcome="replied")
    turn = move(world, turn, Event.SETTLE, outcome="replied")
    if what.synced:  # Syncing this batch synced every earlier one: their copies may go.
        for each in room.unsynced:
            world.beside[each].entries = None
        room.unsynced.clear()
    world.beside[turn_id].entries = what.entries
    room.unsynced.add(turn_id)
    room.session = replace(room.session, end_offset=what.end_offset)
    return change(world, turn_id, reply=what.reply, final_entry=what.final_entry, usage=usage)


def end(
    world: World,
    turn_id: TurnId,
    token: FencingToken,
    outcome: str,
    reason: str | None,
    hint: str | None,
) -> Turn:
    """An outcome other than `replied`, whose entry stands in the transcript already."""
    turn = guard(world, turn_id, token)
    return move(world, turn, Event.END, outcome=outcome, reason=reason, hint=hint)


def end_waiting(world: World, turn_id: TurnId, outcome: str, reason: str | None) -> Turn:
    """End a turn that waits.  One that runs is left alone: its runner will see the entry."""
    turn = fetch_turn(world, turn_id)
    if turn.state == State.ACCEPTED.value:
        return move(world, turn, Event.END, outcome=outcome, reason=reason)
    return turn


def put_back(
    world: World,
    turn_id: TurnId,
    token: FencingToken,
    *,
    what: Event,
    reason: str,
    not_before_ms: int = 0,
) -> Turn:
    """Back to its place in the queue, with or without its attempt (`what`)."""
    turn = move(world, guard(world, turn_id, token), what, reason=reason)
    reruns = turn.reruns + (reason == "taken_over")
    return change(world, turn_id, not_before_ms=not_before_ms, reruns=reruns)


def keep(world: World, turn_id: TurnId, token: FencingToken, finished: bytes) -> None:
    """Store a finished reply that waits for the write lock; a successor appends it."""
    guard(world, turn_id, token)
    change(world, turn_id, finished=finished)


def salvage(world: World, turn_id: TurnId, token: FencingToken, finished: bytes) -> None:
    """Keep a finished reply whose place in the transcript is gone."""
    guard(world, turn_id, token)
    change(world, turn_id, salvaged=finished, finished=None)


def take_over(
    world: World, session_id: SessionId, token: FencingToken, owner_id: OwnerId
) -> FencingToken:
    """
    Move the token on: fence whoever held *token*, and hold the lease in order to end its
    attempt.  The slot is free at once.

    Raises:
        LeaseLostError: *token* no longer holds the lease; somebody else was faster.
    """
    lease = world.leases.get(session_id)
    if lease is None or lease.token != token:
        raise LeaseLostError(turn_id="", token=token)
    newer = _next_token(world, session_id)
    world.leases[session_id] = Lease(
        session_id, lease.turn_id, newer, owner_id, recovering=True
    )
    change(world, lease.turn_id, token=newer, owner_id=owner_id)
    world.slots.pop(lease.turn_id, None)
    world.event("fenced", session_id, lease.turn_id, owner_id, token=token, newer=newer)
    return newer
