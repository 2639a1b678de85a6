"""
The table of system calls, with every call counted and any one of them failing.

Method of the fault tests: count the calls of one successful operation; then do it again once
per call and per errno, failing that call.  A call may fail before it does anything, or do its
work and then report failure.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from holdfast.backends.files import fs, identity
from holdfast.backends.files.lock import line
from holdfast.backends.files.lock.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = [
    "ERRNOS",
    "FaultyTable",
    "check_nothing_leaked",
    "descriptors",
    "faults_of",
    "installed",
]

ERRNOS = (
    *(errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EACCES, errno.EROFS, errno.ESTALE),
    errno.EINTR,
)

#: Calls that change nothing, or whose success nobody can take back: failing them after
#: they took effect is the same as before, or does not exist.
ONLY_BEFORE = {
    "open",  # A descriptor that was made and not reported can't be closed by anybody.
    *("read", "pread", "fstat", "stat", "lstat", "readlink", "listdir", "realpath", "uname"),
    *("lseek", "statfs", "statvfs"),
}
#: On Linux the descriptor is gone even when close() reports failure.
ONLY_AFTER = {"close"}
#: Clocks do not fail, nor does asking who one is.
CLOCKS = {"monotonic", "time_ns", "sleep", "getpid"}


class FaultyTable:
    """
    The real table.

    Args:
        at: which call fails: its name, and the how-manieth of that name, from 1.
        code: the errno that it fails with.
        landed: it does its work first.
    """

    def __init__(
        self, *, at: tuple[str, int] = ("", 0), code: int = 0, landed: bool = False
    ) -> None:
        self._real, self._at, self._code, self._landed = fs.Fs(), at, code, landed
        self.calls: list[str] = []
        self.refuse_tmpfile = False
        self.fell = False  #: Whether the call that was to fail was made at all.

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call: Callable[..., Any] = getattr(self._real, name)
        if name in CLOCKS:
            return call

        def faulty(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if self.refuse_tmpfile and name == "open" and self._asks_tmpfile(args):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            if name == self._at[0] and self.calls.count(name) == self._at[1]:
                self.fell = True
                if self._landed:
                    call(*args, **kwargs)
                raise OSError(self._code, os.strerror(self._code))
            return call(*args, **kwargs)

        return faulty

    @staticmethod
    def _asks_tmpfile(args: tuple[Any, ...]) -> bool:
        return bool(args[1] & os.O_TMPFILE == os.O_TMPFILE)


def faults_of(
    calls: Sequence[str], codes: Iterable[int] = ERRNOS
) -> Iterator[tuple[dict[str, Any], str]]:
    """Every fault that *calls* can meet: what `FaultyTable` takes, and its name."""
    codes = tuple(codes)
    numbers: Counter[str] = Counter()
    for name in calls:
        numbers[name] += 1
        at = (name, numbers[name])
        for code in codes:
            for landed in (False, True):
                if (landed and name in ONLY_BEFORE) or (not landed and name in ONLY_AFTER):
                    continue
                where = (
                    f"{name}-{at[1]}-{errno.errorcode[code]}-{'after' if landed else 'before'}"
                )
                yield {"at": at, "code": code, "landed": landed}, where


@contextmanager
def installed(table: FaultyTable) -> Iterator[None]:
    """*table* in place of the real one."""
    identity._forget()  # So that /proc is read, and fails, as well.
    real, fs.table = fs.table, table  # type: ignore[assignment]
    try:
        yield
    finally:
        fs.table = real
        identity._forget()


def descriptors() -> set[str]:
    """All that are open, but the one by which we look."""
    found = os.listdir("/proc/self/fd")
    return {fd for fd in found if os.path.lexists(f"/proc/self/fd/{fd}")}


def check_nothing_leaked(path: str, before: set[str], where: str) -> None:
    """Nobody holds, remembers or waits for anything of the transcript at *path*."""
    leaked = {os.readlink(f"/proc/self/fd/{fd}") for fd in descriptors() - before}
    assert not leaked, f"{where}: descriptors leaked: {leaked}"
    assert fs._open == set(), f"{where}: a descriptor is still remembered"
    assert line.lines() == {}, f"{where}: somebody is still in line"
    assert line._inodes == {}, f"{where}: a latch is still noted"
    if os.path.exists(path + ".gate"):
        Gate(path + ".gate").acquire(0).release()  # No ticket is left.
