"""
A simulated disk: inodes with link counts, directories, symlinks, what is synced and what not.

The names and bytes of one machine, without processes: who has what open is `_sim_kernel`'s.
A power cut keeps what was synced and, by a drawn lot, any part of the rest.  Only what the
lock, the transcripts and their strangers ask for is here; a call that is not is refused
loudly, so that nothing is answered by guessing.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

__all__ = ["Disk", "Inode", "Stat", "refusal"]

DEVICE: Final = 71
SYMLINKS_MAX: Final = 8


def refusal(number: int, path: object = None) -> OSError:
    """The OSError that a kernel would answer, of the right subclass."""
    return OSError(number, os.strerror(number), path)


class Inode:
    """One file, directory or symlink."""

    __slots__ = (
        "born_ns",
        "data",
        "durable",
        "flock",
        "kind",
        "links",
        "mode",
        "mtime_ns",
        "names",
        "number",
        "ranges",
        "target",
    )

    def __init__(self, number: int, kind: int, mode: int, now_ns: int) -> None:
        self.number, self.kind, self.mode, self.mtime_ns = number, kind, mode, now_ns
        self.links, self.born_ns = 0, now_ns
        self.data = bytearray()
        self.names: dict[str, Inode] = {}
        self.target = ""
        self.durable: Any = None  #: Bytes, or names, as of the last sync; None = never.
        self.flock: list[Any] = []  #: Open descriptions that hold it; two only if shared.
        self.ranges: list[tuple[int, int, Any]] = []  #: (start, stop, description).


class Stat:
    """What of `os.stat_result` is read."""

    __slots__ = (
        "st_atime",
        "st_atime_ns",
        "st_ctime",
        "st_ctime_ns",
        "st_dev",
        "st_gid",
        "st_ino",
        "st_mode",
        "st_mtime",
        "st_mtime_ns",
        "st_nlink",
        "st_size",
        "st_uid",
    )

    def __init__(self, inode: Inode) -> None:
        self.st_dev, self.st_ino, self.st_nlink = DEVICE, inode.number, inode.links
        self.st_mode, self.st_size = inode.kind | inode.mode, len(inode.data)
        self.st_uid, self.st_gid = os.geteuid(), os.getegid()
        self.st_mtime_ns = self.st_ctime_ns = self.st_atime_ns = inode.mtime_ns
        self.st_mtime = self.st_ctime = self.st_atime = inode.mtime_ns / 1e9


class Disk:
    """One file system.  Paths are absolute; no call here can be interrupted."""

    def __init__(self) -> None:
        self.made = 1
        self.root = Inode(1, stat.S_IFDIR, 0o755, 0)
        self.root.links = 1
        self.root.durable = {}

    # ------------------------------------------------------------------ paths

    def parent_of(self, path: str, depth: int = 0) -> tuple[Inode, str]:
        """The directory that holds the last name of *path*, and that name."""
        if not path.startswith("/"):
            raise refusal(errno.ENOENT, path)
        parts = [part for part in path.split("/") if part not in {"", "."}]
        if not parts:
            raise refusal(errno.EISDIR, path)
        here = self.root
        for at, part in enumerate(parts[:-1]):
            found = here.names.get(part)
            if found is None:
                raise refusal(errno.ENOENT, path)
            if found.kind == stat.S_IFLNK:
                if depth >= SYMLINKS_MAX:
                    raise refusal(errno.ELOOP, path)
                base = "/" + "/".join(parts[:at])
                led = os.path.join(base, found.target, *parts[at + 1 :])
                return self.parent_of(os.path.normpath(led), depth + 1)
            if found.kind != stat.S_IFDIR:
                raise refusal(errno.ENOTDIR, path)
            here = found
        return here, parts[-1]

    def find(self, path: str, *, follow: bool = True, depth: int = 0) -> Inode:
        """What *path* names.  Raises OSError: ENOENT, ENOTDIR, ELOOP."""
        if path == "/":
            return self.root
        directory, name = self.parent_of(path)
        found = directory.names.get(name)
        if found is None:
            raise refusal(errno.ENOENT, path)
        if follow and found.kind == stat.S_IFLNK:
            if depth >= SYMLINKS_MAX:
                raise refusal(errno.ELOOP, path)
            led = os.path.normpath(os.path.join(os.path.dirname(path), found.target))
            return self.find(led, depth=depth + 1)
        return found

    def realpath(self, path: str) -> str:
        """As `os.path.realpath`, not strict."""
        done = ""
        parts = [part for part in os.path.normpath(path).split("/") if part]
        for _ in range(256):
            if not parts:
                break
            step = f"{done}/{parts.pop(0)}"
            try:
                found = self.find(step, follow=False)
            except OSError:
                done = step
                continue
            if found.kind != stat.S_IFLNK:
                done = step
                continue
            led = os.path.normpath(os.path.join(done or "/", found.target))
            parts = [*(part for part in led.split("/") if part), *parts]
            done = ""
        return done or "/"

    # ------------------------------------------------------------------ names

    def make(self, kind: int, mode: int, now_ns: int) -> Inode:
        """An inode under no name yet."""
        self.made += 1
        return Inode(self.made, kind, mode, now_ns)

    def enter(self, path: str, inode: Inode) -> None:
        """Give *inode* a name.  Raises OSError: EEXIST among others."""
        directory, name = self.parent_of(path)
        if name in directory.names:
            raise refusal(errno.EEXIST, path)
        directory.names[name] = inode
        inode.links += 1

    def unlink(self, path: str) -> Inode:
        directory, name = self.parent_of(path)
        found = directory.names.get(name)
        if found is None:
            raise refusal(errno.ENOENT, path)
        if found.kind == stat.S_IFDIR:
            raise refusal(errno.EISDIR, path)
        del directory.names[name]
        found.links -= 1
        return found

    def rename(self, source: str, target: str) -> None:
        here, old = self.parent_of(source)
        there, new = self.parent_of(target)
        moved = here.names.get(old)
        if moved is None:
            raise refusal(errno.ENOENT, source)
        replaced = there.names.get(new)
        if replaced is moved:
            return  # POSIX: two names of one file; nothing happens.
        if replaced is not None:
            replaced.links -= 1
        del here.names[old]
        there.names[new] = moved

    def mkdir(self, path: str, mode: int, now_ns: int) -> None:
        made = self.make(stat.S_IFDIR, mode, now_ns)
        made.durable = {}
        self.enter(path, made)

    def symlink(self, target: str, path: str) -> None:
        made = self.make(stat.S_IFLNK, 0o777, 0)
        made.target = target
        self.enter(path, made)

    def files(self) -> Iterator[tuple[str, Inode]]:
        """Every name of every regular file, by path."""
        yield from _walk("", self.root)

    # -------------------------------------------------------------- durability

    @staticmethod
    def sync(inode: Inode) -> None:
        """fsync: the bytes of a file, the names of a directory."""
        inode.durable = dict(inode.names) if inode.kind == stat.S_IFDIR else bytes(inode.data)

    def power_cut(self, lots: Random) -> None:
        """Only what was synced survives for certain; of the rest, whatever the lots say."""
        _cut_names(self.root, lots)
        for inode in {id(inode): inode for _, inode in self.files()}.values():
            kept = inode.durable if inode.durable is not None else b""
            if bytes(inode.data[: len(kept)]) == kept:  # It grew: any part may have landed.
                most = len(inode.data)
                inode.data[:] = inode.data[: lots.randint(len(kept), most)]
            elif lots.random() < 0.5:
                inode.data[:] = kept
            inode.flock.clear()
            inode.ranges.clear()


def _walk(above: str, directory: Inode) -> Iterator[tuple[str, Inode]]:
    for name in sorted(directory.names):
        found, path = directory.names[name], f"{above}/{name}"
        if found.kind == stat.S_IFDIR:
            yield from _walk(path, found)
        elif found.kind == stat.S_IFREG:
            yield path, found


def _cut_names(directory: Inode, lots: Random) -> None:
    durable: dict[str, Inode] = directory.durable or {}
    for name in sorted(directory.names.keys() | durable.keys()):
        now, then = directory.names.get(name), durable.get(name)
        if now is then:
            continue
        kept = now if lots.random() < 0.5 else then
        if now is not None:
            now.links -= 1
        if kept is None:
            directory.names.pop(name, None)
        else:
            directory.names[name] = kept
            kept.links += 1
    for found in directory.names.values():
        if found.kind == stat.S_IFDIR:
            _cut_names(found, lots)
