"""
The wake-up between processes: a hint, never the truth.

One file in the state directory.  Whoever commits something that others may be waiting for
writes a byte to it; whoever waits is told by inotify on its own event loop, so nobody polls
while nothing happens.  A missed hint costs one polling interval, no more.

The database's own files are not watched: nobody but SQLite may open them, and a hint that is
sent on purpose does not fire for every beat.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from holdfast.backends.files import fs
from holdfast.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Wake"]

_IN_MODIFY: Final = 0x2
_FLAGS: Final = os.O_CLOEXEC | os.O_NONBLOCK
_EVENTS_BYTES: Final = 4096


class Wake:
    """Both ends of the hint for one state directory.  Thread-safe to poke."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = fs.open_fd(path, os.O_WRONLY | os.O_CREAT)

    def poke(self) -> None:
        """Tell everybody who watches, in every process, that something has changed."""
        with suppress(OSError):  # A full disk costs a hint; polling is the truth.
            fs.table.pwrite(self._fd, b"\0", 0)

    def watch(self, told: Callable[[], None]) -> Callable[[], None]:
        """
        Call *told* on the running event loop after each poke; several may come as one.

        Returns:
            Stops watching.

        Raises:
            UnavailableError: the kernel gives no more watches.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.inotify_init1(_FLAGS)
        if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(self._path), _IN_MODIFY) < 0:
            code = ctypes.get_errno()
            if fd >= 0:
                fs.table.close(fd)
            raise UnavailableError(path=self._path, detail=f"inotify: {os.strerror(code)}")
        loop = asyncio.get_running_loop()

        def readable() -> None:
            with suppress(BlockingIOError):
                fs.table.read(fd, _EVENTS_BYTES)
            told()

        loop.add_reader(fd, readable)

        def stop() -> None:
            loop.remove_reader(fd)
            fs.table.close(fd)

        return stop

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            fs.close_fd(fd)
