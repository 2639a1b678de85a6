"""
Who runs next: by lot, by priorities, or every way there is.

A policy is asked at every system call, before it takes effect.  `Uniform` changes over
with even chance; `Priorities` runs the highest and lowers it at a few drawn moments
(after PCT: a bug that needs d changes of thread is met with a known chance); `Choices`
follows a script and writes down what else could have been chosen, so that `explore` can
visit every schedule with at most so many preemptions (after CHESS: depth first, by replay).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from holdfast.testing._sim_process import Thread

__all__ = ["Choices", "Policy", "Priorities", "Uniform", "by_lot", "explore"]

#: Calls that others can notice, or that notice others: only there order means anything.
VISIBLE: Final = frozenset(
    {
        *("open", "close", "read", "pread", "write", "pwrite", "ftruncate", "fstat", "stat"),
        *("lstat", "link", "unlink", "rename", "flock", "fcntl", "realpath"),
    }
)


class Policy(Protocol):
    """Chooses among the threads that could run."""

    def priority(self) -> int:
        """Of a new thread."""
        ...

    def at_point(
        self, ready: list[Thread], thread: Thread, name: str, args: tuple[Any, ...]
    ) -> Thread | None:
        """Before *thread*'s call: who runs instead; None = it goes on."""
        ...

    def next(self, ready: list[Thread]) -> Thread:
        """The thread that ran sleeps, waits or is over."""
        ...


class Uniform:
    """Another thread every *gap* calls or so; which one, by even lots."""

    def __init__(self, lots: Random, gap: float) -> None:
        self._lots, self._gap = lots, gap
        self._left = 1

    def priority(self) -> int:
        return 0

    def at_point(
        self, ready: list[Thread], _: Thread, __: str, ___: tuple[Any, ...]
    ) -> Thread | None:
        self._left -= 1
        if self._left > 0 or len(ready) < 2:
            return None
        self._left = 1 + int(self._lots.expovariate(1.0) * self._gap)
        return ready[int(self._lots.random() * len(ready))]

    def next(self, ready: list[Thread]) -> Thread:
        return ready[int(self._lots.random() * len(ready))]


class Priorities:
    """The highest priority runs; at drawn moments it becomes the lowest."""

    def __init__(self, lots: Random, changes: int, horizon: int) -> None:
        self._lots = lots
        self._changes = sorted(lots.randrange(1, horizon) for _ in range(changes))
        self._calls = self._lowest = 0

    def priority(self) -> int:
        return self._lots.randrange(1, 1_000_000)

    def at_point(
        self, ready: list[Thread], thread: Thread, _: str, __: tuple[Any, ...]
    ) -> Thread | None:
        self._calls += 1
        if self._changes and self._calls >= self._changes[0]:
            del self._changes[0]
            self._lowest -= 1
            thread.priority = self._lowest
        elif len(ready) < 2:
            return None
        best = self.next(ready) if ready else thread
        return None if best is thread else best

    def next(self, ready: list[Thread]) -> Thread:
        return max(ready, key=lambda thread: (thread.priority, -thread.number))


def by_lot(lots: Random) -> Policy:
    """The policy of one seed: sometimes often, sometimes seldom, sometimes by priorities."""
    kind = lots.random()
    if kind < 0.3:
        return Priorities(lots, lots.randint(1, 5), 1_500)
    return Uniform(lots, (0.0, 1.0, 4.0, 20.0)[lots.randrange(4)])


class Choices:
    """Follows *script*; where it ends, whoever runs goes on.  Writes down every choice."""

    def __init__(self, script: list[int], preemptions: int) -> None:
        self._script, self._left = script, preemptions
        self.made: list[tuple[int, int]] = []  #: (chosen, out of how many)

    def priority(self) -> int:
        return 0

    def at_point(
        self, ready: list[Thread], thread: Thread, name: str, args: tuple[Any, ...]
    ) -> Thread | None:
        if self._left == 0 or len(ready) < 2 or name not in VISIBLE:
            return None
        if args and isinstance(args[0], str) and args[0].startswith("/proc/"):
            return None
        chosen = self._choose(len(ready))
        if chosen == 0:
            return None
        self._left -= 1
        return [one for one in ready if one is not thread][chosen - 1]

    def next(self, ready: list[Thread]) -> Thread:
        return ready[self._choose(len(ready)) if len(ready) > 1 else 0]

    def _choose(self, of: int) -> int:
        at = len(self.made)
        chosen = self._script[at] if at < len(self._script) else 0
        self.made.append((chosen, of))
        return chosen


def explore(
    run: Callable[[Choices], None], *, preemptions: int, most: int
) -> Iterator[list[int]]:
    """
    Visit every schedule of a small scenario, each once.

    Args:
        run: one run under the given policy, from the very beginning.
        preemptions: how often, at most, a thread that could go on is interrupted.
        most: stop after so many schedules; the caller sees it by counting.

    Yields:
        The script of the schedule that was just run.
    """
    script: list[int] = []
    for _ in range(most):
        policy = Choices(script, preemptions)
        run(policy)
        yield [chosen for chosen, _ in policy.made]
        made = policy.made
        while made and made[-1][0] + 1 >= made[-1][1]:
            made.pop()
        if not made:
            return
        script = [chosen for chosen, _ in made]
        script[-1] += 1
