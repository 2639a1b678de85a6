"""
Simulated processes and their threads, and the globals that each process has of its own.

The lock code keeps a few things per process in module globals.  All simulated processes
live in one interpreter, so those globals are exchanged whenever another process runs:
`OWN` is the list of them, and `SHARED` of those that need not be, with the reason.  A test
looks for globals that are in neither.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from holdfast.testing._sim_locks import Description
    from holdfast.testing._sim_world import World

__all__ = [
    "OURS",
    "OWN",
    "SHARED",
    "Killed",
    "Process",
    "Thread",
    "Threading",
    "installed_globals",
]

OURS: Final = "python -m holdfast"  #: How the command line of ours begins.
_FILES: Final = "holdfast.backends.files."

_generations = itertools.count(1 << 32)

#: (module, name) → how a new process starts with it.
OWN: Final[dict[tuple[str, str], Callable[[Process], Any]]] = {
    ("fs", "_open"): lambda _: set(),
    # Its own, so that what a dead process left to the garbage collector stays its own.
    ("fs", "_generation"): lambda _: next(_generations),
    ("lock.line", "_mutex"): lambda process: process.world.threading.Lock(),
    ("lock.line", "_lines"): lambda _: {},
    ("lock.line", "_inodes"): lambda _: {},
    ("identity", "_me"): lambda _: None,
    ("lock.claim", "_prefix"): lambda process: f"{process.number:016x}",
    ("lock.claim", "_numbers"): lambda _: itertools.count(1),
    ("lock.claim", "_second"): lambda _: (0, ""),
    ("lock.pump", "_pump"): lambda process: process.world.modules["lock.pump"]._Pump(),  # noqa: SLF001
    ("transcript.digest", "_executor"): lambda _: None,
    ("transcript.digest", "_generation"): lambda _: -1,
    ("lock.own", "roll"): lambda process: process.world.modules["lock.own"].Roll(),
    ("lock.watchdog", "dog"): lambda process: process.world.modules["lock.watchdog"].Watchdog(),
    ("lock.tally", "_tally"): lambda process: process.world.modules["lock.tally"]._Tally(),  # noqa: SLF001
}

#: (module, name) → why all simulated processes may share it.
SHARED: Final[dict[tuple[str, str], str]] = {
    ("fs", "table"): "the simulated table knows which process runs",
    (
        "fs",
        "_guard",
    ): "re-entrant in the one real thread; a fork waits for it, and none happens",
    ("transcript.digest", "_guard"): "nothing that could switch is called under it",
}


def installed_globals() -> dict[str, ModuleType]:
    """The modules of `OWN`, by their short names."""
    return {name: import_module(_FILES + name) for name, _ in OWN}


class Killed(BaseException):
    """Unwinds the stack of a process that is no more.  None of its calls has an effect."""


class Thread:
    """One thread of a simulated process: a greenlet, and why it does not run."""

    __slots__ = (
        "body", "doom", "fault", "greenlet", "hooks", "loop", "number", "priority",
        "process", "state",
    )  # fmt: skip

    def __init__(self, process: Process, number: int, body: Callable[[], None]) -> None:
        self.process, self.number, self.body = process, number, body
        self.state = "ready"  #: ready, asleep, blocked, done
        self.priority = 0
        self.fault: tuple[OSError, bool] | None = None  #: (what, after it took effect)
        self.doom: str | None = None  #: What befalls it before its next step.
        self.greenlet: Any = None
        self.loop: asyncio.AbstractEventLoop | None = None  #: The one that it runs.
        self.hooks: Any = sys.get_asyncgen_hooks()

    def enter(self) -> None:
        """What Python keeps for each thread, put in place: there is one real thread."""
        asyncio._set_running_loop(self.loop)  # noqa: SLF001
        sys.set_asyncgen_hooks(*self.hooks)

    def exit(self) -> None:
        self.loop, self.hooks = asyncio._get_running_loop(), sys.get_asyncgen_hooks()  # noqa: SLF001
        asyncio._set_running_loop(None)  # noqa: SLF001


class Process:
    """A pid, a start time, descriptors, a clock, and globals."""

    def __init__(self, world: World, number: int, name: str, pid: int, command: str) -> None:
        self.world: World = world
        self.number: int = number
        self.name, self.pid = name, pid
        self.start = 1_000 + number
        self.command = command
        self.ours = command.startswith(OURS)  #: Runs Holdfast, and not something else.
        self.dead = self.frozen = self.ended = False
        self.fds: dict[int, Description] = {}
        self.threads: list[Thread] = []
        self.leftovers: list[Callable[[], None]] = []  #: To be done when it was unwound.
        self.offset_ns, self.rate = 0, 1.0  #: Its monotonic clock: offset + rate × true time.
        self.wall_step_ns = 0  #: How far its wall clock has been set off.
        self.loop: asyncio.AbstractEventLoop | None = None  #: The one that runs in it.
        self._kept: list[Any] | None = None  #: None: it has not run yet.

    def clock_ns(self) -> float:
        return self.offset_ns + self.world.now_ns * self.rate

    def globals(self) -> dict[str, Any]:
        """Its globals, by name, while it does not run."""
        assert self._kept is not None
        return {name: value for (_, name), value in zip(OWN, self._kept, strict=True)}

    def enter(self) -> None:
        """Put its globals in place.  It runs already, as far as the kernel knows."""
        if self._kept is None:
            self._kept = [make(self) for make in OWN.values()]
        for (space, name), value in zip(self.world.spaces, self._kept, strict=True):
            space[name] = value
        if self.loop is not None:
            asyncio._set_running_loop(self.loop)  # noqa: SLF001

    def exit(self) -> None:
        """Take them out again: code may have bound them to something else."""
        self.loop = asyncio._get_running_loop()  # noqa: SLF001
        if self.loop is not None:
            asyncio._set_running_loop(None)  # noqa: SLF001
        self._kept = [space[name] for space, name in self.world.spaces]


class _Lock:
    """A mutex among the threads of one simulated process."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._owner: Thread | str | None = None
        self._depth = 0
        self._again = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = self._world.thread or "setup"
        if self._again and self._owner is me:
            self._depth += 1
            return True
        while self._owner is not None:
            if not blocking or not self._world.block(self, timeout):
                return False
        self._owner, self._depth = me, 1
        return True

    def release(self) -> None:
        if self._owner is None:  # Waiting on a condition, its process was killed.
            assert self._world.process.dead, "released, but not held"
            return
        self._depth -= 1
        if self._depth == 0:
            self._owner = None
            self._world.unblock(self)

    def locked(self) -> bool:
        return self._owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class _Event:
    def __init__(self, world: World) -> None:
        self._world = world
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        self._world.unblock(self)

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            self._world.block(self, -1 if timeout is None else timeout)
        return self._set


