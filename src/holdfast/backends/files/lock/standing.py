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
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.staleness import ClaimFacts, reasons, verdict
from holdfast.backends.files import fs, identity, medium
from holdfast.backends.files.lock import witness

if TYPE_CHECKING:
    from holdfast._core.staleness import LatchIs, Verdict
    from holdfast.backends.files.identity import Identity

__all__ = ["GRACE_S", "GRACE_SHORT_S", "Judged", "Standing", "judge", "judged"]
__all__ += ["read_standing", "set_aside"]

#: How long a claim may stand that names nobody yet: its writer is between creating and
#: writing.  Shorter for who cannot wait that long; both are the founding system's.
GRACE_S: Final = 30.0
GRACE_SHORT_S: Final = 5.0

#: The usual ones, whose names say enough: asking statfs loads ctypes, which takes longer than
#: all the rest of replacing a dead holder.
_LOCAL_NAMES: Final = frozenset({"ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "f2fs"})

#: We may not read it, or it is a symlink or a pipe: some stranger's, in any case.
_UNREADABLE: Final = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.EISDIR}


@dataclass(frozen=True, slots=True)
class Standing:
    """A claim that stands at the path, as it was read.  Close it when it is judged."""

    inode: tuple[int, int]
    payload: dict[str, Any] | None  #: None: not readable, not JSON, or not an object.
    fd: int  #: Kept open, so that the inode number means this claim; -1: not readable.
    mtime_ns: int = 0
    raw: bytes = b""  #: What `payload` was read from.

    @property
    def says_ours(self) -> bool:
        """Whether a Holdfast wrote it, by its own word."""
        return isinstance((self.payload or {}).get("claimId"), str)

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
        return _unreadable_at(path)
    try:
        found = fs.table.fstat(fd)
        raw = fs.read_all(fd) if stat.S_ISREG(found.st_mode) else b""
    except BaseException:
        fs.close_fd(fd)
        raise
    inode = (found.st_dev, found.st_ino)
    return Standing(inode, _parse(raw), fd, found.st_mtime_ns, raw)


def _unreadable_at(path: str) -> Standing | None:
    try:
        found = fs.table.lstat(path)
    except FileNotFoundError:
        return None
    return Standing((found.st_dev, found.st_ino), None, -1, found.st_mtime_ns)


def _parse(raw: bytes) -> dict[str, Any] | None:
    try:
        payload = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim that stands, and what a waiter would get."""

    row: str  #: Of the table in `_core.staleness`, e.g. "@H".
    verdict: Verdict
    reasons: tuple[str, ...]  #: Words of `_core.staleness.REASONS`; empty: nothing is wrong.
    says: str  #: The row, for people.
    payload: dict[str, Any] | None  #: None: not readable, not JSON, or not an object.
    owner: Identity | None  #: None: it names no pid.
    facts: ClaimFacts
    age_ms: int | None  #: None: it is from the future.
    promised_ms: int | None  #: None: it promised nothing.
    inode: tuple[int, int]
    raw: bytes  #: With `inode`: which claim was judged.

    @property
    def pid(self) -> int | None:
        return None if self.owner is None else self.owner.pid

    @property
    def host(self) -> str | None:
        return None if self.owner is None else self.owner.host

    @property
    def run_id(self) -> str | None:
        return self._text("runId")

    @property
    def lane(self) -> str | None:
        return self._text("lane")

    @property
    def session_id(self) -> str | None:
        return self._text("sessionId")

    def _text(self, name: str) -> str | None:
        found = (self.payload or {}).get(name)
        return found if isinstance(found, str) else None


def judged(
    path: str, *, latched: bool, stale_ms: int, grace_s: float = GRACE_S, busy: bool = False
) -> Judged | None:
    """
    What a waiter for the transcript at *path* would get, and why.

    Reads only: takes no lock, changes nothing.  Without the latch it may be outdated when it
    is returned: who wants to remove anything takes the latch first and asks again.

    Args:
        path: the transcript, by any name; its claim is beside what that resolves to.
        latched: the caller holds its latch.
        stale_ms: the age at which a live holder is reported.
        grace_s: how long a claim may stand that names nobody yet.
        busy: the caller has just found the latch taken.

    Returns:
        None: no claim stands there.

    Raises:
        OSError: it cannot be looked at; a claim that cannot be *read* is judged.

    Cost:
        0.1 to 0.6 ms; and 7 µs for each process of the machine, if the claim names no pid
        namespace and nobody has its pid.
    """
    path = fs.table.realpath(path)
    standing = read_standing(f"{path}.lock")
    if standing is None:
        return None
    try:
        held: LatchIs | None = "mine" if latched else None
        return judge(path, standing, latch=held, stale_ms=stale_ms, grace_s=grace_s, busy=busy)
    finally:
        standing.close()


def judge(
    path: str,
    standing: Standing,
    *,
    latch: LatchIs | None,
    stale_ms: int,
    grace_s: float,
    busy: bool = False,
) -> Judged:
    """As `judged`, of *standing* beside the resolved *path*; latch None: look."""
    payload = standing.payload
    owner = None if payload is None else identity.identity_of(payload)
    promised_ms = _promised_ms(payload)
    bound_ms = promised_ms if owner is not None else min(stale_ms, grace_s * 1000)
    facts = _at_first_sight(path, standing, owner, latch)
    age_ms = _age_ms(standing)
    if age_ms is not None:
        facts = replace(
            facts,
            past_promise=bound_ms is not None and age_ms > bound_ms,
            past_age=age_ms > stale_ms,
        )
    if verdict(facts).label != "@L":  # It needs no more witnesses, and is the usual one.
        facts = _witnessed(path, owner, facts, latch, busy=busy)
    row = verdict(facts)
    return Judged(
        row=row.label,
        verdict=row.verdict,
        reasons=reasons(facts),
        says=row.says,
        payload=payload,
        owner=owner,
        facts=facts,
        age_ms=age_ms,
        promised_ms=promised_ms,
        inode=standing.inode,
        raw=standing.raw,
    )


def _at_first_sight(
    path: str, standing: Standing, owner: Identity | None, latch: LatchIs | None
) -> ClaimFacts:
    """What the claim itself says, compared with who we are."""
    me, local = identity.me(), _is_local(path)
    torn = standing.payload is None and _inode_at(f"{path}.claim") == standing.inode
    said = standing.payload or {}  # Its boot is its boot, even if it names no pid.
    boot, host, pid_ns = said.get("bootId"), said.get("host"), said.get("pidNamespace")
    unnamed_host = True if local and owner is not None else None
    return ClaimFacts(
        readable=None if standing.fd < 0 else owner is not None,
        ours=standing.says_ours or torn,
        latch=latch or "?",
        local=local,
        host=_same(host, me.host) if host is not None else unnamed_host,
        boot=_same(boot, me.boot),
        namespace=_same(pid_ns, me.pid_ns),
        process="?",
        us=owner == me,
        past_promise=False,
        past_age=False,
    )


def _same(theirs: object, ours: str | int | None) -> bool | None:
    """Whether both are known and equal; None: one of them is not known."""
    return None if type(theirs) is not type(ours) or ours is None else theirs == ours


def _witnessed(
    path: str, owner: Identity | None, facts: ClaimFacts, latch: LatchIs | None, *, busy: bool
) -> ClaimFacts:
    """The same, with what the kernel and /proc say."""
    namespace, process = facts.namespace, facts.process
    if owner is not None and facts.host and facts.boot is not False:
        if namespace:
            process = witness.process_here(owner.pid, owner.start)
        elif namespace is None:
            process = witness.process_anywhere(owner.pid, owner.start)
            namespace = None if process == "?" else True
    if facts.ours and latch is None:
        latch = witness.latch_is(path, owner if namespace else None, busy=busy)
        if latch == "owner" and facts.boot is False:
            latch = "another"  # Its owner did not live to take it in this boot.
    facts = replace(facts, latch=latch or "?", namespace=namespace, process=process)
    if facts.readable is False and facts.ours and facts.latch in {"mine", "free"}:
        # Our spare, and published whole: only a machine that went down loses the contents.
        return replace(facts, host=facts.local or None, boot=False)
    return facts


def _is_local(path: str) -> bool:
    mount = medium.mount_of(path)
    return (mount is not None and mount.name in _LOCAL_NAMES) or medium.is_local(path)


def _promised_ms(payload: dict[str, Any] | None) -> int | None:
    promised = (payload or {}).get("maxHoldMs")
    return promised if type(promised) is int and promised > 0 else None


def _age_ms(standing: Standing) -> int | None:
    """By its own word, else by its file's; None: both are from the future."""
    now_ms, born_ms = fs.table.time_ns() // 1_000_000, standing.mtime_ns // 1_000_000
    with suppress(ValueError, TypeError, OverflowError):
        said = datetime.fromisoformat((standing.payload or {}).get("createdAt", ""))
        said_ms = int(said.replace(tzinfo=said.tzinfo or UTC).timestamp() * 1000)
        born_ms = said_ms if said_ms <= now_ms else born_ms
    return now_ms - born_ms if born_ms <= now_ms else None


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
    if _inode_at(path) != standing.inode or not standing.unchanged():
        return False  # Most of what comes in between is seen here, and never moved.
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
