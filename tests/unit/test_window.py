"""
A prompt window gives everything back, whatever the world answers, and never appends over a
transcript that was rewritten.

Method: all of it, not a sample.  `World` is what is really true and what our side has been
told; it performs the window's effects and never looks at its table.  The world may refuse an
effect, or perform it and then be unable to say; the write lock may be slow; strangers may
append or rewrite whenever the lock is free; the operator may abort at any moment.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Literal

from holdfast._core import window as w
from holdfast._core.window import Effect, Signal, State, Window

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLER = {State.HELD: Signal.OPEN, State.OPEN: Signal.CLOSE}
SLOW_MAX = 2


@dataclass(frozen=True, slots=True)
class World:
    state: State = State.HELD
    aborting: bool = False
    in_flight: Effect | None = None
    locked: bool = True  #: The truth.
    told: Literal["held", "free", "unsure"] = "held"
    marked: bool = False
    appended: bool = False  #: A stranger appended behind our mark.
    rewritten: bool = False  #: A stranger rewrote what our mark stands on.
    stopping: bool = False
    kept: int = 0
    slow: int = 0
    leaked: bool = False
    finished: bool = False  #: The caller has closed the window: a reply exists.


def moves(world: World) -> Iterator[World]:
    if not world.locked and world.state not in w.FINAL:
        yield replace(world, appended=True)
        yield replace(world, rewritten=True)
    yield after(replace(world, stopping=world.state not in w.FINAL), None)
    if world.in_flight is None:
        if world.state in CALLER:
            closing = world.state is State.OPEN
            yield after(replace(world, finished=closing), CALLER[world.state])
        return
    idle = replace(world, in_flight=None)
    match world.in_flight:
        case Effect.TAKE_MARK:
            assert world.told == "held", "marked without the lock"
            yield after(replace(idle, marked=True), Signal.OK)
            yield after(idle, Signal.BAD)
        case Effect.COMPARE:
            assert world.told == "held", "compared without the lock"
            if world.rewritten:
                yield after(idle, Signal.REWRITTEN)
            else:
                yield after(idle, Signal.APPENDED if world.appended else Signal.OK)
            yield after(idle, Signal.BAD)
        case Effect.ACQUIRE:
            assert world.told == "free", "asked for a lock it may already have"
            yield after(replace(idle, locked=True, told="held"), Signal.OK)
            yield after(idle, Signal.BAD)
            if world.slow < SLOW_MAX:
                yield after(replace(idle, slow=world.slow + 1), Signal.SLOW)
            yield after(replace(idle, locked=True, told="unsure"), Signal.UNKNOWN)
            yield after(replace(idle, told="unsure"), Signal.UNKNOWN)
        case Effect.RELEASE:
            assert world.told != "free", "released a lock it knows it does not hold"
            yield after(replace(idle, locked=False, told="free"), Signal.OK)
            yield after(idle, Signal.BAD)
            yield after(replace(idle, locked=False, told="unsure"), Signal.UNKNOWN)
            yield after(replace(idle, told="unsure"), Signal.UNKNOWN)


def after(world: World, signal: Signal | None) -> World:
    window = Window()
    window.state, window.aborting = world.state, world.aborting
    effects = window.abort() if signal is None else window.receive(signal)
    for effect in effects:
        if effect is Effect.REPORT_LEAK:
            world = replace(world, leaked=True)
        elif effect is Effect.KEEP:
            assert world.finished, "kept a reply that does not exist"
            world = replace(world, kept=world.kept + 1)
        else:
            assert world.in_flight is None, "two effects in flight"
            world = replace(world, in_flight=effect)
    return replace(world, state=window.state, aborting=window.aborting)


def check(world: World) -> None:
    state, final = world.state, world.state in w.FINAL
    assert world.leaked == (state is State.LEFT and world.told != "free"), "a silent leak"
    if state is State.OPEN:
        assert not world.locked, "the lock was held while a model talks"
        assert world.marked, "spent a model call that could never be compared"
    if state is State.RETURNED:
        assert world.locked
        assert not world.rewritten, "appends over a rewritten transcript"
    assert not (world.stopping and state in {State.OPEN, State.RETURNED})
    if not world.leaked:
        assert (state in w.HOLDS) == (world.told != "free"), "HOLDS is not what the world says"
    waits = not final and state not in CALLER
    assert waits == (world.in_flight is not None), "waits for an answer that nobody owes"
    assert world.kept <= world.slow


def explore() -> set[World]:
    seen, queue = {World()}, deque([World()])
    while queue:
        here = queue.popleft()
        check(here)
        for there in moves(here):
            if there not in seen:
                seen.add(there)
                queue.append(there)
    return seen


def test_every_reachable_world_is_sound() -> None:
    seen = explore()
    assert {world.state for world in seen} == set(State), "a state nobody can reach"
    assert any(world.kept for world in seen), "a slow lock never keeps the reply"


def test_every_window_ends() -> None:
    """Only a slow lock may repeat a state; every other answer moves on."""
    edges: dict[State, set[State]] = {state: set() for state in State}
    for state, row in w.TABLE.items():
        for signal, (landing, _) in row.items():
            if landing is state:
                assert signal is Signal.SLOW
            else:
                edges[state].add(landing)
    TopologicalSorter(edges).prepare()  # Raises CycleError.


def test_every_cell_matters() -> None:
    """
    Mutants: send each cell to every other state, and with every other effect list.

    All of them must be noticed by the exploration; a survivor would be a cell that no
    check looks at.
    """
    effect_lists = {effects for row in w.TABLE.values() for _, effects in row.values()}
    assert not noticed(), "it is wrong without a mutant already"
    survivors = []
    table = {state: dict(row) for state, row in w.TABLE.items()}
    original = w.TABLE
    w.TABLE = table  # type: ignore[misc]
    try:
        for state, row in original.items():
            for signal, (landing, effects) in row.items():
                mutants = [(to, effects) for to in State if to is not landing]
                mutants += [(landing, other) for other in effect_lists if other != effects]
                for mutant in mutants:
                    table[state][signal] = mutant
                    if not noticed():
                        survivors.append((state.name, signal.name, mutant))
                table[state][signal] = (landing, effects)
    finally:
        w.TABLE = original  # type: ignore[misc]
    assert survivors == []


def noticed() -> bool:
    try:
        seen = explore()
        assert {world.state for world in seen} == set(State)
        assert any(world.kept for world in seen)
        test_every_window_ends()
    except Exception:
        return True
    return False
