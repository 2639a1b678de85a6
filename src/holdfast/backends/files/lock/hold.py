"""
A write lock that is ours: what may be done under it, and giving it back.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from holdfast import _points as points
from holdfast.backends.files import fs
from holdfast.backends.files.lock import writing
from holdfast.backends.files.lock.tenure import Tenure, Terms
from holdfast.errors import LockLostError, TakeoverError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.backends.files.lock.climb import Climb

__all__ = ["Ascent", "Hold", "Terms"]


class Hold(Tenure):
    """
    The write lock of one transcript, held.

    Any thread may use it; `release`, `abort` and `append` may meet: an append that is under
    way finishes first, and then releases.  A forked child holds nothing: there every use
    raises ForkedError, and `release` does nothing.

    Whoever passes `max_hold_ms` loses it to the watchdog: see `aborted`.
    """

    __slots__ = ()

    @property
    def fd(self) -> int:
        """
        For `os.pread`: valid until `release`, even when the hold is aborted meanwhile.
        Whoever writes to it asks `using`.  Raises ForkedError, LockLostError.
        """
        self._ours()
        if self._closing:
            raise self._lost()
        return self._fd()

    def size(self) -> int:
        """Bytes in the transcript.  Raises StoreError, ForkedError, LockLostError."""
        fd = self.fd
        try:
            return fs.table.fstat(fd).st_size
        except OSError as error:
            raise fs.store_error(error, self.path, "looking at its size") from error

    def check(self) -> None:
        """
        Make sure that the claim at the path is still ours.  One lstat, one pread: 4 µs.

        Raises:
            LockLostError: it is not, or this hold was ended or released.
            UnavailableError: the file system does not say.
            ForkedError: this is a forked child.
        """
        self._ours()
        if self._closing:
            raise self._lost()
        self._check_claim()

    @contextmanager
    def using(self) -> Iterator[int]:
        """
        The descriptor, for a write of several calls: until it is left, nobody releases.

        Raises:
            LockLostError: the hold is over, or our claim was removed.
            TakeoverError: the path names another file by now.
            UnavailableError: the file system does not say.
            ForkedError: this is a forked child.
        """
        self._enter()
        try:
            self._check_claim()
            self._check_file()
            yield self._fd()
        finally:
            self._leave()

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
            LockLostError: our claim was removed, or this hold ended.  Nothing was written.
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
            self._check_claim()
            self._check_file()
            points.reach("append.checked")
            assert self._grip.claim is not None
            end = writing.append(self._fd(), self.path, data, self._grip.claim.stands)
            points.reach("append.written")
            if sync:
                writing.sync(self._fd(), self.path)
            points.reach("append.synced")
            return end
        finally:
            self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    # ------------------------------------------------------------------ inside

    def _check_claim(self) -> None:
        claim = self._grip.claim
        assert claim is not None
        try:
            stands = claim.stands()
        except OSError as error:
            raise fs.store_error(error, self.path, "looking at our claim") from error
        if not stands:
            raise LockLostError(path=self.path)

    def _check_file(self) -> None:
        latch = self._grip.latch
        assert latch is not None
        try:
            same = latch.names_us()
        except OSError as error:
            raise fs.store_error(error, self.path, "looking at the file") from error
        if not same:
            raise TakeoverError(path=self.path, detail="the file was replaced under our lock")


class Ascent:
    """
    A climb that ends in a hold, whoever takes the last step.

    So the watchdog sees a lock that was had for a loop which stands still.
    """

    def __init__(self, climb: Climb, make: Callable[[Climb], Hold]) -> None:
        self._climb, self._make = climb, make
        self.hold: Hold | None = None

    def step(self, *, may_block: bool) -> float | None:
        wait_s = self._climb.step(may_block=may_block)
        if wait_s is None:
            self.hold = self._make(self._climb)
        return wait_s

    def abandon(self) -> None:
        if self.hold is None:
            self._climb.abandon()
        else:
            self.hold.release()
