"""
The wake-up between processes: a hint, never the truth.

One file in the state directory.  Whoever commits something that others may be waiting for
writes a byte to it; whoever waits is told by inotify on its own event loop, so nobody polls
while nothing happens.  A missed hint costs one polling interval, no more.

The database's own files are not watched: nobody but SQLite may open them, and a hint that is
sent on purpose does not fire for every beat.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from holdfast.backends.files import fs, inotify

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Wake"]


class Wake:
    """Both ends of the hint for one state directory.  Thread-safe to poke."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = fs.open_fd(path, os.O_WRONLY | os.O_CREAT)

    def poke(self) -> None:
        """Tell everybody who watches, in every process, that something has changed."""
        with suppress(OSError):  # A full disk costs a hint; polling is the truth.
            fs.table.pwrite(self._fd, b"\0", 0)

    def watch(self, told: Callable[[], object]) -> Callable[[], None]:
        """
        Call *told* on the running event loop after each poke; several may come as one, and do
        for `inotify.DEAF_S` if it answers False: nobody cares now.

        Returns:
            Stops watching.

        Raises:
            UnavailableError: the kernel gives no more watches.
        """
        return inotify.watch(self._path, lambda _: told())

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            fs.close_fd(fd)
