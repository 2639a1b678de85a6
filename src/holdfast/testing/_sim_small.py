"""
Small scenarios: every schedule of theirs, up to a number of preemptions, can be visited.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.backends.files import identity
from holdfast.backends.files.lock import gate
from holdfast.testing._sim_programs import TRANSCRIPT, Writer, last_one, operator, stranger
from holdfast.testing._sim_scenarios import outcome_of, transcript
from holdfast.testing._sim_schedule import explore
from holdfast.testing._sim_world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.testing._sim_process import Process
    from holdfast.testing._sim_scenarios import Outcome
    from holdfast.testing._sim_schedule import Choices, Policy

__all__ = ["SMALL", "Explored", "explore_small", "run_small"]

CLAIM: Final = f"{TRANSCRIPT}.lock"


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
            transcript(world)
            small.build(world)
            world.run()
            if world.broken is None:
                world.spawn("last", last_one(world))
                world.run()
            if world.broken is None:
                world.oracle.final(litter=False)
    finally:
        gate.PATIENCE_S, gate.PATIENCE_STEP_S = patience  # type: ignore[misc]
    return outcome_of(name, 1, world, {})


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
