"""
Every turn ends, in exactly one outcome, and none is attempted without bound.

Method: the table is finite and so is what can happen to a turn, so the joint states of turn
and world are all visited, breadth first.  `World` keeps its own books (who holds the lease,
how often the model was called) and never looks at the table.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import pytest

from holdfast._core import turns
from holdfast._core.turns import OUTCOMES, TABLE, Event, State

if TYPE_CHECKING:
    from collections.abc import Iterator

ATTEMPTS_MAX, RERUNS_MAX, BLOCKS_MAX = 3, 1, 2


@dataclass(frozen=True, slots=True)
class World:
    state: State = State.ACCEPTED
    outcome: str | None = None
    attempts: int = 0
    bound: bool = False
    leased: bool = False  #: The truth about the lease.
    final_entry: bool = False  #: The truth about the transcript.
    reruns: int = 0
    blocked: int = 0  #: How often the write lock was not had: bounded by the world's mood.
    started: int = 0  #: How often a model may have been called.


def after(world: World, event: Event, outcome: str | None = None) -> World:
    row = turns.step(world.state, event, outcome)
    leased = row.to is State.RUNNING
    return replace(
        world,
        state=row.to,
        outcome=outcome or world.outcome,
        attempts=world.attempts + row.attempts,
        leased=leased,
    )


def moves(world: World) -> Iterator[World]:
    match world.state:
        case State.ACCEPTED:
            yield replace(after(world, Event.LEASE), started=world.started + 1)
            yield after(world, Event.END, "cancelled")
            if world.bound:
                yield after(world, Event.END, "failed")
        case State.RUNNING:
            yield from running(world)
        case State.COMMITTED:
            yield after(world, Event.SETTLE, "replied")


def running(world: World) -> Iterator[World]:
    if world.final_entry:  # Whoever comes next books it; nothing else may happen.
        yield after(world, Event.COMMIT, "replied")
        return
    yield replace(world, final_entry=True)
    for outcome in ("silent", "failed", "cancelled"):
        yield after(world, Event.END, outcome)
    loss = turns.after_loss(
        reason="owner_died",
        attempts=world.attempts,
        attempts_max=ATTEMPTS_MAX,
        bound=world.bound,
    )
    yield after(world, loss.event, loss.outcome)
    if world.reruns < RERUNS_MAX:
        yield replace(after(world, Event.GIVE_BACK), reruns=world.reruns + 1)
    if world.blocked < BLOCKS_MAX:
        yield replace(after(world, Event.GIVE_BACK), blocked=world.blocked + 1)


def check(world: World) -> None:
    assert world.leased == (world.state is State.RUNNING), "a lease that nobody gives back"
    assert 0 <= world.attempts <= ATTEMPTS_MAX
    assert world.started <= ATTEMPTS_MAX + RERUNS_MAX + BLOCKS_MAX, "a turn that loops"
    ended = world.state in {State.COMMITTED, State.DONE}
    assert (world.outcome is not None) == ended
    if world.final_entry and ended:
        assert world.outcome == "replied", "a reply in the transcript that its row denies"
    if world.state is State.DONE:
        assert not list(moves(world)), "an outcome that can change"
    else:
        assert list(moves(world)), "a turn that nothing can end"


def explore(start: World) -> set[World]:
    seen, queue = {start}, deque([start])
    while queue:
        here = queue.popleft()
        check(here)
        for there in moves(here):
            if there not in seen:
                seen.add(there)
                queue.append(there)
    return seen


@pytest.mark.parametrize("bound", [False, True])
def test_every_reachable_turn_is_sound(bound: bool) -> None:
    seen = explore(World(bound=bound))
    assert {world.state for world in seen} == set(State), "a state nobody can reach"


def test_a_turn_without_its_process_ends() -> None:
    """A bound turn is never put back for others: nobody else can run it."""
    for attempts in range(1, ATTEMPTS_MAX + 1):
        loss = turns.after_loss(
            reason="owner_died", attempts=attempts, attempts_max=ATTEMPTS_MAX, bound=True
        )
        assert loss == turns.Loss(Event.END, "failed", "owner_died")


def test_a_turn_that_kills_its_process_ends_after_its_attempts() -> None:
    fates = [
        turns.after_loss(reason="owner_died", attempts=n, attempts_max=3, bound=False).event
        for n in (1, 2, 3)
    ]
    assert fates == [Event.REQUEUE, Event.REQUEUE, Event.END]


def test_every_outcome_can_be_reached_from_somewhere() -> None:
    reachable = {o for row in TABLE.values() for cell in row.values() for o in cell.outcomes}
    assert reachable == set(OUTCOMES)


def test_a_blank_cell_changes_nothing_and_says_so() -> None:
    for state, event in product(State, Event):
        if event not in TABLE[state]:
            with pytest.raises(AssertionError, match=event.value):
                turns.step(state, event)


def test_only_replied_ends_a_committed_turn() -> None:
    with pytest.raises(AssertionError):
        turns.step(State.COMMITTED, Event.SETTLE, "failed")
