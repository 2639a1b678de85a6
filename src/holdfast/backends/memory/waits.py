"""
Turns that wait for turns.

Every turn waits for one other at most: a merged one for its host, a waiting one for the turn
that holds its session's lease, a running one for the child that it awaits.  So a cycle is
found by following one chain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast._core.turns import State
from holdfast.backends.memory.rows import change, fetch_turn, guard
from holdfast.errors import DeadlockError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast._core.settings import Lane
    from holdfast.backends.memory.world import World
    from holdfast.types import FencingToken, Turn, TurnId

__all__ = ["refuse_cycle", "regain", "wait_for"]


def refuse_cycle(world: World, waiter: TurnId, child: TurnId, following: TurnId | None) -> None:
    """
    Args:
        following: whom *child* waits for.

    Raises:
        DeadlockError: *waiter* waits for *child*, and *child*, at whatever distance, for
            *waiter*.
    """
    cycle = [waiter, child]
    while following is not None and following not in cycle:
        cycle.append(following)
        turn = world.turns.get(following)
        following = None if turn is None else _blocker(world, turn)
    if following == waiter:
        raise DeadlockError(cycle=[*cycle])


def _blocker(world: World, turn: Turn) -> TurnId | None:
    """The turn that *turn* waits for."""
    if turn.state == State.RUNNING.value:
        return turn.waits_for
    if turn.state != State.ACCEPTED.value:
        return None
    lease = world.leases.get(turn.session_id)
    return turn.host or (None if lease is None else lease.turn_id)


def wait_for(world: World, turn_id: TurnId, token: FencingToken, child: TurnId) -> None:
    """A running turn waits for the end of *child*: its slot goes back, its lease stays."""
    guard(world, turn_id, token)
    awaited = fetch_turn(world, child)
    if child == turn_id:
        raise DeadlockError(cycle=[turn_id])
    refuse_cycle(world, turn_id, child, _blocker(world, awaited))
    world.slots.pop(turn_id, None)
    world.wanted.pop(turn_id, None)
    change(world, turn_id, waits_for=child, slot_wanted=False)


def regain(
    world: World, turn_id: TurnId, token: FencingToken, lanes: Mapping[str, Lane]
) -> bool:
    """Take a slot again.  False: none is free; the next one is ours, ahead of new turns."""
    turn = guard(world, turn_id, token)
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
