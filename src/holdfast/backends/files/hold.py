"""
A write lock that is ours: what may be done under it, and giving it back.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Self

from holdfast import _points as points
from holdfast.backends.files import fs, tally
from holdfast.errors import (
    DiskFullError,
    ForkedError,
    LockLostError,
    TakeoverError,
    UnavailableError,
)

if TYPE_CHECKING:
    from holdfast.backends.files.climb import Grip
    from holdfast.errors import StoreError

__all__ = ["Hold"]


class Hold:
    """
    The write lock of one transcript, held.

    Any thread may use it; `release` and `append` may meet: an append that is under way
    finishes first, and then releases.  A forked child holds nothing: there every use
    raises ForkedError, and `release` does nothing.
    """

    __slots__ = (
        "_closing",
        "_contended",
        "_generation",
        "_grip",
        "_in_use",
        "_mutex",
        "_since_s",
        "path",
        "token",
    )

    def __init__(self, grip: Grip, token: int | None, *, contended: bool) -> None:
        self.path = grip.names.resolved  #: The transcript, resolved.
        self.token = token  #: The fencing token that the claim names; None = none was given.
        self._grip = grip
        self._contended = contended
        self._since_s = fs.table.monotonic()
        self._generation = fs.fork_generation()
        # Who may touch: `_in_use` and `_closing` under `_mutex` only.  Whoever brings
        # them to (0, True) lets go.
        self._mutex = threading.Lock()
        self._in_use = 0
        self._closing = False

    @property
    def fd(self) -> int:
        """For `os.pread`.  Valid until `release`.  Raises ForkedError, LockLostError."""
        self._ours()
        return self._fd()

    def size(self) -> int:
        """Bytes in the transcript.  Raises StoreError, ForkedError, LockLostError."""
        self._ours()
        try:
            return fs.table.fstat(self._fd()).st_size
        except OSError as error:
            raise fs.store_error(error, self.path, "looking at its size") from error

    def check(self) -> None:
        """
        Make sure that the claim at the path is still ours.  One lstat, one pread: 4 µs.

        Raises:
            LockLostError: it is not, or this hold was released.
            UnavailableError: the file system does not say.
            ForkedError: this is a forked child.
        """
        self._ours()
        claim = self._grip.claim
        try:
            stands = claim is not None and claim.stands()
        except OSError as error:
            raise fs.store_error(error, self.path, "looking at our claim") from error
        if not stands:
            raise LockLostError(path=self.path)

    def append(self, data: bytes, *, sync: bool) -> int:
        """
        Append *data*, whole lines, with one write.

        If the file does not end in a newline (a writer died in the middle of a line), a
        newline goes before *data* in the same write: the torn line stays, as one that does
        not parse, and the file only ever grows.

        Args:
            data: one or more lines, each with its newline.
            sync: fdatasync afterwards.

        Returns:
            The offset behind the last byte of *data*.

        Raises:
            LockLostError: our claim was removed.  Nothing was written.
            TakeoverError: the path names another file by now.  Nothing was written.
            DiskFullError, ReadOnlyError: nothing was written, or it was cut back.
            UnavailableError: see its `landed`; None after a failed sync.
            ForkedError: this is a forked child.

        Cancellation:
            Not a coroutine.  Run in a thread, it finishes even if nobody waits for it.
        """
        assert data.endswith(b"\n"), "whole lines only"
        self._enter()
        try:
            self.check()
            self._check_file()
            points.reach("append.checked")
            end = self._write(data)
            points.reach("append.written")
            if sync:
                self._sync()
            return end
        finally:
            self._leave()

    def release(self) -> None:
        """
        Give the lock back: claim, latch, gate, place in line.  Idempotent.

        Never raises over a result: what fails is logged.  Bounded: about ten system calls,
        none of which waits.  If an append is under way in another thread, that thread
        releases when it is done.
        """
        with self._mutex:
            if self._closing:
                return
            self._closing = True
            if self._in_use:
                self._grip.place.disown()
                return
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    # ------------------------------------------------------------------ inside

    def _ours(self) -> None:
        if self._generation != fs.fork_generation():
            raise ForkedError(what=f"the write lock of {self.path}")

    def _fd(self) -> int:
        latch = self._grip.latch
        if latch is None or latch.fd < 0:
            raise LockLostError(path=self.path, hint="this hold was released already")
        return latch.fd

    def _enter(self) -> None:
        self._ours()
        with self._mutex:
            if self._closing:
                raise LockLostError(path=self.path, hint="this hold was released already")
            self._in_use += 1

    def _leave(self) -> None:
        with self._mutex:
            self._in_use -= 1
            last = self._closing and not self._in_use
        if last:
            self._let_go()

    def _let_go(self) -> None:
        if self._generation == fs.fork_generation():
            self._grip.let_go()
            tally.add_hold(fs.table.monotonic() - self._since_s, contended=self._contended)

    def _check_file(self) -> None:
        latch = self._grip.latch
        assert latch is not None
        try:
            same = latch.names_us()
        except OSError as error:
            raise fs.store_error(error, self.path, "looking at the file") from error
        if not same:
            raise TakeoverError(path=self.path, detail="the file was replaced under our lock")

    def _write(self, data: bytes) -> int:
        fd = self._fd()
        try:
            start = fs.table.fstat(fd).st_size
            torn = start > 0 and fs.table.pread(fd, 1, start - 1) != b"\n"
        except OSError as error:
            raise fs.store_error(error, self.path, "looking at its end") from error
        whole = b"\n" + data if torn else data
        try:
            written = fs.table.write(fd, whole)
        except OSError as error:
            raise self._cut_back(error, start, len(whole)) from error
        if written < len(whole):
            raise self._cut_back(None, start, written)
        try:
            # A writer that knows nothing of locks may have appended in between.
            return fs.table.lseek(fd, 0, os.SEEK_CUR)
        except OSError:
            return start + written

    def _cut_back(self, error: OSError | None, start: int, most: int) -> StoreError:
        """Undo a short or failed write.  Returns what to raise."""
        fd, what = self._fd(), "appending"
        try:
            grown = fs.table.fstat(fd).st_size - start
            # More than we could have written: a stranger's bytes are among them.
            clean = grown <= most
            if clean and grown > 0:
                fs.table.ftruncate(fd, start)
        except OSError:
            clean = False
        if not clean:
            return UnavailableError(
                path=self.path, detail=f"{what} failed, and so did cutting back", landed=None
            )
        if error is None:
            return DiskFullError(path=self.path, detail="only a part fitted; it was cut back")
        return fs.store_error(error, self.path, what)

    def _sync(self) -> None:
        try:
            fs.table.fdatasync(self._fd())
        except OSError as error:
            raise fs.store_error(error, self.path, "syncing", landed=None) from error
