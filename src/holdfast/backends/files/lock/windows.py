"""
The line of prompt windows in front of one transcript, for attempts that stand alone.

    line  →  gate (`<transcript>.windows`)  →  a byte lock on the transcript's own inode
    FIFO      FIFO among processes              the exclusion, whatever the file's name
    here

The write lock is held for milliseconds and this for as long as a model talks: so it is no
claim that a stranger would see, and no owner has to prove that it lives.  The kernel gives
the place up with its process.  A session that has a store does not need it: there the turn's
lease is the same queue, durable and across machines.

Who is stopped keeps its place: whoever waits gets OwnerWaitError at its deadline.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from holdfast.backends.files import fs
from holdfast.backends.files.lock import line, pump
from holdfast.backends.files.lock.gate import POLL_LONG_S, Entry
from holdfast.errors import BadTranscriptError, DeadlockError, OwnerWaitError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WindowLine"]

#: Far behind the last byte of any transcript, and no byte that a gate locks.
WINDOW_AT: Final = (1 << 62) - 1
_LOCK: Final = fs.byte_lock(WINDOW_AT)
_UNLOCK: Final = fs.byte_unlock(WINDOW_AT)

#: A path that changes its inode this often under our hands is looked at again later.
REOPEN_MAX: Final = 8


class WindowLine:
    """One attempt's place in the line.  Loop-bound; used for one place at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._place: line.Place | None = None
        self._climb: _WindowClimb | None = None
        self._granted: asyncio.Future[None] | None = None

    def join(self) -> bool:
        """
        Stand in line.

        Returns:
            True: nobody is before us, and the place is ours.  False: `wait` for it.

        Raises:
            DeadlockError: this very task has the place before ours.
            StoreError: the transcript or its gate cannot be opened or locked.
        """
        assert self._place is None, "one place at a time"
        resolved, key = self._named()
        loop = asyncio.get_running_loop()
        granted: asyncio.Future[None] = loop.create_future()
        place = line.Place(blocking=False, key=key)
        place.wake = lambda: _wake(loop, granted)
        try:
            first = line.join(_line_of(resolved), place)
        except DeadlockError:
            raise DeadlockError(
                what=f"the prompt window of {resolved}", hint="close the window you have open"
            ) from None
        self._place, self._granted = place, granted
        self._climb = _WindowClimb(resolved, lambda: line.leave(_line_of(resolved), place))
        try:
            return first and self._climb.step(may_block=False) is None
        except BaseException:
            self.vacate()
            raise

    def _named(self) -> tuple[str, str | None]:
        """The resolved path, and the line of the file itself, whatever its name."""
        try:
            resolved = fs.table.realpath(self._path)
            key = line.key_of(line.inode_of(resolved))
        except OSError as error:
            raise fs.store_error(error, self._path, "resolving the path") from error
        return resolved, None if key is None else _line_of(key)

    async def wait(self, timeout_s: float) -> None:
        """
        Until the place is ours.

        Raises:
            OwnerWaitError: not within *timeout_s*, one total deadline.  We are out of line.
            StoreError: the transcript or its gate failed.  We are out of line.

        Cancellation:
            At any moment; we are out of line.
        """
        climb, place, granted = self._climb, self._place, self._granted
        assert climb is not None
        assert place is not None
        assert granted is not None
        try:
            async with asyncio.timeout(timeout_s):
                if not place.granted:
                    await granted
                wait_s = climb.step(may_block=False)
                if wait_s is not None:
                    self._forget()  # The pump gives it back now, if it must.
                    await pump.finish(climb, wait_s)
                    self._climb = climb
        except TimeoutError as error:
            self.vacate()
            raise OwnerWaitError(
                path=self._path, timeout_s=timeout_s, ahead=climb.ahead
            ) from error
        except BaseException:
            self.vacate()
            raise

    def vacate(self) -> None:
        """Give the place to the next in line.  Idempotent; never raises."""
        climb = self._climb
        self._forget()
        if climb is not None:
            climb.abandon()

    def _forget(self) -> None:
        self._climb = self._place = self._granted = None


class _WindowClimb:
    """Gate and byte lock, without waits: stepped here, or by the pump."""

    def __init__(self, resolved: str, left: Callable[[], None]) -> None:
        self._resolved, self._left = resolved, left
        self._generation = fs.fork_generation()
        self._gate = Entry(f"{resolved}.windows")
        self._fd = -1
        self._over = False

    @property
    def ahead(self) -> int | None:
        return self._gate.ahead

    def step(self, *, may_block: bool) -> float | None:
        del may_block  # Nothing here waits: the transcript exists by now.
        now_s = fs.table.monotonic()
        try:
            return self._advance(now_s)
        except OSError as error:
            doing = "standing in line for the prompt window"
            raise fs.store_error(error, self._resolved, doing) from error

    def _advance(self, now_s: float) -> float | None:
        wait_s = self._gate.step(now_s)
        if wait_s is not None and not self._gate.passable(now_s):
            return wait_s
        if not self._take():
            if wait_s is not None:
                self._gate.keep_place(now_s)
            return POLL_LONG_S if wait_s is None else wait_s
        if wait_s is not None:
            self._gate.pass_over()
        return None

    def _take(self) -> bool:
        for _ in range(REOPEN_MAX):
            if self._fd < 0:
                self._fd = self._open()
            if not fs.try_lock(self._fd, _LOCK):
                return False
            if self._names_us():
                return True
            self._close()  # The file was replaced while we stood in line.
        return False

    def _open(self) -> int:
        try:
            return fs.open_fd(self._resolved, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise BadTranscriptError(
                path=self._resolved, detail="it is gone", hint="put it back from a backup"
            ) from error

    def _names_us(self) -> bool:
        ours = fs.table.fstat(self._fd)
        try:
            found = fs.table.lstat(self._resolved)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)

    def abandon(self) -> None:
        """Give everything back.  Idempotent; never raises; nothing in a forked child."""
        if self._over or self._generation != fs.fork_generation():
            return
        self._over = True
        try:
            with suppress(OSError):
                self._close()
            with suppress(OSError):
                self._gate.leave()
        finally:
            self._left()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            # By name, not only by closing: a copy in a child would keep the lock.
            fs.unlock(fd, _UNLOCK)
        finally:
            fs.close_fd(fd)


def _line_of(resolved: str) -> str:
    return f"{resolved}.windows"


def _wake(loop: asyncio.AbstractEventLoop, granted: asyncio.Future[None]) -> None:
    loop.call_soon_threadsafe(_settle, granted)


def _settle(granted: asyncio.Future[None]) -> None:
    if not granted.done():
        granted.set_result(None)