class _Condition:
    def __init__(self, world: World, lock: _Lock | None = None) -> None:
        self._world = world
        self._lock = lock or Threading(world).RLock()

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        self._lock.release()
        woken = self._world.block(self, -1 if timeout is None else timeout)
        self._lock.acquire()
        return woken

    def notify(self, n: int = 1) -> None:
        self._world.unblock(self, most=n)

    def notify_all(self) -> None:
        self._world.unblock(self)


class Threading:
    """Stands in for the module `threading` in the code that is simulated."""

    def __init__(self, world: World) -> None:
        self._world = world

    def Lock(self) -> _Lock:  # noqa: N802
        return _Lock(self._world)

    def RLock(self) -> _Lock:  # noqa: N802
        lock = _Lock(self._world)
        lock._again = True  # noqa: SLF001
        return lock

    def Event(self) -> _Event:  # noqa: N802
        return _Event(self._world)

    def Condition(self, lock: _Lock | None = None) -> _Condition:  # noqa: N802
        return _Condition(self._world, lock)

    def Thread(  # noqa: N802
        self,
        *,
        target: Callable[..., None],
        name: str = "",
        daemon: bool = True,
        args: tuple[Any, ...] = (),
    ) -> Any:
        return _Starting(self._world, lambda: target(*args), name, daemon=daemon)

    def get_ident(self) -> int:
        thread = self._world.thread
        return thread.number if thread is not None else threading.get_ident()

    def current_thread(self) -> object:
        """Never the main one: a simulated process has no signal handlers to install."""
        return self._world.thread

    def main_thread(self) -> object:
        return self

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(f"threading.{name} is not simulated: _sim_process.py")


class _Starting:
    """What `Threading.Thread` gives: a thread that runs in the process that made it."""

    def __init__(
        self, world: World, body: Callable[[], None], name: str, *, daemon: bool
    ) -> None:
        self._world, self._body, self.name, self.daemon = world, body, name, daemon
        self._thread: Thread | None = None

    def start(self) -> None:
        self._thread = self._world.start_thread(self._world.process, self._body)
        self._thread.priority = self._world.policy.priority()
        if self.daemon:
            self._world.daemons.add(self._thread.number)

    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.state != "done"

    def join(self, timeout: float | None = None) -> None:
        if self.is_alive():
            self._world.block(self._thread, -1 if timeout is None else timeout)
