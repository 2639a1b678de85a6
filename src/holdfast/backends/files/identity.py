"""
Who this process is, and what can be known about another.

A pid alone names nobody: it is reused, and means something else in another pid namespace.
So an owner is (pid, start time, boot id, pid namespace, host), and the answer about one has
three values.  Facts only; what may be done about them is decided in `_core.staleness`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from holdfast.backends.files import fs

if TYPE_CHECKING:
    from holdfast.types import Owner

__all__ = ["Identity", "Life", "facts_about", "identity_of", "life_of", "me", "of_owner"]
__all__ += ["owner_life", "start_of"]

Life = Literal["alive", "dead", "unknown"]

_GONE_STATES: Final = {"Z", "X", "x"}  #: Zombie, or on its way out.


@dataclass(frozen=True, slots=True)
class Identity:
    """One process.  A field that could not be read is None, and equals nothing."""

    pid: int
    start: int | None  #: Clock ticks after boot; field 22 of /proc/<pid>/stat.
    boot: str | None
    pid_ns: int | None  #: Inode number of the pid namespace.
    host: str | None


_PID_STOP: Final = 2**31  #: No process can have such a number, and kill(2) takes none.

_me: Identity | None = None


def me() -> Identity:
    """This process.  Read once; a forked child reads its own.  Raises OSError."""
    global _me  # noqa: PLW0603
    if _me is None:
        _, start = _stat_of("/proc/self/stat")
        _me = Identity(
            pid=fs.table.getpid(),
            start=start,
            boot=fs.read_small("/proc/sys/kernel/random/boot_id").decode().strip(),
            pid_ns=_pid_namespace(),
            host=fs.table.uname().nodename,
        )
    return _me


def facts_about(other: Identity) -> Life:
    """
    Whether *other* still runs.  Never raises: what cannot be read is `unknown`.

    - another host: unknown; a clone may have any name, but a different one is not ours
    - same host, another boot: dead, whatever else it says
    - another pid namespace: unknown; its pid means another process here
    - EPERM: alive; somebody else's process is a process
    - a zombie whose whole thread group is gone: dead; its descriptors are closed
    - a pid that started at another time: dead; the number was reused
    """
    try:
        verdict = _by_place(other, me())
        return life_of(other.pid, other.start) if verdict is None else verdict
    except OSError:
        return "unknown"


def _by_place(other: Identity, ours: Identity) -> Life | None:
    """What host, boot and namespace say; None: that its pid is one of ours."""
    if other.host is None or other.host != ours.host:
        return "unknown"
    if other.boot is None or ours.boot is None:
        return "unknown"
    if other.boot != ours.boot:
        return "dead"
    if other.pid_ns is None or other.pid_ns != ours.pid_ns or not 0 < other.pid < _PID_STOP:
        return "unknown"
    return None


def identity_of(claim: dict[str, Any]) -> Identity | None:
    """The owner that a claim's payload names; None if it names no pid."""
    pid = claim.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < _PID_STOP:
        return None
    start, pid_ns = claim.get("starttime"), claim.get("pidNamespace")
    boot, host = claim.get("bootId"), claim.get("host")
    return Identity(
        pid=pid,
        start=start if isinstance(start, int) else None,
        boot=boot if isinstance(boot, str) else None,
        pid_ns=pid_ns if isinstance(pid_ns, int) else None,
        host=host if isinstance(host, str) else None,
    )


def of_owner(owner: Owner) -> Identity:
    """The process behind an owner's row."""
    return Identity(owner.pid, owner.start_time, owner.boot_id, owner.pid_namespace, owner.host)


def owner_life(claim: dict[str, Any]) -> Life:
    """`facts_about` the owner that a claim's payload names."""
    owner = identity_of(claim)
    return "unknown" if owner is None else facts_about(owner)


def life_of(pid: int, start: int | None) -> Life:
    """Of a pid of our own namespace.  *start*: None = whoever has it.  Raises OSError."""
    try:
        state, found = _stat_of(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return _life_by_signal(pid)
    except PermissionError:
        return "alive"
    if start is not None and found != start:
        return "dead"
    if state in _GONE_STATES and not _has_live_thread(pid):
        return "dead"
    return "alive"


def start_of(pid: int) -> int:
    """When it started, in clock ticks after boot.  Raises OSError."""
    return _stat_of(f"/proc/{pid}/stat")[1]


def _life_by_signal(pid: int) -> Life:
    """/proc may hide it (hidepid); signal 0 does not."""
    try:
        fs.table.kill(pid, 0)
    except ProcessLookupError:
        return "dead"
    except PermissionError:
        return "alive"
    return "alive"


def _has_live_thread(pid: int) -> bool:
    """A leader may exit before its threads; its descriptors live as long as they do."""
    try:
        threads = fs.table.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return False
    for thread in threads:
        try:
            state, _ = _stat_of(f"/proc/{pid}/task/{thread}/stat")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in _GONE_STATES:
            return True
    return False


def _stat_of(path: str) -> tuple[str, int]:
    """(state, start time).  The command name may hold spaces and brackets: skip past it."""
    after_name = fs.read_small(path).rpartition(b")")[2].split()
    return after_name[0].decode(), int(after_name[19])


def _pid_namespace() -> int:
    # "pid:[4026531836]"
    return int(fs.table.readlink("/proc/self/ns/pid").partition("[")[2].rstrip("]"))


def _forget() -> None:
    global _me  # noqa: PLW0603
    _me = None


os.register_at_fork(after_in_child=_forget)
