"""
An attempt gives everything back, whatever the world answers and whenever it is disposed of.

Method: all of it, not a sample.  `World` is what is really true and what our side has been
told; it performs the effects and never looks at the table.  The world may refuse an effect,
or perform it and be unable to say; contention may refuse a window's end; anybody may dispose
at any moment.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from holdfast._core import attempt as a
from holdfast._core.attempt import AttemptState, Effect, Life, Signal

if TYPE_CHECKING:
    from collections.abc import Iterator

S = AttemptState
CALLER = {
    S.NEW: (Signal.ENTER,),
    S.HELD: (Signal.PROMPT, Signal.REST),
    S.WINDOW: (Signal.BACK, Signal.DRIFT),
    S.PLACED: (Signal.PROMPT, Signal.REST),
    S.ADRIFT: (Signal.BACK,),
    S.RESTING: (Signal.BACK,),
    S.RESTING_PLACED: (Signal.BACK,),
}
#: What each state waits for.
AWAITS = {
    S.ENTERING: Effect.ACQUIRE,
    S.JOINING: Effect.JOIN,
    S.YIELDING: Effect.OPEN,
    S.IN_LINE: Effect.WAIT,
    S.REJOINING: Effect.CLOSE,
    S.OPENING: Effect.OPEN,
    S.RETURNING: Effect.CLOSE,
    S.STEPPING: Effect.OPEN,
    S.RESUMING: Effect.CLOSE,
    S.STEPPING_PLACED: Effect.OPEN,
    S.RESUMING_PLACED: Effect.CLOSE,
    S.LEAVING: Effect.RELEASE,
}
LATE_MAX = 2


@dataclass(frozen=True, slots=True)
class World:
    state: AttemptState = S.NEW
    disposing: bool = False
    in_flight: Effect | None = None
    locked: bool = False  #: The truth.
    told: Literal["held", "free", "unsure"] = "free"
    place: Literal["none", "queued", "first"] = "none"
    given_up: int = 0  #: Places vacated that were ours.
    marked: bool = False
    prompted: bool = False  #: The caller has asked for a prompt window.
    wanted: Signal | None = None  #: What the caller last asked for.
    opened: Signal | None = None  #: PROMPT or REST: what was last opened, or tried.
    fresh: bool = False  #: Nobody's window has been before ours since the mark was left.
    broken: bool = False  #: An effect failed for good.
    late: int = 0
    leaked: bool = False


def moves(world: World) -> Iterator[World]:
    yield after(world, None)
    if world.in_flight is None:
        for signal in CALLER.get(world.state, ()):
            prompted = world.prompted or signal is Signal.PROMPT
            opened = signal if signal in {Signal.PROMPT, Signal.REST} else world.opened
            yield after(replace(world, prompted=prompted, wanted=signal, opened=opened), signal)
        return
    idle = replace(world, in_flight=None)
    free = replace(idle, locked=False, told="free")
    held = replace(idle, locked=True, told="held")
    broken = replace(free, broken=True)
    match world.in_flight:
        case Effect.ACQUIRE:
            assert world.told == "free", "asked for a lock it may already have"
            yield after(held, Signal.OK)
            yield after(broken, Signal.BAD)
            yield after(replace(held, told="unsure"), Signal.UNKNOWN)
            yield after(replace(free, told="unsure"), Signal.UNKNOWN)
        case Effect.RELEASE:
            assert world.told != "free", "released a lock it knows it does not hold"
            yield after(free, Signal.OK)
            yield after(idle, Signal.BAD)
            yield after(replace(free, told="unsure"), Signal.UNKNOWN)
            yield after(replace(idle, told="unsure"), Signal.UNKNOWN)
        case Effect.JOIN:
            assert world.place == "none", "stands in line twice"
            assert world.prompted, "a wait that is no prompt has joined the line"
            yield after(replace(idle, place="first"), Signal.OK)
            yield after(replace(idle, place="queued"), Signal.BUSY)
            yield after(idle, Signal.BAD)
        case Effect.WAIT:
            assert world.told == "free", "waits for others' windows with the lock held"
            assert world.place == "queued"
            yield after(replace(idle, place="first", fresh=False), Signal.OK)
            yield after(replace(broken, place="none"), Signal.BAD)
            yield after(broken, Signal.BAD)
        case Effect.OPEN:
            assert world.told == "held", "opens a window without the lock"
            yield after(replace(free, marked=True, fresh=True), Signal.OK)
            yield after(broken, Signal.BAD)
        case Effect.CLOSE:
            assert world.told == "free", "takes back a lock it has"
            assert world.marked, "compares with no mark"
            yield after(held, Signal.OK)
            yield after(broken, Signal.BAD)
            if world.late < LATE_MAX and Signal.LATE in a.TABLE[world.state]:
                yield after(replace(free, late=world.late + 1), Signal.LATE)


def after(world: World, signal: Signal | None) -> World:
    life = Life()
    life.state, life.disposing = world.state, world.disposing
    effects = life.dispose() if signal is None else life.receive(signal)
    for effect in effects:
        if effect is Effect.REPORT_LEAK:
            assert not world.leaked
            world = replace(world, leaked=True)
        elif effect is Effect.VACATE:
            assert world.told == "free" or world.leaked, "vacated with the lock still held"
            asked = world.prompted or world.state is S.LEAVING
            assert asked, "vacates a place that it never asked for"
            ours = world.place != "none"
            world = replace(world, place="none", given_up=world.given_up + ours)
        else:
            assert world.in_flight is None, "two effects in flight"
            world = replace(world, in_flight=effect)
    return replace(world, state=life.state, disposing=life.disposing)


def check(world: World) -> None:
    state, settled = world.state, world.in_flight is None
    assert settled == (state in CALLER or state is S.GONE), "nobody owes an answer"
    assert world.in_flight is AWAITS.get(state), "takes one answer for another"
    assert not (settled and world.broken) or state is S.GONE, "goes on after a failure"
    assert world.given_up <= 1
    if state is S.GONE:
        assert world.place == "none", "everybody behind it waits for ever"
        assert world.leaked == (world.told != "free"), "a silent leak"
        return
    assert not world.leaked
    assert not (settled and world.disposing), "disposed of, and goes on"
    if settled:
        assert (state in a.HOLDS) == (world.told == "held") == world.locked
        assert (state in a.HAS_PLACE) == (world.place != "none")
        assert world.place != "queued", "waits in line for nobody"
        landings = {
            Signal.ENTER: {S.HELD},
            Signal.PROMPT: {S.WINDOW, S.ADRIFT, S.HELD},
            Signal.REST: {S.RESTING, S.RESTING_PLACED},
            Signal.BACK: {S.HELD, S.PLACED, S.ADRIFT, S.RESTING, S.RESTING_PLACED},
            Signal.DRIFT: {S.ADRIFT},
            None: {S.NEW},
        }
        assert state in landings[world.wanted]
        assert (world.place == "first") <= world.prompted
    if state in {S.WINDOW, S.ADRIFT}:
        assert world.opened is Signal.PROMPT
    if state in {S.RESTING, S.RESTING_PLACED}:
        assert world.opened is Signal.REST
    if state is S.WINDOW:
        assert world.fresh, "a prompt built on what stood before others' windows"
        assert world.place == "first", "a model talks inside somebody else's window"


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


def whole(seen: set[World]) -> None:
    reached = {world.state for world in seen}
    assert reached == set(S), f"nobody can reach {set(S) - reached}"
    calm = {w.state for w in seen if not w.disposing}
    assert calm >= set(CALLER) | {S.IN_LINE, S.LEAVING}, "reached only by being disposed of"
    assert {w.wanted for w in seen if w.state is S.HELD} >= {Signal.ENTER, Signal.BACK}
    assert {w.wanted for w in seen if w.state is S.PLACED} == {Signal.BACK}
    late = {w.state for w in seen if w.late and not w.disposing}
    assert late >= {S.ADRIFT, S.RESTING, S.RESTING_PLACED, S.PLACED}, "contention is final"


def test_every_reachable_world_is_sound() -> None:
    whole(explore())


def test_from_everywhere_it_can_be_over() -> None:
    """Disposed of, and with every effect answered, it ends; in bounded steps."""
    for world in explore():
        here, steps = after(world, None), 0
        while here.in_flight is not None:
            here = next(iter(list(moves(here))[1:]))  # The effect happened.
            steps += 1
            assert steps <= 2, world
        assert here.state is S.GONE


def test_every_cell_matters() -> None:
    """Each cell sent elsewhere, or given another effect, is noticed: no cell is idle."""
    effect_lists = {effects for row in a.TABLE.values() for _, effects in row.values()}
    assert not noticed(), "it is wrong without a mutant already"
    survivors = []
    table = {state: dict(row) for state, row in a.TABLE.items()}
    original = a.TABLE
    a.TABLE = table  # type: ignore[misc]
    try:
        for state, row in original.items():
            for signal, (landing, effects) in row.items():
                mutants = [(to, effects) for to in S if to is not landing]
                mutants += [(landing, other) for other in effect_lists if other != effects]
                for mutant in mutants:
                    table[state][signal] = mutant
                    if not noticed():
                        survivors.append((state.name, signal.name, mutant))
                table[state][signal] = (landing, effects)
    finally:
        a.TABLE = original  # type: ignore[misc]
    assert survivors == []


def noticed() -> bool:
    try:
        whole(explore())
        test_from_everywhere_it_can_be_over()
    except Exception:
        return True
    return False
