"""Kernel locks of the simulated machine: they belong to open file descriptions."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Final

from holdfast.testing._sim_disk import refusal

if TYPE_CHECKING:
    from holdfast.testing._sim_disk import Inode

__all__ = ["Description", "flock", "ofd_lock"]

_FLOCK: Final = struct.Struct("@hhqqi4x")  # type, whence, start, length, pid
_END: Final = 1 << 62
_Range = tuple[int, int, "Description"]


class Description:
    """An open file description: what locks belong to."""

    __slots__ = ("flags", "inode", "offset", "refs")

    def __init__(self, inode: Inode, flags: int) -> None:
        self.inode, self.flags, self.offset, self.refs = inode, flags, 0, 1


def flock(description: Description, operation: int) -> None:
    """flock(2), without waiting.  Raises OSError: EWOULDBLOCK."""
    holders = description.inode.flock
    if operation & fcntl.LOCK_UN:
        if description in holders:
            holders.remove(description)
        return
    if not operation & fcntl.LOCK_NB:
        raise NotImplementedError("a flock that waits is not simulated")
    others = [held for held in holders if held is not description]
    if others and (operation & fcntl.LOCK_EX or len(holders) == 1):
        raise refusal(errno.EWOULDBLOCK)
    holders[:] = [*others, description]


def ofd_lock(description: Description, command: int, argument: bytes) -> bytes:
    """fcntl(2) with F_OFD_SETLK or F_OFD_GETLK.  Raises OSError: EAGAIN."""
    kind, whence, start, length, pid = _FLOCK.unpack(argument)
    if whence != os.SEEK_SET or kind == fcntl.F_RDLCK:
        raise NotImplementedError("only exclusive locks from the start are simulated")
    stop = start + length if length else _END
    conflict = _conflict(description, start, stop)
    if command == fcntl.F_OFD_GETLK:
        if conflict is None:
            return _FLOCK.pack(fcntl.F_UNLCK, whence, start, length, pid)
        size = conflict[1] - conflict[0]
        return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, conflict[0], size, -1)
    if command != fcntl.F_OFD_SETLK:
        raise NotImplementedError(f"fcntl {command} is not simulated")
    if kind == fcntl.F_WRLCK and conflict is not None:
        raise refusal(errno.EAGAIN)
    kept = [
        each
        for held in description.inode.ranges
        for each in _without(held, description, start, stop)
    ]
    if kind == fcntl.F_WRLCK:
        kept.append((start, stop, description))
    description.inode.ranges = kept
    return argument


def _conflict(description: Description, start: int, stop: int) -> _Range | None:
    """Some lock of another description, not the lowest: the kernel promises no more."""
    found = None
    for held in description.inode.ranges:
        if held[0] < stop and start < held[1] and held[2] is not description:
            found = held
    return found


def _without(held: _Range, description: Description, start: int, stop: int) -> list[_Range]:
    """What of *held* is outside of [start, stop), if it is the description's own."""
    if held[2] is not description or held[0] >= stop or start >= held[1]:
        return [held]
    rest = [(held[0], start, description), (stop, held[1], description)]
    return [each for each in rest if each[0] < each[1]]
