"""
Leases, slots and tokens.  Each function is one transaction's body.

Lane slot and turn lease are taken together, by one pick.  Nothing waits for a session while
it holds a slot, nor for a slot while it holds a session.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast._core.turns import ABORTS, Event, State
from holdfast.backends.memory.order import heads, is_full
from holdfast.backends.memory.owing import owe_reply
from holdfast.backends.memory.owners import hand_on
from holdfast.backends.memory.rows import change, fetch_turn, guard, hosted, move
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
    "keep",
    "make_effective",
    "pick",
    "put_back",
    "salvage",
    "take",
    "take_over",
]


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
    now_ms = world.clock_ms()
    for turn in heads(world, session_id):
        home_starts_it = turn.home != owner_id and turn.home in live
        mine = turn.turn_id == only if only or turn.bound else turn.agent_id in agents
        if not mine or (home_starts_it and turn.turn_id not in overdue):
            continue
        if is_full(world, turn.lane, lanes) or turn.not_before_ms > now_ms:
            continue
        return _lease(world, turn, owner_id)
    return None


def _lease(world: World, turn: Turn, owner_id: OwnerId) -> Leased:
    room, beside = world.rooms[turn.session_id], world.beside[turn.turn_id]
    now_ms = world.clock_ms()
    move(world, turn, Event.LEASE, owner_id=owner_id)
    token = _next_token(world, turn.session_id)
    world.leases[turn.session_id] = Lease(
        turn.session_id, turn.turn_id, token, owner_id,
        taken_at=world.now_iso(), taken_ms=now_ms,
    )  # fmt: skip
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
        merges=tuple(hosted(world, turn.turn_id)),
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
    The final entry stands in the transcript: book it.  It settles, unless deliveries are owed.
    Merged turns whose question it answers end with it; the others stand at their places.

    Raises:
        LeaseLostError: the token moved on; the successor finds the entry and books it.
    """
    turn = guard(world, turn_id, token)
    usage = None if what.usage is None else json.loads(what.usage)
    room = world.rooms[turn.session_id]
    for guest in hosted(world, turn_id):
        if guest.turn_id in what.merged:
            world.event("merged", guest.session_id, guest.turn_id, None, host=turn_id)
            move(world, guest, Event.END, outcome="merged")
            change(world, guest.turn_id, merged_into=turn_id)
    turn = move(world, turn, Event.COMMIT, outcome="replied")
    if not owe_reply(world, turn, what.reply):
        turn = move(world, turn, Event.SETTLE, outcome="replied")
    if what.synced:  # Syncing this batch synced every earlier one: their copies may go.
        for each in room.unsynced:
            world.beside[each].entries = None
        room.unsynced.clear()
    beside = world.beside[turn_id]
    beside.entries, beside.end_offset = what.entries, what.end_offset
    beside.generation = what.generation
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
    delay_ms: int = 0,
) -> Turn:
    """
    Back to its place in the queue, with or without its attempt (`what`); who is merged into
    it stays so.  An abort that wanted just that is done.
    """
    held = guard(world, turn_id, token)
    turn = move(world, held, what, reason=reason)
    if reason == "handed_over" and not turn.bound:
        turn = hand_on(world, turn, held.owner_id)
    reruns = turn.reruns + (reason == "taken_over")
    not_before_ms = world.clock_ms() + delay_ms if delay_ms else 0
    turn = change(world, turn_id, not_before_ms=not_before_ms, reruns=reruns)
    if turn.abort_reason is not None and ABORTS[turn.abort_reason] is None:
        turn = change(
            world, turn_id, abort_requested=False, abort_reason=None, abort_at_ms=None
        )
    return turn


def take(
    world: World, turn_id: TurnId, token: FencingToken, taken: Mapping[TurnId, str]
) -> None:
    """The questions of merged turns stand in the transcript, written under *token*."""
    guard(world, turn_id, token)
    for guest in hosted(world, turn_id):
        if guest.turn_id in taken:
            change(world, guest.turn_id, asked_entry=taken[guest.turn_id])


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
        session_id, lease.turn_id, newer, owner_id,
        recovering=True, taken_at=world.now_iso(), taken_ms=lease.taken_ms,
    )  # fmt: skip
    world.slots.pop(lease.turn_id, None)
    world.wanted.pop(lease.turn_id, None)
    change(
        world, lease.turn_id,
        token=newer, owner_id=owner_id, waits_for=None, slot_wanted=False,
    )  # fmt: skip
    world.event("fenced", session_id, lease.turn_id, owner_id, token=token, newer=newer)
    return newer
