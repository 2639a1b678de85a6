"""
Every write lock that can be seen from outside: who has it, and what a waiter would get.

Reading only: no lock is taken, no byte changed, and nobody is asked anything.  A claim is
found by its name, a latch without one in /proc/locks; who waits at the gate, by asking the
kernel which tickets are locked.  What is told is a moment's truth.
"""

from __future__ import annotations

import os
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from holdfast.backends.files import fs
from holdfast.backends.files.lock.climb import Names
from holdfast.backends.files.lock.gate import TICKETS_AT
from holdfast.backends.files.lock.standing import judged
from holdfast.backends.files.look import frozen
from holdfast.backends.files.look.kernel_locks import file_id, read_locks
from holdfast.errors import BadTranscriptError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.backends.files.look.kernel_locks import Locks

__all__ = [
    "CLAIM_SUFFIX",
    "TRANSCRIPT_SUFFIX",
    "LockSeen",
    "lock_of",
    "locks_in",
    "transcripts_in",
]

CLAIM_SUFFIX: Final = ".lock"
TRANSCRIPT_SUFFIX: Final = ".jsonl"
WAITING_MAX: Final = 1000  #: More are told as so many.
_COUNTER: Final = struct.Struct("<Q")

Latch = Literal["held", "free", "unknown"]


@dataclass(frozen=True, slots=True)
class LockSeen:
    """One write lock, as it stands.  None: not said, or not to be known from here."""

    path: str  #: The transcript, resolved.
    claim: str | None  #: None: there is none, only the kernel's lock.
    pid: int | None
    host: str | None
    run_id: str | None
    lane: str | None
    age_ms: int | None
    promised_ms: int | None
    reasons: tuple[str, ...]
    verdict: Literal["wait", "report", "reclaim"]
    row: str | None  #: Of the staleness table; None: no claim that it could be asked about.
    says: str  #: The row, for people.
    latch: Latch  #: The kernel's lock on the transcript's inode.
    latched_by: tuple[int, ...]
    frozen: bool | None  #: Whether the holder is stopped.
    waiting: int | None  #: Processes of ours at the gate, beside the holder.

    @property
    def outlook(self) -> str:
        """What a waiter would get, in words."""
        if self.verdict == "reclaim":
            return "the next waiter replaces it"
        if self.verdict == "report":
            return "a waiter waits to its deadline and gets LockStaleError; nothing is removed"
        if self.frozen:
            return "a waiter waits until its holder is continued, or to its deadline"
        return "a waiter waits until it is given back, or to its deadline"

    def to_json(self) -> dict[str, Any]:
        holder = {
            "pid": self.pid,
            "host": self.host,
            "run_id": self.run_id,
            "lane": self.lane,
            "stopped": self.frozen,
        }
        return {
            "path": self.path,
            "holder": holder,
            "age_ms": self.age_ms,
            "promised_ms": self.promised_ms,
            "reasons": list(self.reasons),
            "verdict": self.verdict,
            "row": self.row,
            "claim": self.claim,
            "latch": {"state": self.latch, "pids": list(self.latched_by)},
            "waiting": self.waiting,
            "says": self.says,
            "outlook": self.outlook,
        }


