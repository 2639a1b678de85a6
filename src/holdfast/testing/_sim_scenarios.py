"""
The scenarios: who is there, what may befall them, and what must be true in the end.

Each is made anew from a seed.  `STORMS` are run by seeds; `SMALL` are small enough that
every schedule of theirs, up to a number of preemptions, can be visited.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

from holdfast.backends.files import identity
from holdfast.backends.files.lock import gate
from holdfast.testing._sim_programs import (
    TRANSCRIPT,
    Writer,
    last_one,
    operator,
    remover,
    stranger,
    visitor,
)
from holdfast.testing._sim_schedule import by_lot, explore
from holdfast.testing._sim_storm import KINDS, Storm
from holdfast.testing._sim_turns import Turns
from holdfast.testing._sim_world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.testing._sim_process import Process
    from holdfast.testing._sim_schedule import Choices, Policy

__all__ = ["SMALL", "STORMS", "Explored", "Outcome", "explore_small", "run_storm"]

CLAIM: Final = f"{TRANSCRIPT}.lock"
HEADER: Final = b'{"type":"session","version":3,"id":"sim","text":"header-0"}\n'


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one run."""

    scenario: str
    seed: int
    broken: str | None  #: None: everything held.
    steps: int
    acquired: int
    appended: int
    struck: dict[str, int] = field(default_factory=dict)
    trace: tuple[str, ...] = ()


def _transcript(world: World) -> None:
    """A session's file, as it stands before anybody comes."""
    world.disk.mkdir("/s", 0o700, 0)
    fd = world.kernel.open(TRANSCRIPT, os.O_WRONLY | os.O_CREAT, 0o600)
    world.kernel.write(fd, HEADER)
    world.kernel.fsync(fd)
    world.kernel.close(fd)
    world.disk.sync(world.disk.find("/s"))
    world.oracle.setting_out("header-0").said = "done"
    world.oracle.watch(TRANSCRIPT)


def _scatter(world: World, process: Process) -> None:
    """Clocks that started somewhere, and run a little fast or slow."""
    process.offset_ns = world.lots.randrange(10**15)
    process.rate = 1.0 + world.lots.choice((0.0, 0.0, 0.01, -0.01, 0.1, -0.1))
    process.wall_step_ns = world.lots.randrange(-(10**12), 10**12)


def _reborn(world: World, process: Process) -> None:
    """A killed writer is started again, now and then under its old pid."""
    lots = world.lots
    if not isinstance(process.threads[0].body, Writer) or lots.random() < 0.3:
        return
    old = process.threads[0].body
    name = f"{old.name}+"
    writer = Writer(world, name, rounds=1, timeout_s=old.timeout_s, max_hold_ms=old.max_hold_ms)
    pid = process.pid if lots.random() < 0.3 else None
    reborn = world.spawn(name, writer, pid=pid, after_s=lots.random() * 0.1)
    _scatter(world, reborn)


# ------------------------------------------------------------------ storms


def _writers(world: World, *, least: int = 2, most: int = 4) -> None:
    lots = world.lots
    for number in range(lots.randint(least, most)):
        name = f"w{number}"
        writer = Writer(world, name, rounds=lots.randint(1, 3))
        writer.timeout_s = lots.choice((0.2, 4.0, 8.0))
        writer.pause_s = lots.choice((0.0, 0.001, 0.05))
        writer.hold_s = lots.choice((0.0, 0.0, 0.002))
        _scatter(world, world.spawn(name, writer))


def _ours(world: World) -> None:
    _writers(world)


def _overstaying(world: World) -> None:
    """Holds are longer than they promise: the watchdog is at work."""
    lots = world.lots
    for number in range(lots.randint(2, 3)):
        writer = Writer(world, f"w{number}", rounds=2, max_hold_ms=lots.choice((5, 20)))
        writer.hold_s = lots.choice((0.0, 0.004, 0.03))
        _scatter(world, world.spawn(writer.name, writer))


def _with_strangers(world: World) -> None:
    _writers(world, most=3)
    for number in range(world.lots.randint(1, 2)):
        name = f"stranger{number}"
        _scatter(world, world.spawn(name, stranger(world, name), command="node openclaw"))


def _with_removers(world: World) -> None:
    world.oracle.lawful = False
    _with_strangers(world)
    world.spawn("remover", remover(world, "remover"), command="node openclaw")


