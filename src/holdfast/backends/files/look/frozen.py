"""
Processes that are stopped while others wait for them.

A stopped process that holds a write lock or is inside a control transaction can be neither
fenced nor passed over: only waited for, continued, or killed.  So whoever waits for one says
so in the log.  Stopped means by a signal (SIGSTOP, Ctrl-Z), by a debugger, or with its
cgroup (a paused container); the answer has three values, and unknown is not stopped.

One look proves little: a debugger stops a process for microseconds, again and again.  It
counts when two looks, LOOK_S apart, both find it.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from holdfast.backends.files import fs, identity
from holdfast.backends.files.lock.standing import read_standing
from holdfast.backends.files.look.kernel_locks import file_id, read_locks

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.backends.files.lock.gate import Gate

__all__ = [
    "LOOK_S",
    "Holder",
    "Lookout",
    "in_words",
    "inside",
    "is_frozen",
    "tell",
    "transaction_of",
    "writing",
]

LOOK_S: Final = 0.5  #: Between two looks of who waits; so it is told after one second.
TELL_AGAIN_S: Final = 60.0  #: The same holder of the same thing is not told oftener.
TOLD_MAX: Final = 1024

log = logging.getLogger("holdfast.frozen")

_STOPPED: Final = {"T", "t"}


@dataclass(frozen=True, slots=True)
class Holder:
    """A process of this machine and pid namespace that holds something."""

    pid: int
    start: int | None  #: Clock ticks after boot; None: not said.
    since_unix_s: float | None  #: Since when it holds it, by the wall clock; for people.


def is_frozen(pid: int, start: int | None = None) -> bool | None:
    """
    Whether the process *pid* of our pid namespace is stopped.

    Args:
        start: its start time; if the pid belongs to another by now, the answer is False.

    Returns:
        None: nobody can tell.  False also means that there is no such process.
    """
    try:
        # The command name may hold spaces and brackets: skip past it.
        words = fs.read_small(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        state, found = words[0].decode(), int(words[19])
    except (FileNotFoundError, ProcessLookupError):
        return False
    except (OSError, ValueError, IndexError):
        return None
    if start and found != start:
        return False
    return True if state in _STOPPED else _cgroup_frozen(pid)


def inside(gate: Gate) -> Holder | None:
    """Who says that it is inside *gate*."""
    record = gate.record()
    if record is None:
        return None
    pid, start, since_ms = record
    return Holder(pid, start or None, since_ms / 1000 if since_ms else None)


def writing(transcript: str, claim: str) -> Holder | None:
    """
    Who of this pid namespace has the write lock of *transcript*, which is resolved.

    Its claim says so; and where none stands, the kernel's lock on its inode.  Raises OSError.
    """
    standing = read_standing(claim)
    if standing is None:
        file = file_id(transcript)
        latches = [] if file is None else read_locks().on(file, "FLOCK")
        pid = next((lock.pid for lock in latches if lock.pid), None)
        return None if pid is None else Holder(pid, None, None)
    standing.close()
    payload = standing.payload or {}
    owner = identity.identity_of(payload)
    ours = identity.me()
    if owner is None or owner.pid <= 0:
        return None
    if owner.boot not in {None, ours.boot} or owner.pid_ns not in {None, ours.pid_ns}:
        return None
    return Holder(owner.pid, owner.start, _unix_s(payload.get("createdAt")))


def _unix_s(created_at: object) -> float | None:
    if isinstance(created_at, str):
        with suppress(ValueError):
            moment = datetime.fromisoformat(created_at)
            return moment.timestamp() if moment.tzinfo else None
    return None


def transaction_of(where: str) -> str:
    """What the store's gate stands for, in words: the same for everybody who tells of it."""
    return f"the write transaction of {where}"


class Lookout:
    """
    One waiter's eye on whom it waits for.  One thread at a time.

    Args:
        what: what is held, for the log: the path.
        holder: asks who holds it; None: nobody says.  May raise OSError.
    """

    __slots__ = ("_due_s", "_holder", "_suspect", "_told", "_what")

    def __init__(self, what: str, holder: Callable[[], Holder | None]) -> None:
        self._what, self._holder = what, holder
        self._due_s = -1.0
        self._suspect: Holder | None = None
        self._told: Holder | None = None

    def look(self, now_s: float) -> None:
        """Called at any rate while one waits; looks every LOOK_S, first after LOOK_S."""
        if now_s < self._due_s:
            return
        first, self._due_s = self._due_s < 0, now_s + LOOK_S
        if first:
            return
        try:
            holder = self._holder()
        except OSError:
            holder = None
        if holder is None or not is_frozen(holder.pid, holder.start):
            self._suspect = None
        elif holder != self._suspect:
            self._suspect = holder
        elif holder != self._told:
            self._told = holder
            tell(self._what, holder, now_s)


_told: dict[tuple[str, int, int | None], float] = {}
_mutex = threading.Lock()


def tell(what: str, holder: Holder, now_s: float) -> bool:
    """Log that *holder* is stopped, unless this process has lately.  Returns whether it did."""
    key = (what, holder.pid, holder.start)
    with _mutex:
        if now_s - _told.get(key, -TELL_AGAIN_S) < TELL_AGAIN_S:
            return False
        if len(_told) >= TOLD_MAX:
            _told.clear()
        _told[key] = now_s
    log.warning("%s", in_words(what, holder))
    return True


def in_words(what: str, holder: Holder) -> str:
    """One line: who is stopped, what it holds, since when, and what can be done."""
    since = ""
    if holder.since_unix_s is not None:
        moment = datetime.fromtimestamp(holder.since_unix_s, UTC)
        since = f" since {moment.isoformat(timespec='milliseconds')[:-6]}Z"
    return (
        f"pid {holder.pid} is stopped and holds {what}{since}: nobody can write there until it"
        f" is continued (kill -CONT {holder.pid}) or killed"
    )


def _start_afresh() -> None:
    global _mutex  # noqa: PLW0603
    _mutex = threading.Lock()
    _told.clear()


os.register_at_fork(after_in_child=_start_afresh)


# ------------------------------------------------------------------------------- cgroups


def _cgroup_frozen(pid: int) -> bool | None:
    """Whether its cgroup is frozen: v2 by `cgroup.events`, v1 by `freezer.state`."""
    try:
        rows = fs.read_small(f"/proc/{pid}/cgroup").decode().splitlines()
        points = _cgroup_points()
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return None
    answer: bool | None = False
    for row in rows:
        _, controllers, path = row.split(":", 2)
        freezes = not controllers or "freezer" in controllers.split(",")
        if not freezes or path == "/":  # A root has no freezer.
            continue
        point = points.get("freezer" if controllers else "")
        name = "freezer.state" if controllers else "cgroup.events"
        try:
            assert point is not None
            told = fs.read_small(f"{point}{path}/{name}").decode()
        except (AssertionError, OSError):
            answer = None  # Not mounted here, or seen from another namespace.
            continue
        if told.startswith(("FROZEN", "FREEZING")) or "frozen 1" in told:
            return True
    return answer


def _cgroup_points() -> dict[str, str]:
    """Where cgroups are mounted: "" for v2, ``freezer`` for v1's freezer."""
    found: dict[str, str] = {}
    for line in fs.read_small("/proc/self/mountinfo").decode(errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        kind, point = right.split()[0], left.split()[4]
        if kind == "cgroup2":
            found.setdefault("", point)
        elif kind == "cgroup" and "freezer" in right.split()[2].split(","):
            found.setdefault("freezer", point)
    return found
