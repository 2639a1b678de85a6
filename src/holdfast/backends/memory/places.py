"""Where a turn stands, and in one word what it waits for."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from holdfast._core.lanes import Head, effective, is_people
from holdfast._core.turns import State
from holdfast.backends.memory.order import head_of_room, is_full
from holdfast.backends.memory.rows import fetch_turn
from holdfast.types import Place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast._core.settings import Lane
    from holdfast.backends.memory.world import Room, World
    from holdfast.types import Turn, TurnId

__all__ = ["place"]


def place(world: World, turn_id: TurnId, lanes: Mapping[str, Lane]) -> Place:
    """Where a turn stands in its session, and in one word what it waits for."""
    turn = fetch_turn(world, turn_id)
    if turn.state != State.ACCEPTED.value:
        return Place(0, None)
    if turn.host is not None:
        return _behind(world, 1, "merge", turn.host)
    room = world.rooms[turn.session_id]
    head = head_of_room(world, room)
    assert head is not None, "a waiting turn is in a queue"
    first = head[1].turn_id == turn_id
    ahead = 0 if first else max(_ahead(world, room, turn), 1)
    lease = world.leases.get(turn.session_id)
    position = ahead + (0 if lease is None else 1)
    if not _has_runner(world, turn):
        return Place(position, "no_runner")
    if lease is not None:
        return _behind(world, position, "turn" if first else "queue", lease.turn_id)
    if not first:
        return _behind(world, position, "queue", head[1].turn_id)
    return _alone(world, turn, lanes)


def _alone(world: World, turn: Turn, lanes: Mapping[str, Lane]) -> Place:
    """It is the head of an idle session."""
    left_ms = turn.not_before_ms - world.clock_ms()
    if left_ms > 0:
        return Place(0, turn.reason or "quiet", left_ms=left_ms)
    if is_full(world, turn.lane, lanes):
        return Place(0, "slot", lane=turn.lane)
    return Place(0, None)


def _behind(world: World, position: int, why: str, blocker: TurnId) -> Place:
    turn = world.turns[blocker]
    since = turn.started_at if turn.state == State.RUNNING.value else None
    return Place(position, why, blocker=blocker, lane=turn.lane, since=since)


def _ahead(world: World, room: Room, turn: Turn) -> int:
    """
    How many turns run before *turn*, as things stand: of its own kind those admitted earlier,
    of any other those that rank before it.
    """
    now_ms, ahead = world.clock_ms(), 0
    mine = _rank(turn, now_ms)
    for lane, queue in room.queues.items():
        if _alike(lane, turn.lane):
            ahead += bisect_left(queue, (turn.admission, turn.turn_id))
        else:
            ahead += sum(_rank(world.turns[each], now_ms) < mine for _, each in queue)
    return ahead


def _rank(turn: Turn, now_ms: int) -> tuple[int, int]:
    aged = effective(turn.priority, now_ms - turn.accepted_ms)
    return Head(aged, turn.admission, turn.lane).rank


def _alike(one: str, other: str) -> bool:
    """Whether the turns of both run in the order of admission."""
    return one == other or (is_people(one) and is_people(other))


def _has_runner(world: World, turn: Turn) -> bool:
    return turn.bound or any(
        turn.agent_id in row.agents and not row.draining for row in world.owners.values()
    )
