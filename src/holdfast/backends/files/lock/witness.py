"""
What can be witnessed about the owner of a claim: by the kernel's locks and by /proc.

Facts only, of three values: yes, no, and "nobody can tell".  What may be done about them is
decided in `_core.staleness`.

**A pid without a namespace** (the founding format names none) may count in any namespace of
the machine.  Whoever is in the initial one sees every process, under its number there and,
in `/proc/<pid>/status`, under its number in its own.  So there, and only there, and only if
/proc hides nobody from us, "no process has that pid and that start time" is proof.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from holdfast.backends.files import fs, identity
from holdfast.backends.files.look.kernel_locks import INITIAL_PID_NAMESPACE, file_id, read_locks

if TYPE_CHECKING:
    from holdfast._core.staleness import LatchIs, ProcessIs
    from holdfast.backends.files.identity import Identity

__all__ = ["latch_is", "process_anywhere", "process_here", "program_of", "sees_everybody"]

INITIAL_USER_NAMESPACE: Final = 4_026_531_837
_NO_LINK: Final = ""
#: Of several that have one number: the one that speaks most for a living owner.
_CERTAINTY: Final[tuple[ProcessIs, ...]] = ("gone", "recycled", "?", "unsure", "itself")


def latch_is(path: str, owner: Identity | None, *, busy: bool) -> LatchIs:
    """
    Who has the latch of the transcript at *path*, by the kernel's list.  Takes nothing.

    Args:
        owner: whom the claim names, if its pid is one of our namespace.
        busy: the caller has just found the latch taken.

    Returns:
        "owner" also where the kernel does not name anybody who could be another: that is
        the answer which removes nothing.
    """
    try:
        file, locks = file_id(path), read_locks()
    except (OSError, ValueError):
        return "owner" if busy else "?"
    if file is None:
        return "free"
    holders = [lock.pid for lock in locks.on(file, "FLOCK")]
    if not holders and locks.sees_all:
        return "free"
    if not holders:  # Perhaps somebody whom our /proc does not list.
        return "owner" if busy else "?"
    if owner is None or owner.pid in holders:
        return "owner"
    another = any(pid and process_here(pid, None) != "gone" for pid in holders)
    return "another" if another else "owner"


def process_here(pid: int, start: int | None) -> ProcessIs:
    """
    Whether the process *pid* of our own pid namespace runs, and is the one that started then.

    EPERM means that it lives.  A start time is compared only within one time namespace.
    Never raises.
    """
    try:
        life = identity.life_of(pid, None)
        if life == "dead":
            return "gone"
        if life != "alive":
            return "?"
        found = identity.start_of(pid)
    except OSError:  # Hidden from us, or ending at this moment: another look will tell.
        return "unsure"
    if start is not None and found == start:
        return "itself"
    if start is None or not _same_clock(pid):
        return "unsure"
    return "recycled"


def process_anywhere(pid: int, start: int | None) -> ProcessIs:
    """
    The same for a pid that may count in any pid namespace of this machine.

    "gone" only if we see everybody; else "?".  Never raises.

    Cost: a look at every process, about 7 µs each; only if nobody here is the one.
    """
    best = process_here(pid, start)
    if best == "itself" or (best == "unsure" and start is None):
        return best  # Nobody could be more certain.
    try:
        if not sees_everybody():
            return "unsure" if best == "unsure" else "?"
        for name in fs.table.listdir("/proc"):
            if name.isdigit() and _counts_as(name, pid):
                best = max(best, process_here(int(name), start), key=_CERTAINTY.index)
    except OSError:
        return "?"
    return best


def sees_everybody() -> bool:
    """Whether /proc shows us every process of the machine.  Raises OSError."""
    ours = identity.me()
    if ours.pid_ns != INITIAL_PID_NAMESPACE:
        return False
    if fs.table.readlink("/proc/self") != str(ours.pid):
        return False  # It is the /proc of another namespace.
    hidden = False
    for line in fs.read_small("/proc/self/mounts").decode(errors="replace").splitlines():
        _, point, _, options = line.split()[:4]
        if point == "/proc":  # A later mount hides an earlier one.
            hidden = any(word.startswith("hidepid=") for word in options.split(","))
    if not hidden:
        return True
    in_initial = _link("self", "user") == f"user:[{INITIAL_USER_NAMESPACE}]"
    return in_initial and os.geteuid() == 0


def program_of(pid: int) -> str | None:
    """
    The name of the program that *pid* of our namespace runs; None = nobody says.

    For words only.  A claim whose owner runs some other program is as good as any: who
    judges by the command line removes live owners.  Never the arguments: they hold secrets.
    """
    try:
        return fs.read_small(f"/proc/{pid}/comm").decode(errors="replace").strip() or None
    except OSError:
        return None


def _counts_as(name: str, pid: int) -> bool:
    """Whether process *name* is in another pid namespace and has number *pid* there."""
    if _link(name, "pid") == _link("self", "pid"):
        return False
    try:
        told = fs.read_small(f"/proc/{name}/status")
    except (FileNotFoundError, ProcessLookupError):
        return False
    for line in told.splitlines():
        if line.startswith(b"NSpid:"):
            numbers = line.split()[1:]
            return len(numbers) > 1 and str(pid).encode() in numbers[1:]
    # A kernel that does not tell: nobody can know what number it has there.
    raise OSError(0, "no NSpid")


def _same_clock(pid: int) -> bool:
    """Whether its start time counts from where ours does.  Unknown = no."""
    theirs, ours = _link(pid, "time"), _link("self", "time")
    if theirs or not ours:  # Neither: a kernel that has one clock for all.
        return theirs == ours
    # Another user's: where its namespace may not be seen, its offsets still may.
    try:
        return fs.read_small(f"/proc/{pid}/timens_offsets") == fs.read_small(
            "/proc/self/timens_offsets"
        )
    except OSError:
        return False


def _link(who: int | str, kind: str) -> str:
    """The namespace of *kind* that *who* is in; empty: may not be looked at."""
    try:
        return fs.table.readlink(f"/proc/{who}/ns/{kind}")
    except OSError:
        return _NO_LINK
