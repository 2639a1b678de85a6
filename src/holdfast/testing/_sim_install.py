"""What stands in the place of the real world while simulated code runs."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from holdfast.backends.files import fs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from holdfast.testing._sim_world import World

__all__ = ["replaced", "replaced_table"]

_FILES: Final = "holdfast.backends.files."


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
    table = vars(fs.table).copy()
    before: list[tuple[ModuleType, str, Any]] = []
    log, collecting = logging.getLogger("holdfast"), gc.isenabled()
    level, hooks = log.level, sys.get_asyncgen_hooks()
    gc.disable()
    try:
        for module, name, value in _names(world):
            before.append((module, name, getattr(module, name)))
            setattr(module, name, value)
        vars(fs.table).update(world.kernel.table(list(table)))
        log.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        log.setLevel(level)
        vars(fs.table).clear()
        vars(fs.table).update(table)
        for module, name, value in before:
            setattr(module, name, value)
        sys.set_asyncgen_hooks(*hooks)
        if collecting:
            gc.enable()


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


def _names(world: World) -> Iterator[tuple[ModuleType, str, Any]]:
    """(module, name, what stands there during a run)."""
    for name in sorted(sys.modules):
        module = sys.modules[name]
        asks = getattr(module, "threading", None) is threading
        if asks and name.startswith(_FILES) and name != f"{_FILES}fs":
            yield module, "threading", world.threading
    latch = import_module(f"{_FILES}lock.latch")
    yield latch, "uuid4", lambda: UUID(int=world.lots.getrandbits(128))
    yield import_module(f"{_FILES}transcript.digest"), "ThreadPoolExecutor", _Inline
    stamps = import_module("holdfast._stamps")
    yield stamps, "_last_ms", 0
    yield stamps, "_counter", 0
    yield stamps, "time", SimpleNamespace(time_ns=world.wall_ns)
    yield stamps, "os", SimpleNamespace(urandom=world.lots.randbytes)
    yield stamps, "datetime", SimpleNamespace(now=lambda _: _now(world))


def _now(world: World) -> datetime:
    return datetime.fromtimestamp(world.wall_ns() / 1e9, UTC)
