"""
What a waiter is told that did not get the write lock: who holds it, and what is wrong there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.backends.files.lock import witness
from holdfast.backends.files.lock.standing import GRACE_S, GRACE_SHORT_S, judged
from holdfast.errors import LockStaleError, LockTimeoutError

if TYPE_CHECKING:
    from holdfast.backends.files.lock.climb import Request
    from holdfast.backends.files.lock.standing import Judged

__all__ = ["grace_s", "in_words", "refused", "stale_error"]

#: A claim that changes as often as this while we judge it overstays nowhere.
LOOKS_MAX: Final = 8


def refused(
    request: Request, *, latched: bool, busy: bool
) -> LockStaleError | LockTimeoutError:
    """At the deadline.  Never raises."""
    try:
        stale = stale_error(request, latched=latched, busy=busy)
        if stale is not None:
            return stale
        found = _judged(request, latched=latched, busy=busy)
    except OSError:
        found = None
    return LockTimeoutError(
        path=request.names.resolved,
        timeout_s=request.timeout_s,
        holder="unknown" if found is None else in_words(found),
    )


def stale_error(request: Request, *, latched: bool, busy: bool) -> LockStaleError | None:
    """
    What to raise if the claim that stands is to be reported; None: go on waiting.

    A verdict counts only if the same claim still stands after it was reached: one that
    vanished or was replaced meanwhile is looked at anew.  Raises OSError.
    """
    before = _judged(request, latched=latched, busy=busy)
    for _ in range(LOOKS_MAX):
        if before is None or before.verdict != "report":
            return None
        after = _judged(request, latched=latched, busy=busy)
        if after is not None and (after.row, after.inode, after.raw) == (
            before.row,
            before.inode,
            before.raw,
        ):
            return LockStaleError(
                path=request.names.resolved,
                timeout_s=request.timeout_s,
                holder=in_words(after),
                row=after.row,
                reasons=list(after.reasons),
                age_ms=after.age_ms,
                promised_ms=after.promised_ms,
            )
        before = after
    return None


def grace_s(timeout_s: float) -> float:
    """How long a claim that names nobody is waited for, by who waits *timeout_s*."""
    return GRACE_S if timeout_s >= GRACE_S else GRACE_SHORT_S


def _judged(request: Request, *, latched: bool, busy: bool) -> Judged | None:
    return judged(
        request.names.resolved,
        latched=latched,
        stale_ms=request.stale_ms,
        grace_s=grace_s(request.timeout_s),
        busy=busy,
    )


def in_words(found: Judged) -> str:
    """Who holds it, e.g. ``pid 12 on db1 (alive), run r1, program node, for 2.0 s``."""
    claim, owner = found.payload, found.owner
    if claim is None:
        return "an unreadable claim"
    if owner is None:
        return "a claim that names nobody"
    words = [f"pid {owner.pid} on {owner.host or 'an unnamed host'} ({_life(found)})"]
    words += [f"lane {found.lane}"] if found.lane else []
    words += [f"run {found.run_id}"] if found.run_id else []
    if witness.process_here(owner.pid, owner.start) == "itself":
        program = witness.program_of(owner.pid)
        words += [f"program {program}"] if program else []
    words += [] if found.age_ms is None else [f"for {found.age_ms / 1000:.1f} s"]
    return ", ".join(words)


def _life(found: Judged) -> str:
    if found.facts.boot is False or found.facts.process in {"gone", "recycled"}:
        return "dead"
    return "alive" if found.facts.process in {"itself", "unsure"} else "unknown"
