"""
Being told by the kernel that a file, or something in a directory, was written to.

A hint and never the truth: events may be lost when the queue is full, and whoever is told
looks for itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from holdfast.backends.files import fs
from holdfast.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["watch"]

#: Where many processes commit, to be woken by each costs as much as to commit.
DEAF_S: Final = 0.01

_IN_MODIFY: Final = 0x2
_IN_CREATE: Final = 0x100
_FLAGS: Final = os.O_CLOEXEC | os.O_NONBLOCK
_EVENTS_BYTES: Final = 65_536
_EVENT: Final = struct.Struct("@iIII")  #: Watch, mask, cookie, length of the name after it.


def watch(path: str, told: Callable[[set[str]], object]) -> Callable[[], None]:
    """
    Call *told* on the running event loop after *path* was written to.

    Args:
        path: a file, or a directory whose files are meant.
        told: gets the names of the files in it, each once; a file's own name is "".  If it
            answers False, nobody cares now, and what follows is told `DEAF_S` later, as one.

    Returns:
        Stops watching.

    Raises:
        UnavailableError: the kernel gives no more watches, or there is no such path.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(_FLAGS)
    mask = _IN_MODIFY | _IN_CREATE
    if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(path), mask) < 0:
        code = ctypes.get_errno()
        if fd >= 0:
            fs.table.close(fd)
        raise UnavailableError(path=path, detail=f"inotify: {os.strerror(code)}")
    loop = asyncio.get_running_loop()

    deaf: asyncio.TimerHandle | None = None

    def readable() -> None:
        nonlocal deaf
        with suppress(BlockingIOError):
            if told(_names(fs.table.read(fd, _EVENTS_BYTES))) is False:
                loop.remove_reader(fd)
                deaf = loop.call_later(DEAF_S, loop.add_reader, fd, readable)

    loop.add_reader(fd, readable)

    def stop() -> None:
        if deaf is not None:
            deaf.cancel()
        loop.remove_reader(fd)
        fs.table.close(fd)

    return stop


def _names(events: bytes) -> set[str]:
    names, at = set(), 0
    while at < len(events):
        *_, length = _EVENT.unpack_from(events, at)
        start = at + _EVENT.size
        names.add(os.fsdecode(events[start : start + length].rstrip(b"\0")))
        at = start + length
    return names
