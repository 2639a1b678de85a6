"""
The scenarios: who is there, what may befall them, and what must be true in the end.

Each is made anew from a seed.  `STORMS` are run by seeds; those of `_sim_small` are small
enough that every schedule of theirs can be visited.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

from holdfast.testing._sim_programs import (
    TRANSCRIPT,
    Writer,
    last_one,
    remover,
    stranger,
    visitor,
)
from holdfast.testing._sim_schedule import by_lot
from holdfast.testing._sim_storm import FROZEN_S, HORIZON, KINDS, Storm
from holdfast.testing._sim_turns import Turns
from holdfast.testing._sim_whole import AIMS, Whole
from holdfast.testing._sim_world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.testing._sim_process import Process
    from holdfast.testing._sim_schedule import Policy

__all__ = ["STORMS", "Outcome", "outcome_of", "run_storm", "transcript"]

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
    ended: dict[str, int] = field(default_factory=dict)  #: Outcomes of whole turns.
    trace: tuple[str, ...] = ()


def transcript(world: World) -> None:
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


def _whole(world: World) -> None:
    """Whole processes, with everything that Holdfast is to an embedder."""
    world.disk.mkdir("/s", 0o700, 0)
    world.disk.sync(world.disk.root)
    Whole(world)


@dataclass(frozen=True, slots=True)
class Scenario:
    """How one is built, and what its storm may do."""

    build: Callable[[World], None]
    kinds: tuple[str, ...] = KINDS
    torn: bool = True
    horizon: int = HORIZON
    frozen_s: tuple[float, ...] = FROZEN_S
    aims: tuple[str, ...] = ()
    file: bool = True  #: There is one transcript, that processes write to directly.


STORMS: Final[dict[str, Scenario]] = {
    "calm": Scenario(_ours, (), torn=False),
    "ours": Scenario(_ours),
    "operator": Scenario(_ours, (*KINDS, "rm")),
    "overstaying": Scenario(_overstaying, ("freeze", "freeze", "crash", "error")),
    "strangers": Scenario(_with_strangers, ("freeze", "crash", "error", "wall", "short")),
    # A stranger's half line is not theirs to end: who appends to it loses its own.
    "removers": Scenario(_with_removers, ("freeze", "crash", "error", "wall")),
    "turns": Scenario(_turns, ("crash", "freeze", "freeze", "error", "tear")),
    "whole": Scenario(
        _whole, (*KINDS, "crash", "freeze", "full"), horizon=6_000,
        frozen_s=(0.003, 0.06, 0.5, 2.0, 5.0), aims=AIMS, file=False,
    ),
}  # fmt: skip


def run_storm(
    name: str, seed: int, *, traced: bool = False, policy: Policy | None = None
) -> Outcome:
    """One seed of one scenario, to its end.  Never raises: what went wrong is in `broken`."""
    scenario = STORMS[name]
    plan = Random(seed * 1_000_003 + 7)  # noqa: S311
    storm = Storm(
        plan, scenario.kinds, special={"rm": _remove_claim}, died=_reborn,
        horizon=scenario.horizon, frozen_s=scenario.frozen_s, aims=scenario.aims,
    )  # fmt: skip
    chosen = policy or by_lot(Random(seed * 1_000_033 + 11))  # noqa: S311
    world = World(seed, chosen, storm=storm, traced=traced)
    world.oracle.torn = scenario.torn
    with world.installed():
        if scenario.file:
            transcript(world)
        scenario.build(world)
        world.run()
        world.strike_at, world.full_until_ns = -1, 0
        if world.broken is None:
            turns = world.oracle.turns
            world.spawn("last", last_one(world) if turns is None else turns.runner)
            world.run()
            world.spawn("visitor", visitor(world))  # The last one may have had nothing to do.
            world.run()
        if world.broken is None:
            world.oracle.final(litter=bool(storm.struck))
    return outcome_of(name, seed, world, storm.struck)


def outcome_of(name: str, seed: int, world: World, struck: dict[str, int]) -> Outcome:
    oracle = world.oracle
    return Outcome(
        name, seed, world.broken, world.steps, oracle.acquired_count, oracle.appended_count,
        struck, dict(getattr(oracle.turns, "outcomes", {})), tuple(world.trace or ()),
    )  # fmt: skip
