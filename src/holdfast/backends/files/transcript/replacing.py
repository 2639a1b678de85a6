"""
Replacing a transcript's file while its write lock is held: the only way that one is rewritten.

    write the new file, private and synced  →  latch it  →  the old one gets a second name, the
    copy, synced  →  look once more  →  rename  →  sync the directory

**Whoever replaces the file latches the new inode before the rename and holds both latches
until release.**  Who waits for the old inode finds, once it has it, that the path names
another file, and starts again; who opens the new one finds it latched.  So nobody gets in
between, and the claim stands all the while.

The copy is the old inode itself, under another name.  It costs nothing, it is whole whatever
happens, and what a program that knows no locks appends to it at the last moment is kept.
A failure leaves the old file or the new one, never half of one; and the new one only after
the copy stands.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from holdfast import _points
from holdfast.backends.files import fs
from holdfast.backends.files.lock.latch import Latch
from holdfast.errors import TakeoverError, UnavailableError

if TYPE_CHECKING:
    from holdfast.backends.files.lock.hold import Hold

__all__ = ["Replacement"]


class Replacement:
    """
    A file that is to take the place of the one that *hold* has.

    `write` it, `put` it, and after the hold was released `close` it.  Closed without
    having been put, it leaves nothing behind.

    Raises:
        StoreError: no such file could be made.
    """

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._private = f"{hold.path}.{uuid4().hex}"
        self._latch: Latch | None = None
        self._put = False
        try:
            self._old = fs.table.fstat(hold.fd)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            fs.close_fd(fs.open_fd(self._private, flags, 0o600))
            self._latch = Latch(self._private)
            self._take_after()
        except OSError as error:
            self.close()
            raise fs.store_error(error, hold.path, "making a new file beside it") from error

    @property
    def fd(self) -> int:
        """The new file, for reading it back."""
        assert self._latch is not None
        return self._latch.fd

    @property
    def old_size(self) -> int:
        """Of the file as it was found; `put` refuses if it has grown since."""
        return self._old.st_size

    def write(self, data: bytes) -> None:
        """Raises DiskFullError, StoreError: the old file stands, untouched."""
        left = memoryview(data)
        try:
            while left:
                left = left[fs.table.write(self.fd, left) :]
        except OSError as error:
            raise fs.store_error(error, self._hold.path, "writing a new file") from error

    def put(self, copy: str) -> None:
        """
        Let the new file take its place; the old one is *copy* from then on.

        Raises:
            LockLostError, TakeoverError, StoreError: the old file stands, and no copy.
            UnavailableError: with ``landed=None``, the new file stands, and nobody can tell
                whether it would after a power cut; the old one would, then, as both names.
        """
        path = self._hold.path
        try:
            fs.table.fsync(self.fd)
            fs.table.fsync(self._hold.fd)
            assert self._latch is not None
            latched = self._latch.take()
            assert latched, "nobody else knows its name"
            self._keep(copy)
        except OSError as error:
            self._forget(copy)
            raise fs.store_error(error, path, "keeping a copy") from error
        try:
            _points.reach("replace.kept")
            self._look_again()
            self._rename()
        except OSError as error:
            self._forget(copy)
            raise fs.store_error(error, path, "replacing it") from error
        except BaseException:
            self._forget(copy)
            raise
        self._put = True
        self._latch.path = path
        _points.reach("replace.renamed")
        try:
            fs.sync_dir(os.path.dirname(path))
        except OSError as error:
            detail = f"replaced, but its directory was not synced: {error.strerror}"
            raise UnavailableError(path=path, detail=detail, landed=None) from error

    def close(self) -> None:
        """Let the new latch go; remove the new file unless it was put.  Idempotent."""
        latch, self._latch = self._latch, None
        if latch is not None:
            with suppress(OSError):  # What was done matters more; the descriptor is gone.
                latch.close()
        if not self._put:
            fs.remove_own(self._private)

    # ------------------------------------------------------------------ inside

    def _take_after(self) -> None:
        """Whoever could open the old file can open the new one."""
        made = fs.table.fstat(self.fd)
        if (made.st_uid, made.st_gid) != (self._old.st_uid, self._old.st_gid):
            fs.table.fchown(self.fd, self._old.st_uid, self._old.st_gid)
        mode = stat.S_IMODE(self._old.st_mode)
        if stat.S_IMODE(made.st_mode) != mode:
            fs.table.fchmod(self.fd, mode)

    def _keep(self, copy: str) -> None:
        try:
            fs.table.link(self._hold.path, copy)
        except OSError:
            if not self._names(copy, self._old):  # Else it landed and reported failure.
                raise
        fs.sync_dir(os.path.dirname(copy))

    def _look_again(self) -> None:
        """Claim, path and size are what they were, as far as can be known before a rename."""
        path = self._hold.path
        self._hold.check()
        if not self._names(path, self._old):
            raise TakeoverError(path=path, detail="the file was replaced under our lock")
        now = fs.table.fstat(self._hold.fd)
        before = (self._old.st_size, self._old.st_mtime_ns)
        if (now.st_size, now.st_mtime_ns) != before:
            raise TakeoverError(path=path, detail="it was written to meanwhile; try again")

    def _rename(self) -> None:
        assert self._latch is not None
        made = fs.table.fstat(self._latch.fd)
        try:
            fs.table.rename(self._private, self._hold.path)
        except OSError:
            if not self._names(self._hold.path, made):  # Else it landed.
                raise

    def _forget(self, copy: str) -> None:
        """Take the copy's name away, unless it may be the only one that the old file has."""
        with suppress(OSError):
            if self._names(self._hold.path, self._old) and self._names(copy, self._old):
                fs.remove_own(copy)

    @staticmethod
    def _names(path: str, file: os.stat_result) -> bool:
        try:
            found = fs.table.lstat(path)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == (file.st_dev, file.st_ino)
