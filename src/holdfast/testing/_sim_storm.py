"""
What befalls simulated processes: crashes, stops, failing calls, clocks set off, `rm`.

All of it is drawn before the run, as (step, what), so that a run costs one comparison a
call.  A storm has an end: what it does after the last step of its plan is nothing.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.testing._sim_disk import refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from holdfast.testing._sim_process import Process, Thread
    from holdfast.testing._sim_world import World

__all__ = ["KINDS", "Storm"]

KINDS: Final = ("crash", "freeze", "error", "short", "tear", "wall")

#: Call → what may come back before it took effect.  One that is not here never fails.
_BEFORE: Final[dict[str, tuple[int, ...]]] = {
    "open": (errno.EMFILE, errno.EIO, errno.ENFILE),
    "read": (errno.EIO,),
    "pread": (errno.EIO,),
    "write": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "pwrite": (errno.ENOSPC, errno.EIO),
    "lseek": (errno.EIO,),
    "fstat": (errno.EIO, errno.ESTALE),
    "stat": (errno.EIO, errno.ESTALE),
    "lstat": (errno.EIO, errno.ESTALE),
    "link": (errno.EIO, errno.ENOSPC),
    "unlink": (errno.EIO,),
    "rename": (errno.EIO,),
    "ftruncate": (errno.EIO,),
    "fdatasync": (errno.EIO, errno.ENOSPC),
    "fsync": (errno.EIO,),
    "flock": (errno.ENOLCK, errno.EIO),
    "fcntl": (errno.ENOLCK, errno.EIO),
    "control": (errno.EIO, errno.ENOSPC),  # A transaction of the control store.
}
#: Call → what may come back although it took effect.
_AFTER: Final[dict[str, tuple[int, ...]]] = {
    "close": (errno.EIO,),
    "link": (errno.EIO, errno.EEXIST),  # A retried request of a network file system.
    "unlink": (errno.EIO, errno.ENOENT),
    "rename": (errno.EIO,),
    "write": (errno.EIO,),
    "fdatasync": (errno.EIO,),
    "control": (errno.EIO,),
}
FROZEN_S: Final = (0.003, 0.06, 0.5, 25.0)
HORIZON: Final = 1_200  #: Steps within which a storm strikes.
FULL_S: Final = (0.05, 0.5, 3.0)  #: How long the disk is full.


@dataclass(slots=True)
class Aim:
    """At the *left*-th step of this name: *kind* strikes, before the step or right after."""

    left: int
    kind: str
    after: bool


class Storm:
    """
    The plan of one run.

    Args:
        kinds: what may happen; see `KINDS`, and what *special* names.
        special: other things, by name; each is done to the world from outside.
        died: called with every process that was killed, perhaps to start another.
        horizon: steps within which it strikes.
        frozen_s: for how long processes are stopped.
        aims: names of steps, at which it strikes besides, now and then.
    """

    def __init__(
        self,
        lots: Random,
        kinds: tuple[str, ...],
        *,
        special: dict[str, Callable[[World], None]] | None = None,
        died: Callable[[World, Process], None] | None = None,
        horizon: int = HORIZON,
        frozen_s: tuple[float, ...] = FROZEN_S,
        aims: tuple[str, ...] = (),
    ) -> None:
        self._lots, self._special, self._died = lots, special or {}, died
        self._frozen_s = frozen_s
        many = lots.choice((0, 1, 1, 2, 2, 3, 5))
        drawn = sorted(lots.sample(range(1, horizon), many))
        self._plan = [(step, lots.choice(kinds)) for step in drawn] if kinds else []
        self.aims: dict[str, Aim] = {}
        for _ in range(lots.choice((0, 1, 1, 2)) if aims and many else 0):
            kind = lots.choice(("crash", "crash", "freeze"))
            self.aims[lots.choice(aims)] = Aim(lots.randint(1, 5), kind, lots.random() < 0.5)
        self._tears: Thread | None = None
        self.struck: dict[str, int] = {}

    def first(self) -> int:
        """The step of the next strike; -1 = it is over."""
        return self._plan[0][0] if self._plan else -1

    def strike(self, world: World) -> int:
        """It is time.  Returns the step of the next strike."""
        _, kind = self._plan.pop(0)
        thread = world.thread
        assert thread is not None
        if kind in self._special:
            self._count(kind)
            world.note(kind)
            self._special[kind](world)
        elif kind == "error":
            thread.fault = (OSError(), False)  # Of which call, its next one says.
        else:
            self._befall(world, kind, thread)
        return self.first()

    def aimed(self, world: World, thread: Thread, name: str) -> None:
        """A step of a name that was aimed at."""
        aim = self.aims[name]
        aim.left -= 1
        if aim.left > 0:
            return
        del self.aims[name]
        if aim.after:
            thread.doom = aim.kind
        else:
            self._befall(world, aim.kind, thread)

    def doomed(self, world: World, thread: Thread) -> None:
        """The step that was aimed at is done; this is the next one of its thread."""
        kind, thread.doom = thread.doom, None
        assert kind is not None
        self._befall(world, kind, thread)

    def _befall(self, world: World, kind: str, thread: Thread) -> None:
        process = thread.process
        if kind == "crash":
            self._kill(world, process)
        elif kind == "freeze":
            self._count("freeze")
            world.freeze(process, self._lots.choice(self._frozen_s))
        elif kind == "full":
            self._count("full")
            world.fill_disk(self._lots.choice(FULL_S))
        elif kind == "short":
            self._count("short")
            world.short = self._lots.randrange(0, 40)
        elif kind == "tear":
            self._tears, world.short = thread, self._lots.randrange(0, 60)
        else:
            self._count("wall")
            process.wall_step_ns += self._lots.randint(-(10**14), 10**14)

    def _kill(self, world: World, process: Process) -> None:
        self._count("crash")
        world.crash(process)
        if self._died is not None:
            self._died(world, process)

    def wrote(self, world: World, thread: Thread) -> None:
        """After a write: a writer that dies in the middle of a line dies here."""
        if self._tears is thread:
            self._tears = None
            self._count("tear")
            self._kill(world, thread.process)

    def fault(self, thread: Thread, name: str) -> OSError | None:
        """The error of this call: raised now, or returned to be raised afterwards."""
        name = name.partition(".")[0]
        before, after = _BEFORE.get(name, ()), _AFTER.get(name, ())
        if not before and not after:
            return None
        thread.fault = None
        self._count("error")
        lots = self._lots
        if after and (not before or lots.random() < 0.4):
            return refusal(lots.choice(after), f"<{name}>")
        raise refusal(lots.choice(before), f"<{name}>")

    def _count(self, kind: str) -> None:
        self.struck[kind] = self.struck.get(kind, 0) + 1
