"""
The claim that stands at the path, whoever's it is: reading it, judging it, setting it aside.

Facts and one careful removal; what may be done about a claim is decided in
`_core.staleness`, and only the holder of the latch does it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from holdfast._core.staleness import ClaimFacts
from holdfast.backends.files import fs, identity

__all__ = ["Standing", "claim_facts", "read_standing", "set_aside"]

#: File systems that several machines may share: there a boot id proves nothing.
_SHARED: Final = (
    *("nfs", "cifs", "smb", "9p", "fuse.", "ceph", "gluster", "lustre", "afs", "ocfs2"),
    *("gfs2", "virtiofs", "orangefs", "beegfs", "gpfs"),
)

#: We may not read it, or it is a symlink or a pipe: some stranger's, in any case.
_UNREADABLE: Final = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.EISDIR}


@dataclass(frozen=True, slots=True)
class Standing:
    """A claim that stands at the path, as it was read.  Close it when it is judged."""

    inode: tuple[int, int]
    payload: dict[str, Any] | None  #: None: not readable, not JSON, or not an object.
    fd: int  #: Kept open, so that the inode number means this claim; -1: not readable.

    raw: bytes = b""  #: What `payload` was read from.

    def unchanged(self) -> bool:
        """Whether its inode still carries the same claim.  If nobody can say: no."""
        try:
            return self.fd < 0 or fs.table.pread(self.fd, len(self.raw) + 1, 0) == self.raw
        except OSError:
            return False

    def close(self) -> None:
        if self.fd >= 0:
            with suppress(OSError):
                fs.close_fd(self.fd)


def read_standing(path: str) -> Standing | None:
    """The claim at *path*; None = there is none.  Raises OSError other than ENOENT."""
    try:
        fd = fs.open_fd(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        inode = _inode_at(path)
        return None if inode is None else Standing(inode, None, -1)
    try:
        found = fs.table.fstat(fd)
        raw = fs.read_all(fd) if stat.S_ISREG(found.st_mode) else b""
    except BaseException:
        fs.close_fd(fd)
        raise
    return Standing((found.st_dev, found.st_ino), _parse(raw), fd, raw)


def _parse(raw: bytes) -> dict[str, Any] | None:
    try:
        payload = json.loads(raw)
    except ValueError:
        return None
    return payload if isinstance(payload, dict) else None


def claim_facts(path: str, standing: Standing, *, latched: bool) -> ClaimFacts:
    """What `_core.staleness` needs to know about *standing* at *path*.  Raises OSError."""
    payload = standing.payload
    if payload is None or not isinstance(payload.get("claimId"), str):
        return ClaimFacts(
            ours=False, latched=latched, same_boot=False, other_boot=False,
            same_host=False, local=False,
        )  # fmt: skip
    ours, boot, host = identity.me(), payload.get("bootId"), payload.get("host")
    known = isinstance(boot, str) and ours.boot is not None
    return ClaimFacts(
        ours=True,
        latched=latched,
        same_boot=known and boot == ours.boot,
        other_boot=known and boot != ours.boot,
        same_host=host is not None and host == ours.host,
        local=_is_local(path),
    )


def set_aside(path: str, standing: Standing, claim_id: str) -> bool:
    """
    Remove *standing*, and nothing else, from *path*.

    Checking and then unlinking would remove whatever came in between (the founding
    system's race).  So: rename to a unique name, look at what was moved, and put back what
    was not meant.

    Returns:
        False: something else stood there; it was put back.  Raises OSError.
    """
    aside = f"{path}.{claim_id}.dead"
    try:
        fs.table.rename(path, aside)
    except FileNotFoundError:
        return False
    except OSError:
        if _inode_at(aside) is None:  # Else it landed and reported failure.
            raise
    meant = _inode_at(aside) == standing.inode and standing.unchanged()
    if not meant:
        with suppress(FileExistsError):
            fs.table.link(aside, path)
    fs.remove_own(aside)
    return meant


def _inode_at(path: str) -> tuple[int, int] | None:
    """Asked twice, because what was moved away must not be forgotten there."""
    for attempt in range(2):
        try:
            found = fs.table.lstat(path)
        except FileNotFoundError:
            return None
        except OSError:
            if attempt:
                raise
        else:
            return found.st_dev, found.st_ino
    return None


def _is_local(path: str) -> bool:
    """Whether *path*, resolved, is on a file system of this machine alone.  Unknown = no."""
    longest, local = -1, False
    for line in fs.read_small("/proc/self/mountinfo").decode(errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # A later mount hides an earlier one.
            longest, local = len(point), not right.startswith(_SHARED)
    return local
