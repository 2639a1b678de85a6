"""
Every system call the file backend makes about files, in one table.

Nothing else under `backends/files` calls the operating system about files.  So there is
one place to read what we ask of a file system, and one seam at which a test can make any
call fail, before or after it takes effect: replace `table`, or one entry of it.

Descriptors that carry a kernel lock are opened and closed through `open_fd` and
`close_fd`.  They are remembered, under a guard that a fork waits for, so that a forked
child can close exactly those: a lock must die with its holder, not live on in a copy of
its descriptor (rule: a forked child holds nothing).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from holdfast.backends.files.transcript import birth
from holdfast.errors import DiskFullError, ReadOnlyError, UnavailableError

if TYPE_CHECKING:
    from holdfast.errors import StoreError

__all__ = [
    "Fs",
    "byte_lock",
    "byte_unlock",
    "close_fd",
    "close_quietly",
    "first_locked",
    "fork_generation",
    "make_dirs",
    "open_fd",
    "read_all",
    "read_small",
    "remove_own",
    "store_error",
    "sync_dir",
    "table",
    "try_lock",
    "unlock",
]

#: A claim or a /proc file longer than this is not one of those we know how to read.
SMALL_FILE_MAX: Final = 65_536
_STATFS_BYTES: Final = 512  #: struct statfs takes 120; its first word is f_type.


class Fs:
    """The table.  One entry a call; the entries have the signatures of `os` and `fcntl`."""

    def __init__(self) -> None:
        # Instance attributes, not methods: a call costs one look-up, and a test can
        # replace a single entry.
        self.open = os.open
        self.close = os.close
        self.read = os.read
        self.write = os.write
        self.pread = os.pread
        self.pwrite = os.pwrite
        self.lseek = os.lseek
        self.fstat = os.fstat
        self.birth_ns = birth.birth_ns
        self.stat = os.stat
        self.lstat = os.lstat
        self.link = os.link
        self.unlink = os.unlink
        self.rename = os.rename
        self.ftruncate = os.ftruncate
        self.fchmod = os.fchmod
        self.fchown = os.fchown
        self.fdatasync = os.fdatasync
        self.fsync = os.fsync
        self.mkdir = os.mkdir
        self.listdir = os.listdir
        self.readlink = os.readlink
        self.realpath = os.path.realpath
        self.flock = fcntl.flock
        self.fcntl = fcntl.fcntl
        self.kill = os.kill
        self.getpid = os.getpid
        self.uname = os.uname
        self.monotonic = time.monotonic
        self.time_ns = time.time_ns
        self.sleep = time.sleep
        self.sched_yield = os.sched_yield
        self.statfs_type = _statfs_type


def _statfs_type(path: str) -> int:
    """The magic number of the file system that *path* is on: statfs(2)'s f_type."""
    import ctypes  # noqa: PLC0415  Only who opens a store asks.

    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), answer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return int.from_bytes(answer.raw[:4], sys.byteorder)


table = Fs()


# ------------------------------------------------------------------ errors


def store_error(
    error: OSError, path: str, doing: str, *, landed: bool | None = False
) -> StoreError:
    """
    The typed error that *error* stands for.  To be raised `from` it.

    Args:
        error: what the system call said.
        path: the file it was about.
        doing: what we were doing, for the message: "opening the gate".
        landed: whether a write that was asked for happened; None = nobody can tell.
    """
    detail = f"{doing}: {error.strerror or error}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT} and landed is False:
        return DiskFullError(path=path, detail=detail)
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM} and landed is False:
        return ReadOnlyError(path=path, detail=detail)
    return UnavailableError(path=path, detail=detail, landed=landed)


# ------------------------------------------------------------- descriptors

# Who may touch: `_open` under `_guard` only.  Re-entrant, because a signal handler may
# fork while its own thread is inside.
_guard = threading.RLock()
_open: set[int] = set()
_generation = 0