def transcripts_in(directory: str) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Each directory below *directory*, with its files.  Follows no symlink to another."""
    found: list[os.DirEntry[str]] = []
    below: list[str] = []
    try:
        with os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                else:
                    found.append(entry)
    except FileNotFoundError:
        return
    except OSError as error:
        raise fs.store_error(error, directory, "listing a directory") from error
    yield directory, found
    for each in below:
        yield from transcripts_in(each)


def locks_in(state: str, *, stale_ms: int) -> Iterator[LockSeen]:
    """
    Every write lock below the state directory *state*, in the order of their paths.

    Raises:
        StoreError: a directory, or /proc/locks, cannot be read.

    Cost:
        A walk of the directory, and one stat for each transcript.
    """
    locks = _locks(state)
    latched = {lock.file[1] for lock in locks.held if lock.kind == "FLOCK"}
    for _, entries in transcripts_in(os.path.realpath(state)):
        names = {entry.name for entry in entries}
        for entry in entries:
            if entry.name.endswith(CLAIM_SUFFIX):
                path = entry.path.removesuffix(CLAIM_SUFFIX)
            elif (
                entry.name.endswith(TRANSCRIPT_SUFFIX)
                and entry.name + CLAIM_SUFFIX not in names
                and entry.inode() in latched
            ):
                path = entry.path
            else:
                continue
            seen = _seen(Names.of(path), locks, stale_ms)
            if seen is not None:
                yield seen


def lock_of(path: str, *, stale_ms: int) -> LockSeen | None:
    """
    The write lock of the transcript at *path*, by any of its names; None: nobody has it.

    Raises:
        NotFoundError: neither the transcript nor a claim is there.
        BadTranscriptError: it is not a file.
        StoreError: it, or /proc/locks, cannot be read.
    """
    try:
        names = Names.of(path)
        seen = _seen(names, _locks(path), stale_ms)
        if seen is None and not stat.S_ISREG(fs.table.stat(names.resolved).st_mode):
            raise BadTranscriptError(path=path, detail="it is not a file", hint="name a file")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(what="transcript", name=path) from None
    except OSError as error:
        raise fs.store_error(error, path, "looking at its write lock") from error
    return seen


def _locks(path: str) -> Locks:
    try:
        return read_locks()
    except OSError as error:
        raise fs.store_error(error, path, "reading /proc/locks") from error


def _seen(names: Names, locks: Locks, stale_ms: int) -> LockSeen | None:
    """Raises OSError."""
    file = file_id(names.resolved)
    pids = () if file is None else tuple(
        lock.pid for lock in locks.on(file, "FLOCK") if lock.pid
    )  # fmt: skip
    latch: Latch = "held" if pids else "free" if locks.sees_all or file is None else "unknown"
    found = judged(names.resolved, latched=False, stale_ms=stale_ms)
    if found is None:
        return _latched_only(names, pids) if pids else None
    return LockSeen(
        path=names.resolved,
        claim=names.claim,
        pid=found.pid,
        host=found.host,
        run_id=found.run_id,
        lane=found.lane,
        age_ms=found.age_ms,
        promised_ms=found.promised_ms,
        reasons=tuple(found.reasons),
        verdict=found.verdict,
        row=found.row,
        says=found.says,
        latch=latch,
        latched_by=pids,
        frozen=_holder_frozen(names),
        waiting=_waiting(names.gate, held=latch == "held"),
    )


def _latched_only(names: Names, pids: tuple[int, ...]) -> LockSeen:
    return LockSeen(
        path=names.resolved,
        claim=None,
        pid=pids[0],
        host=fs.table.uname().nodename,
        run_id=None,
        lane=None,
        age_ms=None,
        promised_ms=None,
        reasons=(),
        verdict="wait",
        row=None,
        says="it has the kernel's lock, and no claim stands beside it",
        latch="held",
        latched_by=pids,
        frozen=frozen.is_frozen(pids[0]),
        waiting=_waiting(names.gate, held=True),
    )


def _holder_frozen(names: Names) -> bool | None:
    holder = frozen.writing(names.resolved, names.claim)
    return None if holder is None else frozen.is_frozen(holder.pid, holder.start)


def _waiting(gate: str, *, held: bool) -> int | None:
    """How many tickets are locked, less the holder's; None: the kernel does not say."""
    try:
        fd = fs.open_fd(gate, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return 0
    except OSError:
        return None
    try:
        counter = fs.table.pread(fd, _COUNTER.size, 0)
        (following,) = _COUNTER.unpack(counter.ljust(_COUNTER.size, b"\0"))
        start, stop, found = TICKETS_AT, TICKETS_AT + min(following, 1 << 61), 0
        while found < WAITING_MAX:
            at = fs.first_locked(fd, start, stop)
            if at is None:
                break
            start, found = at + 1, found + 1
    except OSError:
        return None
    finally:
        with suppress(OSError):
            fs.close_fd(fd)
    return max(found - held, 0)
