"""
What a path stands on: a file system of this machine alone, or one that others may share.

Every lock here is the kernel's, and every proof of death this machine's; on a file system
that several machines mount, neither binds the others.  Asked of statfs(2), whose type cannot
be renamed by a mount; the name comes from mountinfo, for people, and decides only where the
type is that of many file systems (FUSE) or of none that we know.

An unknown type is local unless its name says otherwise: most file systems are, and whoever
has a new shared one learns of it from its name.  Every FUSE file system counts as shared,
because nobody can know what its server does; but `fuseblk`, which is a disk of ours.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from holdfast.backends.files import fs

__all__ = ["FUSE", "SHARED_TYPES", "Medium", "Mount", "is_local", "medium_of", "mount_of"]

FUSE: Final = 0x65735546
#: statfs(2) f_type → the name to tell, if mountinfo has none.
SHARED_TYPES: Final = {
    0x6969: "nfs",
    0x517B: "smb",
    0xFE534D42: "smb2",
    0xFF534D42: "cifs",
    0x01021997: "9p",
    0x00C36400: "ceph",
    0x0BD00BD0: "lustre",
    0x5346414F: "afs",
    0x6B414653: "afs",
    0x73757245: "coda",
    0x564C: "ncp",
    0x7461636F: "ocfs2",
    0x01161970: "gfs2",
    0x47504653: "gpfs",
    0x19830326: "beegfs",
    0x20030528: "orangefs",
    0xAAD7AAEA: "panfs",
    0xBEEFDEAD: "snfs",
    0x013111A8: "ibrix",
    0x61636673: "acfs",
    0xBACBACBC: "vmhgfs",
    0x7C7C6673: "prl_fs",
    0x786F4256: "vboxsf",
}
#: How the names of shared ones begin, for types that are not in the table.
_SHARED_NAMES: Final = (
    *("nfs", "cifs", "smb", "9p", "fuse", "virtiofs", "ceph", "gluster", "lustre", "afs"),
    *("ocfs2", "gfs2", "gpfs", "beegfs", "orangefs", "pvfs2", "wekafs", "quobyte"),
)
_LOCAL_NAMES: Final = frozenset({"fuseblk"})


@dataclass(frozen=True, slots=True)
class Mount:
    """One row of mountinfo."""

    device: str  #: ``major:minor``, decimal; what the kernel calls the file system.
    point: str
    name: str  #: The file system's, e.g. ``ext4``, ``fuse.sshfs``.
    read_only: bool


@dataclass(frozen=True, slots=True)
class Medium:
    name: str
    shared: bool
    read_only: bool


def medium_of(path: str) -> Medium:
    """
    What *path*, or else its nearest directory that exists, is on.  Raises OSError.

    Cost: about 0.1 ms; the result is not kept, because a mount may come and go.
    """
    path = _existing(path)
    kind, mount = fs.table.statfs_type(path), mount_of(path)
    name = "" if mount is None else mount.name
    if kind in SHARED_TYPES:
        shared = True
    else:
        shared = name not in _LOCAL_NAMES and (kind == FUSE or name.startswith(_SHARED_NAMES))
    known = name or SHARED_TYPES.get(kind) or ("fuse" if kind == FUSE else f"type {kind:#x}")
    return Medium(known, shared, mount is not None and mount.read_only)


def is_local(path: str) -> bool:
    """Whether *path* is on this machine's own file system.  What cannot be read is not."""
    try:
        return not medium_of(path).shared
    except OSError:
        return False


def mount_of(path: str) -> Mount | None:
    """
    The mount that *path* is reached through; None: the kernel does not say.

    By the mount's number and not by comparing paths: a mount may hide another.
    """
    try:
        number = _mount_number(path)
        table = fs.read_small("/proc/self/mountinfo").decode(errors="surrogateescape")
    except OSError:
        return None
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        row = left.split()
        if number is not None and row[0] == number:
            options = {*row[5].split(","), *right.split()[2].split(",")}
            return Mount(row[2], _unescaped(row[4]), right.split()[0], "ro" in options)
    return None


def _mount_number(path: str) -> str | None:
    fd = fs.open_fd(path, os.O_PATH)
    try:
        told = fs.read_small(f"/proc/self/fdinfo/{fd}").decode()
    finally:
        fs.close_fd(fd)
    return next((line.split()[1] for line in told.splitlines() if "mnt_id:" in line), None)


def _existing(path: str) -> str:
    path = os.path.abspath(path)
    while not os.path.exists(path) and path != "/":
        path = os.path.dirname(path)
    return path


def _unescaped(point: str) -> str:
    for escaped, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(escaped, plain)
    return point