def open_fd(path: str, flags: int, mode: int = 0o600) -> int:
    """Open *path*, O_CLOEXEC, and remember the descriptor for a fork.  Raises OSError."""
    with _guard:
        fd = table.open(path, flags | os.O_CLOEXEC, mode)
        _open.add(fd)
        return fd


def close_fd(fd: int) -> None:
    """
    Close what `open_fd` gave.  Raises OSError.

    Never retried: on Linux the descriptor is gone even when close() fails, and its number
    may already be somebody else's.
    """
    with _guard:
        _open.discard(fd)
        table.close(fd)


def close_quietly(fd: int) -> None:
    """
    Close what was only read from, or is only a view.

    Never raises: a result that is had must not be replaced by what close() says.
    """
    with suppress(OSError):
        close_fd(fd)


def fork_generation() -> int:
    """How many forks lie between this process and the first.  Ours iff still the same."""
    return _generation


def _after_fork_in_child() -> None:
    global _generation  # noqa: PLW0603
    _generation += 1
    # Close only.  An unlock would act on the description that the parent still holds.
    for fd in _open:
        with suppress(OSError):
            os.close(fd)
    _open.clear()
    _guard.release()


os.register_at_fork(
    before=_guard.acquire,
    after_in_parent=_guard.release,
    after_in_child=_after_fork_in_child,
)


# ------------------------------------------------------ open-file-description locks

# struct flock on 64-bit Linux: type, whence, start, length, pid (0 for OFD locks).
_FLOCK: Final = struct.Struct("@hhqqi4x")


def byte_lock(at: int) -> bytes:
    """The kernel's argument for locking one byte; for those that are locked often."""
    return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)


def byte_unlock(at: int) -> bytes:
    return _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, at, 1, 0)


def try_lock(fd: int, lock: bytes) -> bool:
    """Take a `byte_lock`, without waiting.  False: somebody else has it.  Raises OSError."""
    try:
        table.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int, lock: bytes) -> None:
    """Give back what `byte_unlock` names.  Raises OSError."""
    table.fcntl(fd, fcntl.F_OFD_SETLK, lock)


def first_locked(fd: int, start: int, stop: int) -> int | None:
    """
    The lowest byte of [start, stop) that another description has locked, or None.

    The kernel names some conflicting lock, not the lowest; so we ask again below it.
    """
    lowest = None
    while start < stop:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, stop - start, 0)
        kind, _, at, _, _ = _FLOCK.unpack(table.fcntl(fd, fcntl.F_OFD_GETLK, asked))
        if kind == fcntl.F_UNLCK:
            break
        lowest = stop = at
    return lowest


# ------------------------------------------------------------ small whole files


def read_small(path: str) -> bytes:
    """
    The whole of a small file: one of /proc.  Raises OSError.

    Does not follow a symlink in the last place and does not wait for a pipe's writer.
    """
    fd = open_fd(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return read_all(fd)
    finally:
        close_fd(fd)


def read_all(fd: int) -> bytes:
    """From where *fd* stands to the end; /proc answers at most a page at a time."""
    raw = b""
    while len(raw) < SMALL_FILE_MAX and (more := table.read(fd, SMALL_FILE_MAX)):
        raw += more
    return raw


def sync_dir(path: str) -> None:
    """Make the names in directory *path* durable.  Raises OSError."""
    fd = open_fd(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        table.fsync(fd)
    finally:
        close_fd(fd)


def make_dirs(path: str) -> None:
    """
    Make the directory *path*, 0700, and what is missing above it, unless it is there.

    Raises OSError.  One call if it is there.
    """
    try:
        table.stat(path)
        return
    except FileNotFoundError:
        make_dirs(os.path.dirname(path))
    with suppress(FileExistsError):
        table.mkdir(path, 0o700)


def remove_own(path: str) -> None:
    """
    Unlink a private name of ours.  Twice, so that one failure leaves no stray.

    Never raises: a stray blocks nobody.
    """
    for _ in range(2):
        with suppress(OSError):
            table.unlink(path)
            return
