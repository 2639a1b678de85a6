"""Which turns stand first, and which slots are free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast._core.lanes import Head, effective, head_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from holdfast._core.settings import Lane
    from holdfast.backends.memory.world import Room, World
    from holdfast.types import SessionId, Turn

__all__ = ["head_of_room", "heads", "is_full", "lane_heads"]


def lane_heads(world: World, room: Room) -> dict[Head, Turn]:
    """The first waiting turn of each lane."""
    now_ms, found = world.clock_ms(), {}
    for lane, queue in room.queues.items():
        turn = world.turns[queue[0][1]]
        aged = effective(turn.priority, now_ms - turn.accepted_ms)
        found[Head(aged, turn.admission, lane)] = turn
    return found


def head_of_room(world: World, room: Room) -> tuple[Head, Turn] | None:
    """The turn that runs next in a session, whether it is idle or not."""
    each = lane_heads(world, room)
    head = head_of(each)
    if head is None:
        return None
    return head, next(turn for turn in each.values() if turn.admission == head.admission)


def heads(world: World, session_id: SessionId | None = None) -> list[Turn]:
    """
    The head of each idle session, best first.

    A head that nobody may run now still is the head: turns behind it wait for it, not
    around it.
    """
    if session_id is None:
        rooms: Iterable[Room] = world.lined.values()
    else:
        rooms = [world.lined[session_id]] if session_id in world.lined else []
    idle = (room for room in rooms if room.session.session_id not in world.leases)
    found = [head for head in (head_of_room(world, room) for room in idle) if head is not None]
    found.sort(key=lambda head: head[0].rank)
    return [turn for _, turn in found]


def is_full(world: World, lane: str, lanes: Mapping[str, Lane]) -> bool:
    """Whether a new turn of *lane* has no slot: those who want theirs back come first."""
    if lane not in lanes:
        return False
    used = sum(each == lane for each in world.slots.values())
    used += sum(each == lane for each in world.wanted.values())
    return used >= lanes[lane].concurrency