def _remove_claim(world: World) -> None:
    """An operator's rm, in between two calls."""
    world.oracle.lawful = False
    if CLAIM.rpartition("/")[2] in world.disk.find("/s").names:
        world.disk.unlink(CLAIM)


def _turns(world: World) -> None:
    """Messages are answered by runners that are stopped and killed; tokens move on."""
    turns = Turns(world, turns=world.lots.randint(1, 3))
    world.spawn("admitter", turns.admitter)
    for number in range(world.lots.randint(2, 3)):
        runner = world.spawn(f"runner{number}", turns.runner)
        _scatter(world, runner)
        runner.wall_step_ns = 0  # One machine; when a turn is tried again is wall-clock time.


@dataclass(frozen=True, slots=True)
class Scenario:
    """How one is built, and what its storm may do."""

    build: Callable[[World], None]
    kinds: tuple[str, ...] = KINDS
    torn: bool = True


STORMS: Final[dict[str, Scenario]] = {
    "calm": Scenario(_ours, (), torn=False),
    "ours": Scenario(_ours),
    "operator": Scenario(_ours, (*KINDS, "rm")),
    "overstaying": Scenario(_overstaying, ("freeze", "freeze", "crash", "error")),
    "strangers": Scenario(_with_strangers, ("freeze", "crash", "error", "wall", "short")),
    # A stranger's half line is not theirs to end: who appends to it loses its own.
    "removers": Scenario(_with_removers, ("freeze", "crash", "error", "wall")),
    "turns": Scenario(_turns, ("crash", "freeze", "freeze", "error", "tear")),
}


def run_storm(
    name: str, seed: int, *, traced: bool = False, policy: Policy | None = None
) -> Outcome:
    """One seed of one scenario, to its end.  Never raises: what went wrong is in `broken`."""
    scenario = STORMS[name]
    plan = Random(seed * 1_000_003 + 7)  # noqa: S311
    storm = Storm(plan, scenario.kinds, special={"rm": _remove_claim}, died=_reborn)
    chosen = policy or by_lot(Random(seed * 1_000_033 + 11))  # noqa: S311
    world = World(seed, chosen, storm=storm, traced=traced)
    world.oracle.torn = scenario.torn
    with world.installed():
        _transcript(world)
        scenario.build(world)
        world.run()
        world.strike_at = -1
        if world.broken is None:
            turns = world.oracle.turns
            world.spawn("last", last_one(world) if turns is None else turns.runner)
            world.run()
            world.spawn("visitor", visitor(world))  # The last one may have had nothing to do.
            world.run()
        if world.broken is None:
            world.oracle.final(litter=bool(storm.struck))
    return _outcome(name, seed, world, storm.struck)


def _outcome(name: str, seed: int, world: World, struck: dict[str, int]) -> Outcome:
    oracle = world.oracle
    return Outcome(
        name, seed, world.broken, world.steps, oracle.acquired_count, oracle.appended_count,
        struck, tuple(world.trace or ()),
    )  # fmt: skip


# ------------------------------------------------------------------ small ones


def _dead_claim(world: World) -> None:
    """A claim of ours whose owner is dead, published from the spare as claims are."""
    about = {
        "pid": 99, "createdAt": "2026-01-01T00:00:00.000Z", "maxHoldMs": 30_000,
        "starttime": 7, "host": "sim", "bootId": f"00000000-0000-4000-8000-{1:012d}",
        "pidNamespace": 4_026_531_836, "claimId": "feedfeedfeedfeed-1",
    }  # fmt: skip
    fd = world.kernel.open(f"{TRANSCRIPT}.claim", os.O_RDWR | os.O_CREAT, 0o600)
    world.kernel.pwrite(fd, (json.dumps(about, indent=2) + "\n").encode().ljust(1021), 0)
    world.kernel.close(fd)
    world.kernel.link(f"{TRANSCRIPT}.claim", CLAIM)


def _writer(world: World, name: str, rounds: int = 1) -> None:
    writer = Writer(world, name, rounds=rounds, pause_s=0.0, patient=world.oracle.lawful)
    process = world.spawn(name, writer)
    _warm(world, process)


def _warm(world: World, process: Process) -> None:
    """Let it know who it is beforehand: those calls are nobody else's business."""
    world.process.exit()
    before, world.process = world.process, process
    process.enter()
    identity.me()
    process.exit()
    world.process = before
    before.enter()


