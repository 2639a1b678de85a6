"""
A simulated kernel: descriptors, flock, open-file-description locks, /proc, clocks.

It answers for every entry of `fs.table`, for whichever simulated process is running.  Locks
belong to open descriptions and go with the last descriptor, so a crash is nothing but
dropping the descriptors.  Each call is one atomic step; before it, the world may let
somebody else run, strike with a fault, or end the process.
"""

from __future__ import annotations

import errno
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from holdfast.testing._sim_disk import Stat, refusal
from holdfast.testing._sim_locks import Description, flock, ofd_lock
from holdfast.testing._sim_proc import Proc

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.testing._sim_disk import Inode
    from holdfast.testing._sim_world import World

__all__ = ["CLOCK_NS", "Kernel"]

FDS_MAX: Final = 256
CLOCK_NS: Final = 1_000  #: What asking for the time takes; so no loop stands still in time.
QUIET: Final = frozenset({"monotonic", "time_ns", "getpid", "uname"})  #: Nobody else sees them.
EXT4: Final = 0xEF53

_TMPFILE: Final = os.O_TMPFILE & ~os.O_DIRECTORY


class Kernel:
    """The calls.  One method an entry of the table, with the signature of `os`."""

    def __init__(self, world: World) -> None:
        self.world, self.disk = world, world.disk
        self.proc = Proc(world)

    def table(self, names: list[str]) -> dict[str, Callable[..., Any]]:
        """The entries of *names*.  One we do not play says so when it is called."""
        return {name: self._entry(name) for name in names}

    def _entry(self, name: str) -> Callable[..., Any]:
        play = getattr(self, name, None)
        if play is None:
            return partial(_not_played, name)
        call: Callable[..., Any] = play
        if name in QUIET:
            return call
        step, world = self.world.step, self.world

        def entry(*args: Any, **named: Any) -> Any:
            after = step(name, args)
            result = call(*args, **named)
            if world.trace is not None:
                world.note_call(name, args, result)
            if after is not None:
                raise after
            return result

        return entry

    # ------------------------------------------------------------- open and close

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        if len(self.world.process.fds) >= FDS_MAX:
            raise refusal(errno.EMFILE, path)
        if path.startswith("/proc/"):
            return self._new(Description(self.proc.file(path), flags))
        if flags & _TMPFILE:
            made = self.disk.make(stat.S_IFREG, mode, self.world.wall_ns())
            return self._new(Description(made, flags & ~os.O_TMPFILE))
        found = self._opened(path, flags, mode)
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        if found.kind == stat.S_IFDIR and writes:
            raise refusal(errno.EISDIR, path)
        if found.kind != stat.S_IFDIR and flags & os.O_DIRECTORY:
            raise refusal(errno.ENOTDIR, path)
        if flags & os.O_TRUNC and writes:
            del found.data[:]
        return self._new(Description(found, flags))

    def _opened(self, path: str, flags: int, mode: int) -> Inode:
        directory, name = self.disk.parent_of(path)
        found = directory.names.get(name)
        if flags & os.O_CREAT and flags & os.O_EXCL and found is not None:
            raise refusal(errno.EEXIST, path)
        if found is not None and found.kind == stat.S_IFLNK:
            if flags & os.O_NOFOLLOW:
                raise refusal(errno.ELOOP, path)
            found = self.disk.find(path)
        if found is None:
            if not flags & os.O_CREAT:
                raise refusal(errno.ENOENT, path)
            found = self.disk.make(stat.S_IFREG, mode, self.world.wall_ns())
            self.disk.enter(path, found)
        return found

    def _new(self, description: Description) -> int:
        fds = self.world.process.fds
        fd = next(number for number in range(3, FDS_MAX + 3) if number not in fds)
        fds[fd] = description
        return fd

    def close(self, fd: int) -> None:
        if self.world.process.dead:
            return
        description = self._of(fd)
        del self.world.process.fds[fd]
        self.drop(description)

    @staticmethod
    def drop(description: Description) -> None:
        """One descriptor less; with the last one every lock of the description goes."""
        description.refs -= 1
        if description.refs:
            return
        inode = description.inode
        if description in inode.flock:
            inode.flock.remove(description)
        if inode.ranges:
            inode.ranges = [held for held in inode.ranges if held[2] is not description]

    def _of(self, fd: int) -> Description:
        found = self.world.process.fds.get(fd)
        if found is None:
            raise refusal(errno.EBADF)
        return found

    # ------------------------------------------------------------- bytes

    def read(self, fd: int, size: int) -> bytes:
        description = self._of(fd)
        if description.inode.kind == stat.S_IFDIR:
            raise refusal(errno.EISDIR)
        start = description.offset
        data = bytes(description.inode.data[start : start + size])
        description.offset = start + len(data)
        return data

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        inode = self._of(fd).inode
        if inode.kind == stat.S_IFDIR:
            raise refusal(errno.EISDIR)
        return bytes(inode.data[offset : offset + size])

    def write(self, fd: int, data: bytes) -> int:
        description = self._of(fd)
        if description.flags & os.O_APPEND:
            description.offset = len(description.inode.data)
        written = self._put(description, data, description.offset)
        description.offset += written
        return written

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return self._put(self._of(fd), data, offset)

    def _put(self, description: Description, data: bytes, offset: int) -> int:
        if not description.flags & (os.O_WRONLY | os.O_RDWR):
            raise refusal(errno.EBADF)
        inode, world = description.inode, self.world
        fits = bytes(data)[: world.fitting(len(data))]
        if len(inode.data) < offset:
            inode.data.extend(bytes(offset - len(inode.data)))
        inode.data[offset : offset + len(fits)] = fits
        inode.mtime_ns = world.wall_ns()
        world.oracle.wrote(world.process, inode, fits)
        world.after_write()
        return len(fits)

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        description = self._of(fd)
        base = {os.SEEK_SET: 0, os.SEEK_CUR: description.offset}
        base[os.SEEK_END] = len(description.inode.data)
        description.offset = base[whence] + offset
        return description.offset

    def ftruncate(self, fd: int, size: int) -> None:
        inode = self._of(fd).inode
        del inode.data[size:]
        inode.data.extend(bytes(size - len(inode.data)))
        self.world.oracle.cut(self.world.process, inode)

    def fsync(self, fd: int) -> None:
        self.disk.sync(self._of(fd).inode)

    fdatasync = fsync

    # ------------------------------------------------------------- names

    def fstat(self, fd: int) -> Stat:
        return Stat(self._of(fd).inode)

    def stat(self, path: str) -> Stat:
        if path.startswith("/proc/"):
            return Stat(self.proc.file(path))
        return Stat(self.disk.find(path))

    def lstat(self, path: str) -> Stat:
        return Stat(self.disk.find(path, follow=False))

    def link(
        self,
        source: str,
        target: str,
        *,
        src_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        magic = source.removeprefix("/proc/self/fd/")
        if magic != source:
            assert src_dir_fd is not None, "`os.link` follows the magic link only with one"
            inode = self._of(int(magic)).inode
        else:
            inode = self.disk.find(source, follow=follow_symlinks)
        self.disk.enter(target, inode)
        self.world.oracle.linked(self.world.process, target, inode)

    def unlink(self, path: str) -> None:
        self.world.oracle.unlinked(self.world.process, path, self.disk.unlink(path))

    def rename(self, source: str, target: str) -> None:
        moved = self.disk.find(source, follow=False)
        self.disk.rename(source, target)
        self.world.oracle.renamed(self.world.process, source, target, moved)

    def fchmod(self, fd: int, mode: int) -> None:
        self._of(fd).inode.mode = mode

    def fchown(self, fd: int, uid: int, gid: int) -> None:
        self._of(fd)
        assert (uid, gid) == (os.geteuid(), os.getegid()), "there is one user"

    def birth_ns(self, fd: int) -> int:
        return self._of(fd).inode.born_ns

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self.disk.mkdir(path, mode, self.world.wall_ns())

    def listdir(self, path: str) -> list[str]:
        if path.startswith("/proc"):
            return self.proc.list(path)
        found = self.disk.find(path)
        if found.kind != stat.S_IFDIR:
            raise refusal(errno.ENOTDIR, path)
        return list(found.names)

    def readlink(self, path: str) -> str:
        if path.startswith("/proc/"):
            return self.proc.link(path)
        found = self.disk.find(path, follow=False)
        if found.kind != stat.S_IFLNK:
            raise refusal(errno.EINVAL, path)
        return found.target

    def realpath(self, path: str) -> str:
        return self.disk.realpath(path)

    def statfs_type(self, path: str) -> int:
        self.disk.find(path)
        return EXT4

    # ------------------------------------------------------------- locks

    def flock(self, fd: int, operation: int) -> None:
        flock(self._of(fd), operation)

    def fcntl(self, fd: int, command: int, argument: bytes) -> bytes:
        return ofd_lock(self._of(fd), command, argument)

    # ------------------------------------------------------------- who, and when

    def getpid(self) -> int:
        return self.world.process.pid

    def kill(self, pid: int, number: int) -> None:
        if number:
            raise NotImplementedError("only signal 0 is simulated")
        if self.world.running(pid) is None:
            raise refusal(errno.ESRCH)

    def uname(self) -> Any:
        return os.uname_result(("Linux", "sim", "6.0", "#1", "x86_64"))

    def monotonic(self) -> float:
        self.world.now_ns += CLOCK_NS
        return self.world.process.clock_ns() / 1e9

    def time_ns(self) -> int:
        self.world.now_ns += CLOCK_NS
        return self.world.wall_ns()

    def sleep(self, seconds: float) -> None:
        self.world.sleep(seconds)

    def sched_yield(self) -> None:
        self.world.sleep(0.0)


def _not_played(name: str, *_: object, **__: object) -> None:
    raise NotImplementedError(f"the simulator has no {name}: teach it, in _sim_kernel.py")
