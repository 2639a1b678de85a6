"""
Turns that wait for turns.

A merged turn waits for its host, a waiting one for the turn that holds its session's lease, a
running one for every child that it awaits: several, if its agent asks for several at once.  A
cycle is a way from whom one is about to wait for back to oneself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast._core.turns import State
from holdfast.backends.memory.rows import change, fetch_turn, guard
from holdfast.errors import DeadlockError
from holdfast.types import TurnId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast._core.settings import Lane
    from holdfast.backends.memory.world import World
    from holdfast.types import FencingToken, Turn

__all__ = ["refuse_cycle", "regain", "wait_for"]


def refuse_cycle(world: World, waiter: TurnId, child: TurnId, following: TurnId | None) -> None:
    """
    Args:
        following: whom *child* waits for.

    Raises:
        DeadlockError: *waiter* waits for *child*, and *child*, at whatever distance, for
            *waiter*.
    """
    ways = [] if following is None else [[following]]
    seen: set[TurnId] = set()
    while ways:
        way = ways.pop()
        if way[-1] == waiter:
            raise DeadlockError(cycle=[waiter, child, *way[:-1]])
        if way[-1] not in seen:
            seen.add(way[-1])
            turn = world.turns.get(way[-1])
            ways.extend(
                [*way, each] for each in ([] if turn is None else _blockers(world, turn))
            )


def _blockers(world: World, turn: Turn) -> list[TurnId]:
    """The turns that *turn* waits for."""
    if turn.state == State.RUNNING.value:
        return [TurnId(each) for each in (turn.waits_for or "").split()]
    if turn.state != State.ACCEPTED.value:
        return []
    lease = world.leases.get(turn.session_id)
    blocker = turn.host or (None if lease is None else lease.turn_id)
    return [] if blocker is None else [blocker]


def wait_for(world: World, turn_id: TurnId, token: FencingToken, child: TurnId) -> None:
    """A running turn waits for the end of *child*, too: its slot goes back, its lease stays."""
    turn = guard(world, turn_id, token)
    awaited = fetch_turn(world, child)
    if child == turn_id:
        raise DeadlockError(cycle=[turn_id])
    for blocker in _blockers(world, awaited):
        refuse_cycle(world, turn_id, child, blocker)
    world.slots.pop(turn_id, None)
    world.wanted.pop(turn_id, None)
    all_of_them = " ".join(dict.fromkeys([*(turn.waits_for or "").split(), child]))
    change(world, turn_id, waits_for=all_of_them, slot_wanted=False)


def regain(
    world: World,
    turn_id: TurnId,
    token: FencingToken,
    lanes: Mapping[str, Lane],
    child: TurnId | None = None,
) -> bool:
    """Take a slot again.  False: none is free; the next one is ours, ahead of new turns."""
    turn = guard(world, turn_id, token)
    others = [each for each in (turn.waits_for or "").split() if each != child]
    if child is not None and others:
        change(world, turn_id, waits_for=" ".join(others))
        return True
    if turn_id not in world.slots:
        lane = lanes.get(turn.lane)
        used = sum(each == turn.lane for each in world.slots.values())
        if lane is not None and used >= lane.concurrency:
            world.wanted[turn_id] = turn.lane
            change(world, turn_id, waits_for=None, slot_wanted=True)
            return False
    world.slots[turn_id] = turn.lane
    world.wanted.pop(turn_id, None)
    change(world, turn_id, waits_for=None, slot_wanted=False)
    return True
