"""
The simulator: the real lock code in a world that can be stopped, broken and replayed.

    python -m holdfast.testing.sim --seed 4711 --scenario ours     one run, with its trace
    python -m holdfast.testing.sim --minutes 30 --workers 2        as many as fit
    python -m holdfast.testing.sim --small two-on-a-dead-claim     every schedule of it

Simulated processes run `holdfast.backends.files` over a simulated kernel and disk, each with
its own clock, descriptors and globals.  Every system call is a point where another process
may run, and where a crash, a stop, a failing call or a clock set off may strike.  What must
never happen is looked at after every step; when the storm is over, whoever comes must get
the lock.  Every second seed is `whole`: whole processes, and the promises about their turns;
there control is in memory, and what is left when the storm is over must end.  A seed is a
run: the same seed takes the same steps, byte for byte.

Needs greenlet: ``pip install 'holdfast[sim]'``.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import time
from collections import Counter, deque
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Final

from holdfast._core.settings import Settings
from holdfast.backends.memory.world import World as Control
from holdfast.testing._sim_scenarios import STORMS, Outcome, run_storm
from holdfast.testing._sim_schedule import Choices, Uniform
from holdfast.testing._sim_small import SMALL, Explored, explore_small, run_small
from holdfast.testing._sim_store import STATE, SimStore
from holdfast.testing._sim_world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

__all__ = [
    "SCENARIOS",
    "SMALL_SCENARIOS",
    "Explored",
    "Outcome",
    "command",
    "explore",
    "run",
    "scenario_of",
    "stores",
]

SCENARIOS: Final = tuple(STORMS)  #: By their names; a seed of any is a run.
PARTS: Final = tuple(name for name in SCENARIOS if name != "whole")
SMALL_SCENARIOS: Final = tuple(SMALL)  #: Small enough for every schedule.
CHUNK: Final = 50
EVERY_S: Final = 30.0  #: How often a long run says how far it is.


def run(seed: int, scenario: str | None = None, *, traced: bool = False) -> Outcome:
    """
    One run.

    Args:
        seed: which; any integer.
        scenario: one of `SCENARIOS`; None: the seed says.
        traced: keep every call in `Outcome.trace`; costs about three times as much.

    Cost: about 3 ms.
    """
    return run_storm(scenario or scenario_of(seed), seed, traced=traced)


def explore(scenario: str, *, preemptions: int | None = None, most: int = 10**9) -> Explored:
    """
    Every schedule of one of `SMALL_SCENARIOS`, or as far as the first that breaks it.

    Args:
        preemptions: how often a process that could go on is interrupted; None: its own bound.
        most: give up after so many schedules; then `Explored.whole` is False.

    Cost: about 2 ms a schedule.
    """
    return explore_small(scenario, preemptions=preemptions, most=most)


@contextmanager
def stores() -> Iterator[Callable[[], SimStore]]:
    """
    A factory of stores on one simulated disk: each call opens the same store as another owner.

    Control is in memory, transcripts are written by the files code on the simulated disk.
    Nobody is interrupted, and only what asks about files is simulated: event loop, clocks and
    threads are the real ones.
    """
    world = World(0, Uniform(Random(0), 1.0))  # noqa: S311
    world.disk.mkdir(STATE, 0o700, 0)
    control, settings = Control(), Settings()
    with world.disk_only():
        yield lambda: SimStore(control, settings)


def scenario_of(seed: int) -> str:
    """Every second seed is whole turns; the others go round the rest."""
    half, odd = divmod(seed, 2)
    return "whole" if odd else PARTS[half % len(PARTS)]


def command(outcome: Outcome) -> str:
    """What replays a run, to be pasted into a shell."""
    return f"python -m holdfast.testing.sim --seed {outcome.seed} --scenario {outcome.scenario}"


# ------------------------------------------------------------------ many seeds


#: Runs, steps, acquisitions, what struck, and what broke.
_Done = tuple[int, int, int, Counter[str], list[Outcome]]


def _chunk(seeds: range) -> _Done:
    struck: Counter[str] = Counter()
    steps = acquired = 0
    broken = []
    for seed in seeds:
        outcome = run(seed)
        steps += outcome.steps
        acquired += outcome.acquired
        struck.update(outcome.struck)
        if outcome.broken is not None:
            broken.append(outcome)
    return len(seeds), steps, acquired, struck, broken


def _chunks(first: int, count: int | None, until_s: float) -> Iterator[range]:
    start = first
    while time.monotonic() < until_s and (count is None or start < first + count):
        stop = start + CHUNK if count is None else min(start + CHUNK, first + count)
        yield range(start, stop)
        start = stop


def _many(
    first: int, count: int | None, minutes: float | None, workers: int, least: int
) -> int:
    """Run seeds until the time or the count is over.  Returns the exit status."""
    began_s = told_s = time.monotonic()
    until_s = began_s + minutes * 60 if minutes is not None else float("inf")
    runs = steps = acquired = 0
    struck: Counter[str] = Counter()
    for done in _spread(_chunks(first, count, until_s), workers):
        runs, steps, acquired = runs + done[0], steps + done[1], acquired + done[2]
        struck += done[3]
        if done[4]:
            return _say_broken(done[4][0])
        now_s = time.monotonic()
        if now_s - told_s >= EVERY_S:
            told_s = now_s
            _say(f"{runs} runs, {runs / (now_s - began_s):.0f}/s, none broken")
    took_s = time.monotonic() - began_s
    strikes = ", ".join(f"{name} {number}" for name, number in sorted(struck.items()))
    _say(
        f"{runs} runs in {took_s:.1f} s ({runs / took_s:.0f}/s), {steps} system calls, "
        f"{acquired} acquisitions; struck: {strikes}; none broken"
    )
    if runs < least:
        _say(f"fewer than {least} runs: not enough")
        return 1
    return 0


def _stay() -> None:
    """What is loaded by now stays: the collector need not look at it after every run."""
    gc.collect()
    gc.freeze()


def _spread(chunks: Iterable[range], workers: int) -> Iterator[_Done]:
    if workers == 1:
        _stay()
        yield from map(_chunk, chunks)
        return
    # Spawned: each worker has an interpreter, and globals, of its own.
    spawning = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawning, initializer=_stay)
    running: deque[Future[_Done]] = deque()
    try:
        for chunk in chunks:
            running.append(pool.submit(_chunk, chunk))
            if len(running) > 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _say_broken(outcome: Outcome) -> int:
    _say(f"BROKEN: {outcome.scenario}, seed {outcome.seed}: {outcome.broken}")
    _say(f"replay: {command(outcome)}")
    return 1


# ------------------------------------------------------------------ the command


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m holdfast.testing.sim")
    parser.add_argument("--seed", type=int, help="run one seed, and show what it did")
    parser.add_argument("--scenario", choices=SCENARIOS, help="default: the seed says")
    parser.add_argument("--small", choices=SMALL_SCENARIOS, help="every schedule of it")
    parser.add_argument("--preemptions", type=int, help="of --small; default: its own")
    parser.add_argument("--script", help="of --small: one schedule, as it was printed")
    parser.add_argument("--first", type=int, default=0, help="the first of many seeds")
    parser.add_argument("--seeds", type=int, help="so many seeds")
    parser.add_argument("--minutes", type=float, help="as many seeds as fit")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--least", type=int, default=0, help="exit 1 below so many runs")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """The command.  Returns the exit status: 0 = everything held."""
    asked = _parsed(arguments)
    if asked.small is not None:
        return _small(asked.small, asked.preemptions, asked.script)
    if asked.seed is not None:
        outcome = run(asked.seed, asked.scenario, traced=True)
        _say("\n".join(outcome.trace))
        if outcome.broken is not None:
            return _say_broken(outcome)
        _say(f"{outcome.steps} system calls, {outcome.acquired} acquisitions; nothing broke")
        return 0
    count = asked.seeds if asked.minutes is not None or asked.seeds is not None else 200
    return _many(asked.first, count, asked.minutes, asked.workers, asked.least)


def _small(name: str, preemptions: int | None, script: str | None) -> int:
    if script is not None:
        choices = [int(word) for word in script.split(",")]
        policy = Choices(
            choices, SMALL[name].preemptions if preemptions is None else preemptions
        )
        outcome = run_small(name, policy, traced=True)
        _say("\n".join(outcome.trace))
        _say(outcome.broken or "nothing broke")
        return 0 if outcome.broken is None else 1
    found = explore(name, preemptions=preemptions)
    _say(f"{name}: {found.schedules} schedules, at most {found.preemptions} preemptions")
    if found.broken is None:
        return 0
    words = ",".join(map(str, found.script))
    again = f"--small {name} --preemptions {found.preemptions} --script {words}"
    _say(f"BROKEN: {found.broken}")
    _say(f"replay: python -m holdfast.testing.sim {again}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
