"""
The stage of a simulated world: its time, its processes, what becomes of them, its trace.

`World` adds who runs when.
"""

from __future__ import annotations

import errno
import heapq
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Final

from holdfast.testing._sim_disk import Disk, refusal
from holdfast.testing._sim_process import Killed

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.testing._sim_kernel import Kernel
    from holdfast.testing._sim_oracle import Oracle
    from holdfast.testing._sim_process import Process, Thread
    from holdfast.testing._sim_storm import Storm

__all__ = ["Stage"]

EPOCH_NS: Final = 1_800_000_000 * 10**9


class Stage:
    """State, and what happens to it from outside of all processes."""

    kernel: Kernel
    oracle: Oracle
    process: Process

    def __init__(self, seed: int, *, storm: Storm | None, traced: bool) -> None:
        self.lots = Random(seed)  # noqa: S311  To be repeatable is what it is for.
        self.storm = storm
        self.now_ns = 0
        self.steps = 0
        self.disk = Disk()
        self.processes: list[Process] = []
        self.threads: list[Thread] = []
        self.ready: list[Thread] = []
        self.thread: Thread | None = None
        self.broken: str | None = None
        self.short: int | None = None  #: How much of the next write fits.
        self.full_until_ns = 0  #: Until then nothing fits.
        self.trace: list[str] | None = [] if traced else None
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self._reaping: list[Thread] = []
        self._numbers = count(1)
        self._inside = False  #: A simulated thread runs, and not the hub.

    def refresh(self) -> None:
        """Who could run now."""
        self.ready = [
            thread
            for thread in self.threads
            if thread.state == "ready" and not (thread.process.frozen or thread.process.dead)
        ]

    # ------------------------------------------------------------------ fate

    def at(self, after_s: float, do: Callable[[], None]) -> None:
        """Have *do* happen, from outside of all processes, after so many seconds."""
        self._push(self.now_ns + round(after_s * 1e9), do)

    def _push(self, when_ns: int, do: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when_ns, next(self._numbers), do))

    def fire(self) -> None:
        while self.events and self.events[0][0] <= self.now_ns:
            heapq.heappop(self.events)[2]()

    def crash(self, process: Process) -> None:
        """SIGKILL: every descriptor is dropped, and nothing else happens."""
        self.note(f"{process.name} is killed")
        process.dead = True
        self._drop(process)
        self.oracle.died(process)
        self._reaping.extend(process.threads)
        self.refresh()

    def end(self, process: Process) -> None:
        """It has come to its end by itself."""
        process.dead = process.ended = True
        self._drop(process)
        self._reaping.extend(process.threads)

    def _drop(self, process: Process) -> None:
        for description in process.fds.values():
            self.kernel.drop(description)
        process.fds = {}

    def freeze(self, process: Process, seconds: float) -> None:
        """SIGSTOP now, SIGCONT after so many seconds."""
        self.note(f"{process.name} is stopped for {seconds} s")
        process.frozen = True
        self.at(seconds, lambda: self.thaw(process))
        self.refresh()

    def thaw(self, process: Process) -> None:
        process.frozen = False
        self.refresh()

    def running(self, pid: int) -> Process | None:
        return next((p for p in self.processes if p.pid == pid and not p.dead), None)

    def fitting(self, asked: int) -> int:
        """How much of a write fits: all of it, unless the storm said otherwise."""
        if self.now_ns < self.full_until_ns:
            raise refusal(errno.ENOSPC)
        short, self.short = self.short, None
        return asked if short is None else min(short, asked)

    def fill_disk(self, seconds: float) -> None:
        """The disk is full for so long."""
        self.note(f"the disk is full for {seconds} s")
        self.full_until_ns = self.now_ns + round(seconds * 1e9)

    def wall_ns(self) -> int:
        return EPOCH_NS + self.now_ns + self.process.wall_step_ns

    # ------------------------------------------------------------------ telling

    def fail(self, what: str) -> None:
        """Something that must never happen did.  The run ends here."""
        self.broken = self.broken or f"{what}  [step {self.steps}, {self.now_ns / 1e9:.6f} s]"
        self.note(f"BROKEN: {self.broken}")
        if self.thread is not None and self._inside:
            self.thread.process.dead = True
            raise Killed

    def note(self, what: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now_ns / 1e6:12.3f} ms  {what}")

    def note_call(self, name: str, args: tuple[Any, ...], result: object) -> None:
        shown = ", ".join(_short(one) for one in args)
        self.note(f"{self.process.name:10} {name}({shown}) = {_short(result)}")


def _short(value: object) -> str:
    if isinstance(value, int | str | bytes | float):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return type(value).__name__ if value is not None else "None"
