"""What stands in the place of the real world while simulated code runs."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache, partial
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Self
from uuid import UUID

from holdfast import _points
from holdfast.backends.files import fs
from holdfast.testing._sim_loop import runner_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import tzinfo
    from types import ModuleType

    from holdfast.testing._sim_world import World

__all__ = ["replaced", "replaced_table"]

_FILES: Final = "holdfast.backends.files."
_RUNTIME: Final = "holdfast._runtime."


class _Inline:
    """An executor whose work is done by whoever submits it."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def submit(self, work: Callable[..., Any], *args: Any) -> None:
        work(*args)


@contextmanager
def replaced(world: World) -> Iterator[None]:
    """
    The table of system calls, `threading`, ids and stamps: the world's own.

    Nothing of ours is logged meanwhile, and the garbage collector waits: both would make a
    run depend on more than its seed.
    """
    table, points = vars(fs.table).copy(), _points._hooks.copy()  # noqa: SLF001
    before: list[tuple[Any, str, Any]] = []
    log, collecting = logging.getLogger("holdfast"), gc.isenabled()
    level, hooks = log.level, sys.get_asyncgen_hooks()
    gc.disable()
    try:
        for module, name, value in _names(world):
            before.append((module, name, getattr(module, name)))
            setattr(module, name, value)
        vars(fs.table).update(world.kernel.table(list(table)))
        for point in _points.POINTS:
            _points.install(point, partial(_reached, world, point))
        log.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        log.setLevel(level)
        _points._hooks.clear()  # noqa: SLF001
        _points._hooks.update(points)  # noqa: SLF001
        vars(fs.table).clear()
        vars(fs.table).update(table)
        for module, name, value in before:
            setattr(module, name, value)
        sys.set_asyncgen_hooks(*hooks)
        if collecting:
            gc.enable()


def _reached(world: World, name: str) -> None:
    """A named point of the code: a step like a system call."""
    if name == "effect.loaded" and world.oracle.turns is not None:
        world.oracle.turns.loaded()
    world.step(f"point.{name}", ())


#: Entries that have nothing to do with a disk.
_REAL: Final = frozenset(
    {"monotonic", "time_ns", "sleep", "sched_yield", "getpid", "kill", "uname"}
)


@contextmanager
def replaced_table(world: World) -> Iterator[None]:
    """The entries of the table that are about files, and no more."""
    table = vars(fs.table).copy()
    try:
        vars(fs.table).update(world.kernel.table([name for name in table if name not in _REAL]))
        yield
    finally:
        vars(fs.table).clear()
        vars(fs.table).update(table)


def _names(world: World) -> Iterator[tuple[Any, str, Any]]:
    """(module, name, what stands there during a run)."""
    names = sorted(name for name in sys.modules if name.startswith((_FILES, _RUNTIME)))
    for name in names:
        module = sys.modules[name]
        asks = getattr(module, "threading", None) is threading
        if asks and name.startswith(_FILES) and name != f"{_FILES}fs":
            yield module, "threading", world.threading
    runtime = tuple(sys.modules[name] for name in names if name.startswith(_RUNTIME))
    yield from _of_runtime(runtime, world)
    yield asyncio, "Runner", runner_of(world)
    # Waits of the runtime that are long on purpose, in fractions of what they are.
    yield import_module("holdfast._core.delivery"), "BACKOFF_MS", (100, 300, 900, 900)
    yield import_module("holdfast._core.failover"), "BACKOFF_FIRST_S", 0.1
    handover = import_module("holdfast._core.handover")
    yield handover, "OWN_IDLE_S", 0.1
    yield handover, "LATELY_S", 0.3
    latch = import_module(f"{_FILES}lock.latch")
    yield latch, "uuid4", lambda: UUID(int=world.lots.getrandbits(128))
    yield import_module(f"{_FILES}transcript.digest"), "ThreadPoolExecutor", _Inline
    stamps = import_module("holdfast._stamps")
    yield stamps, "_last_ms", 0
    yield stamps, "_counter", 0
    yield stamps, "time", SimpleNamespace(time_ns=world.wall_ns)
    yield stamps, "os", SimpleNamespace(urandom=world.lots.randbytes)
    yield stamps, "datetime", SimpleNamespace(now=lambda _: _now(world))


def _of_runtime(
    modules: tuple[ModuleType, ...], world: World
) -> Iterator[tuple[Any, str, Any]]:
    """Threads, clocks and chance of the runtime's modules, under the names they use."""
    kernel = world.kernel
    clocks = SimpleNamespace(
        monotonic=kernel.monotonic, sleep=kernel.sleep, time_ns=world.wall_ns,
        perf_counter=kernel.monotonic, time=lambda: world.wall_ns() / 1e9,
    )  # fmt: skip
    stands_in: dict[str, tuple[Any, Any]] = {
        "threading": (threading, world.threading),
        "time": (time, clocks),
        "random": (random, world.lots),
        "datetime": (datetime, _calendar(world)),
    }
    for module in modules:
        for name, (real, simulated) in stands_in.items():
            if getattr(module, name, None) is real:
                yield module, name, simulated
    for start, name in _with_a_clock(modules):
        yield start, name, _with_clock(getattr(start, name), kernel.monotonic)


@lru_cache(maxsize=4)
def _with_a_clock(modules: tuple[ModuleType, ...]) -> tuple[tuple[Any, str], ...]:
    """(function, where its defaults are), of each that has the clock as a default."""
    found = []
    for module in modules:
        for made in list(vars(module).values()):
            if getattr(made, "__module__", None) == module.__name__:
                start: Any = vars(made).get("__init__") if isinstance(made, type) else made
                found += [
                    (start, name) for name in ("__defaults__", "__kwdefaults__")
                    if time.monotonic in _values(getattr(start, name, None))
                ]  # fmt: skip
    return tuple(found)


def _values(defaults: Any) -> tuple[Any, ...]:
    return tuple(defaults.values() if isinstance(defaults, dict) else defaults or ())


def _with_clock(defaults: Any, clock: Callable[[], float]) -> Any:
    if isinstance(defaults, dict):
        return {n: clock if v is time.monotonic else v for n, v in defaults.items()}
    return tuple(clock if each is time.monotonic else each for each in defaults)


def _calendar(world: World) -> type[datetime]:
    class Calendar(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(world.wall_ns() / 1e9, tz)

    return Calendar


def _now(world: World) -> datetime:
    return datetime.fromtimestamp(world.wall_ns() / 1e9, UTC)