def _two_on_a_dead_claim(world: World) -> None:
    _dead_claim(world)
    _writer(world, "a")
    _writer(world, "b")


def _three_on_a_dead_claim(world: World) -> None:
    _two_on_a_dead_claim(world)
    _writer(world, "c")


def _release_against_acquire(world: World) -> None:
    _writer(world, "a", rounds=2)
    _writer(world, "b")


def _against_a_stranger(world: World) -> None:
    _writer(world, "a")
    world.spawn("stranger", stranger(world, "stranger", rounds=1), command="node peer")


def _stranger_on_a_dead_claim(world: World) -> None:
    _dead_claim(world)
    _against_a_stranger(world)


def _dead_claim_replaced(world: World) -> None:
    """While ours judges the dead claim, somebody removes it and a stranger makes its own."""
    world.oracle.lawful = False
    world.oracle.spares_strangers = True
    _dead_claim(world)
    _writer(world, "a")
    world.spawn("operator", operator(1), command="rm")
    world.spawn("stranger", stranger(world, "stranger", rounds=1), command="node peer")


def _against_rm(world: World) -> None:
    world.oracle.lawful = False
    _dead_claim(world)
    _writer(world, "a")
    _writer(world, "b")
    world.spawn("operator", operator(2), command="rm")


@dataclass(frozen=True, slots=True)
class Small:
    build: Callable[[World], None]
    preemptions: int
    in_order: bool = True  #: False: the gate is passed over at once, the latch is alone.


SMALL: Final[dict[str, Small]] = {
    "two-on-a-dead-claim": Small(_two_on_a_dead_claim, 2),
    "two-on-a-dead-claim-without-order": Small(_two_on_a_dead_claim, 2, in_order=False),
    "three-on-a-dead-claim": Small(_three_on_a_dead_claim, 1),
    "three-on-a-dead-claim-without-order": Small(_three_on_a_dead_claim, 1, in_order=False),
    "release-against-acquire": Small(_release_against_acquire, 2),
    "release-against-acquire-without-order": Small(_release_against_acquire, 2, in_order=False),
    "against-a-stranger": Small(_against_a_stranger, 2),
    "stranger-on-a-dead-claim": Small(_stranger_on_a_dead_claim, 2),
    "dead-claim-replaced": Small(_dead_claim_replaced, 2),
    "against-rm": Small(_against_rm, 1, in_order=False),
}


@dataclass(frozen=True, slots=True)
class Explored:
    """How many schedules of a small scenario were visited, and the one that broke it."""

    scenario: str
    preemptions: int
    schedules: int
    whole: bool  #: Every schedule within the bound; False: stopped before.
    broken: str | None = None
    script: tuple[int, ...] = ()


def run_small(name: str, policy: Policy, *, traced: bool = False) -> Outcome:
    """One schedule of a small scenario."""
    small = SMALL[name]
    world = World(1, policy, traced=traced)
    # A call takes a hundredth of what it really does, so that nobody who sleeps wakes in
    # the middle of somebody else's: who is interrupted where is the script's choice alone.
    world.call_ns, world.steps_max = 100, 20_000
    patience = gate.PATIENCE_S, gate.PATIENCE_STEP_S
    try:
        if not small.in_order:
            gate.PATIENCE_S = gate.PATIENCE_STEP_S = 0.0  # type: ignore[misc]
        with world.installed():
            _transcript(world)
            small.build(world)
            world.run()
            if world.broken is None:
                world.spawn("last", last_one(world))
                world.run()
            if world.broken is None:
                world.oracle.final(litter=False)
    finally:
        gate.PATIENCE_S, gate.PATIENCE_STEP_S = patience  # type: ignore[misc]
    return _outcome(name, 1, world, {})


def explore_small(name: str, *, preemptions: int | None = None, most: int = 10**9) -> Explored:
    """Every schedule of a small scenario, up to a number of preemptions; or the first bad."""
    bound = SMALL[name].preemptions if preemptions is None else preemptions
    last: list[Outcome] = []
    schedules = 0

    def run(policy: Choices) -> None:
        last[:] = [run_small(name, policy)]

    for script in explore(run, preemptions=bound, most=most):
        schedules += 1
        if last[0].broken is not None:
            return Explored(name, bound, schedules, False, last[0].broken, tuple(script))
    return Explored(name, bound, schedules, whole=schedules < most)
