"""
What a new message does to a busy session, in the transaction that takes it in.

Each function looks at things as they stand before the new turn is among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast._core.lanes import is_people
from holdfast.backends.memory.aborting import ask_to_end
from holdfast.backends.memory.order import head_of_room
from holdfast.backends.memory.rows import HEARTBEAT, change, hosted

if TYPE_CHECKING:
    from holdfast.backends.memory.world import Room, World
    from holdfast.types import Admission, Turn, TurnId

__all__ = ["Stand", "press", "stand_of", "wait_longer"]

PREEMPTED_MOST: Final = 2  #: Heartbeats in a row.
QUIETS_MOST: Final = 10  #: A burst waits for so many quiet windows at most.
#: Policies whose messages make the running turn end → why it ends.
_PRESSING: Final = {"interrupt": "interrupted", "rollback": "rolled_back"}


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a new turn stands."""

    host: TurnId | None = None
    not_before_ms: int = 0  #: Its own, or its host's from now on.


def stand_of(world: World, room: Room | None, asked: Admission, now_ms: int) -> Stand:
    """Where *asked* stands by its policy.  Changes nothing.  *room*: None, a new session."""
    if asked.policy == "steer":
        running = None if room is None else _running(world, room)
        if running is None or not _answers(world, running, asked):
            return Stand()
        return Stand(running.turn_id)
    if asked.policy != "collect":
        return Stand()
    until_ms = now_ms + asked.quiet_ms
    host = None if room is None else _last_of_people(world, room)
    if host is None or not _takes(world, host, asked):
        return Stand(None, until_ms)
    return Stand(host.turn_id, min(until_ms, host.accepted_ms + QUIETS_MOST * asked.quiet_ms))


def press(world: World, room: Room, asked: Admission, stand: Stand) -> None:
    """Ask the running turn to end, if the policy or the lane of *asked* says so."""
    if asked.policy in _PRESSING:
        pressed = _running(world, room, recovering=True) or _going_on(world, room)
        if pressed is not None:
            ask_to_end(world, pressed, _PRESSING[asked.policy])
        return
    running = _running(world, room)
    if (
        running is not None
        and is_people(asked.lane)
        and asked.preempts
        and running.turn_id != stand.host
        and running.lane == HEARTBEAT
        and not running.bound
        and not running.abort_requested
        and room.preempted < PREEMPTED_MOST
        and not _has_run_for_good(world, running)
    ):
        room.preempted += 1
        ask_to_end(world, running, "preempted")
        world.event(
            "preempted", running.session_id, running.turn_id, running.owner_id,
            by=asked.turn_id,
        )  # fmt: skip


def wait_longer(world: World, stand: Stand) -> None:
    """A burst goes on: its host waits until it is quiet again."""
    if stand.host is not None and stand.not_before_ms:
        change(world, stand.host, not_before_ms=stand.not_before_ms)


def _running(world: World, room: Room, *, recovering: bool = False) -> Turn | None:
    """The turn that runs in *room*; *recovering*: or whose attempt is being ended."""
    lease = world.leases.get(room.session.session_id)
    if lease is None or (lease.recovering and not recovering):
        return None
    return world.turns[lease.turn_id]


def _going_on(world: World, room: Room) -> Turn | None:
    """The turn that has run, went back to its place, and is the next to run."""
    head = head_of_room(world, room)
    return None if head is None or head[1].started_at is None else head[1]


def _answers(world: World, running: Turn, asked: Admission) -> bool:
    """Whether the reply of *running* can be the answer to a message that is sent into it."""
    return (
        not (running.abort_requested or asked.bound)
        and asked.target in {None, running.target}
        and asked.model in {None, running.model}
        and asked.instructions in {None, world.beside[running.turn_id].instructions}
    )


def _last_of_people(world: World, room: Room) -> Turn | None:
    last = [queue[-1] for lane, queue in room.queues.items() if is_people(lane)]
    if not last:
        return None
    found = world.turns[max(last)[1]]
    # What was said behind it into another turn's run may come back to its place.
    waiting = (world.turns[turn_id] for turn_id in room.waiting)
    elsewhere = any(
        turn.host not in {None, found.turn_id} and turn.admission > found.admission
        for turn in waiting
    )
    return None if elsewhere else found


def _takes(world: World, host: Turn, asked: Admission) -> bool:
    """Whether a collecting turn takes one more message."""
    mine, theirs = (
        (each.policy, each.lane, each.sender, each.target, each.model) for each in (host, asked)
    )
    beside = world.beside[host.turn_id]
    return (
        mine == theirs
        and host.started_at is None
        and not (host.bound or asked.bound)
        and (beside.instructions, beside.seed) == (asked.instructions, None)
        and asked.seed is None
        and 1 + len(hosted(world, host.turn_id)) < asked.collect_max
    )


def _has_run_for_good(world: World, turn: Turn) -> bool:
    """Whether it has begun a tool whose effect cannot be had twice."""
    calls = world.tool_calls.get(turn.turn_id, {})
    return any(call.replay == "never" for call in calls.values())
