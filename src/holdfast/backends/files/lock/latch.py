"""
The latch: flock on the transcript's own inode.

All names of one file are one inode, so symlinks, hard links and bind mounts are one lock.
The price is that the name may come to mean another inode while we open and wait: so once
the latch is held, the path is looked at again, and if it names something else we start over.

A missing transcript is first published whole, by link, with its header: nobody, stranger
or ours, ever sees a file without one, and of several creators one wins and the others
open what it made.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from holdfast.backends.files import fs
from holdfast.errors import BadTranscriptError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Latch", "publish_file"]

_NOT: Final = -1
_WANTED: Final = -2


class Latch:
    """One open descriptor of a transcript, and perhaps the kernel lock on its inode."""

    __slots__ = ("_generation", "_lingering", "fd", "held", "inode", "path")

    def __init__(self, path: str) -> None:
        """
        Open *path*, which is resolved, for reading and appending.

        Raises:
            FileNotFoundError: there is no such file.
            BadTranscriptError: not a regular file, or not ours to read and write.
            OSError: anything else, ELOOP among it: the name became a symlink.
        """
        self.path = path
        self.held = False
        self._lingering = _NOT  #: What is left to `bury`.
        self._generation = fs.fork_generation()
        try:
            self.fd = fs.open_fd(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (IsADirectoryError, PermissionError) as error:
            raise _not_a_transcript(path, error.strerror or str(error)) from error
        except OSError as error:
            if error.errno in {errno.ENXIO, errno.ENODEV, errno.ENOTDIR}:
                raise _not_a_transcript(path, error.strerror or str(error)) from error
            raise
        try:
            found = fs.table.fstat(self.fd)
            if not stat.S_ISREG(found.st_mode):
                raise _not_a_transcript(path, "not a regular file")
        except BaseException:
            self.close()
            raise
        self.inode = (found.st_dev, found.st_ino)

    def take(self) -> bool:
        """Lock, without waiting.  False: another description has it.  Raises OSError."""
        try:
            fs.table.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.held = True
        return True

    def names_us(self) -> bool:
        """Whether the path still names our inode.  Raises OSError other than ENOENT."""
        try:
            found = fs.table.lstat(self.path)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self.inode

    def close(self) -> None:
        """Unlock and close.  Idempotent.  Raises OSError, after having closed."""
        fd, self.fd = self.fd, -1
        if fd < 0 or self._generation != fs.fork_generation():
            return
        held, self.held = self.held, False
        unlocked = False
        try:
            # By name, not only by closing: a copy of the descriptor, in a child that has
            # not reached exec yet, would keep the lock.
            if held:
                fs.table.flock(fd, fcntl.LOCK_UN)
                unlocked = True
        finally:
            # What could not be unlocked is closed all the same: that unlocks it as well.
            if self._lingering == _WANTED and unlocked:
                self._lingering = fd
            else:
                fs.close_fd(fd)

    def linger(self) -> None:
        """Let `close` only unlock: somebody may be reading.  `bury` it then."""
        self._lingering = _WANTED

    def bury(self) -> None:
        """Close what `linger` left open.  Idempotent.  Raises OSError, after having closed."""
        fd, self._lingering = self._lingering, _NOT
        if fd >= 0 and self._generation == fs.fork_generation():
            fs.close_fd(fd)


def publish_file(path: str, content: Callable[[], bytes] | None) -> None:
    """
    Create *path* whole and durable, unless it exists.

    Args:
        content: makes the first bytes; called at most once.  None: the file starts empty.

    Raises:
        BadTranscriptError: its directory does not exist or is not a directory.
        OSError: it could not be created; a private name may be left behind, no half file.

    Cost:
        Two syncs: of the file, and of its directory.
    """
    data = b"" if content is None else content()
    private = f"{path}.{uuid4().hex}"
    try:
        fd = fs.open_fd(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _not_a_transcript(path, "its directory does not exist") from error
    try:
        try:
            left = memoryview(data)
            while left:
                left = left[fs.table.write(fd, left) :]
            fs.table.fsync(fd)
        finally:
            fs.close_fd(fd)
        with suppress(FileExistsError):  # Another creator won; theirs is as good.
            fs.table.link(private, path)
    finally:
        fs.remove_own(private)
    fs.sync_dir(os.path.dirname(path))


def _not_a_transcript(path: str, detail: str) -> BadTranscriptError:
    return BadTranscriptError(
        path=path, detail=detail, hint="give the path of a regular file you may write to"
    )
