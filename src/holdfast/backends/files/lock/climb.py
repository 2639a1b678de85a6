"""
The way up to the write lock: open, gate, latch, claim; and the way down.

A state machine without waits: `Climb.step` does what can be done now and says after how
many seconds to look again.  Whoever drives it, a blocked thread or the pump, does nothing
but sleep in between, so that waiting in a thread and waiting in a loop are one protocol.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.backends.files import fs
from holdfast.backends.files.lock import line, tally
from holdfast.backends.files.lock.claim import Claim, new_claim_id
from holdfast.backends.files.lock.gate import LONG_S, POLL_LONG_S, Entry
from holdfast.backends.files.lock.latch import Latch, publish_file
from holdfast.backends.files.lock.refusal import grace_s, refused, stale_error
from holdfast.backends.files.lock.standing import judge, read_standing, set_aside
from holdfast.backends.files.look.frozen import Lookout, writing

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.backends.files.lock.standing import Standing

__all__ = ["Climb", "Grip", "MovedError", "Names", "Request"]

log = logging.getLogger("holdfast.write_lock")

POLL_MIN_S: Final = 0.0001
LATCH_POLL_MAX_S: Final = 0.001  #: Somebody of ours has it, under another name or out of turn.
CLAIM_POLL_MAX_S: Final = 0.005  #: A stranger has it; strangers poll every 50 ms themselves.
#: A claim that is waited for is judged anew this often: its owner may have died.  A judgement
#: that took long (it may look at every process) is repeated after this many times as long.
JUDGE_S: Final = 0.05
JUDGE_SHARE: Final = 20
#: A path that changes its inode this often under our hands is not waited for blindly.
REOPEN_MAX: Final = 8


class MovedError(Exception):
    """Internal: our name leads to another file now.  Resolve it again, from the start."""


@dataclass(frozen=True, slots=True)
class Names:
    """What one transcript is called.  Gate, claim and line hang on the resolved name."""

    given: str
    resolved: str
    gate: str
    claim: str
    spare: str

    @classmethod
    def of(cls, path: str) -> Names:
        resolved = fs.table.realpath(path)
        gate, claim = f"{resolved}.gate", f"{resolved}.lock"
        return cls(path, resolved, gate, claim, f"{resolved}.claim")

    def still_lead_to(self, inode: tuple[int, int]) -> bool:
        """Whether the given name, an alias, still means that file.  Raises OSError."""
        if self.given == self.resolved:
            return True  # The latch itself has looked.
        try:
            found = fs.table.stat(self.given)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == inode


@dataclass(slots=True)  # Not frozen: that would cost a microsecond an acquisition.
class Request:
    """What one acquisition wants.  Times are of the monotonic clock."""

    names: Names
    timeout_s: float
    deadline_s: float
    header: Callable[[], bytes] | None
    payload: Callable[[str], bytes]  #: From a claim id.
    stale_ms: int
    fail_fast: bool


class Grip:
    """What is held so far.  Taken in the order of the fields, let go in reverse."""

    __slots__ = ("claim", "gate", "latch", "names", "place")

    def __init__(self, names: Names, place: line.Place) -> None:
        self.names = names
        self.place = place
        self.gate: Entry | None = None
        self.latch: Latch | None = None
        self.claim: Claim | None = None

    def let_go(self) -> None:
        """
        Everything, whatever fails on the way.  Idempotent.

        Never raises an OSError: the result of what was done under the lock matters more
        than this, so what fails here is logged as an echo.
        """
        try:
            if self.claim is not None:
                self.claim.withdraw()
        except OSError as error:
            self._echo("withdrawing the claim", error)
        finally:
            self._let_go_latch()

    def _let_go_latch(self) -> None:
        try:
            if self.latch is not None:
                line.forget_inode(self.latch.inode, self.place)
                self.latch.close()
        except OSError as error:
            self._echo("dropping the latch", error)
        finally:
            self._let_go_gate()

    def _let_go_gate(self) -> None:
        try:
            if self.gate is not None:
                self.gate.leave()
        except OSError as error:
            self._echo("leaving the gate", error)
        finally:
            line.leave(self.names.resolved, self.place)

    def _echo(self, doing: str, error: OSError) -> None:
        log.warning("%s: %s failed: %s", self.names.resolved, doing, error)


class Climb:
    """One acquisition, by the head of the line.  One thread at a time."""

    __slots__ = (
        "_blocking_claim",
        "_busy",
        "_judge_at_s",
        "_lookout",
        "_refuse_at_s",
        "_still_since_s",
        "contended",
        "grip",
        "request",
    )

    def __init__(self, request: Request, place: line.Place) -> None:
        self.request = request
        self.grip = Grip(request.names, place)
        self.contended = False
        self._still_since_s = 0.0
        self._blocking_claim: tuple[int, int] | None = None
        self._judge_at_s = 0.0
        self._lookout: Lookout | None = None
        self._refuse_at_s = 0.0
        self._busy = False  #: We have just found the latch taken.

    def step(self, *, may_block: bool) -> float | None:
        """
        Get as far as possible without waiting.

        Args:
            may_block: False on an event loop: no syncs, so no creating of files.

        Returns:
            None: the lock is ours, `grip` is complete.  Otherwise after how many seconds
            to look again, at most until the deadline.

        Raises:
            LockTimeoutError, LockStaleError, DeadlockError, StoreError, ClaimUnknownError:
                as `WriteLock`.
            MovedError: begin again.
            After any of them call `abandon`.
        """
        now_s = fs.table.monotonic()
        try:
            wait_s = self._advance(now_s, may_block=may_block)
            if wait_s is None:
                return None
            self.contended = True
            if wait_s == 0 and not may_block:
                return 0.0  # It may be had: whoever may block looks once, whatever the time.
            if may_block:
                self._look_out(now_s)
            if now_s >= self.request.deadline_s:
                tally.add_timeout()
                raise refused(self.request, latched=self._latched(), busy=self._busy)
            if self.request.fail_fast and may_block and now_s >= self._refuse_at_s:
                self._refuse_stale(now_s)
        except OSError as error:
            doing = "taking the write lock"
            raise fs.store_error(error, self.request.names.resolved, doing) from error
        return min(wait_s, self.request.deadline_s - now_s)

    def abandon(self) -> None:
        """Let go of everything, the place in line too.  Idempotent."""
        self.grip.let_go()

    def _look_out(self, now_s: float) -> None:
        """Log it if whom we wait for is stopped."""
        if self._lookout is None:
            names = self.request.names
            what = f"the write lock of {names.resolved}"
            self._lookout = Lookout(what, lambda: writing(names.resolved, names.claim))
        self._lookout.look(now_s)

    def _latched(self) -> bool:
        return self.grip.latch is not None and self.grip.latch.held

    def _refuse_stale(self, now_s: float) -> None:
        stale = stale_error(self.request, latched=self._latched(), busy=self._busy)
        if stale is not None:
            raise stale
        self._refuse_at_s = _after_judging(now_s)

    def _advance(self, now_s: float, *, may_block: bool) -> float | None:
        grip, self._busy = self.grip, False
        for _ in range(REOPEN_MAX):
            # Opened before the gate: what is not a transcript gets no gate.
            if grip.latch is None and not self._open(may_block=may_block):
                return 0.0
            if grip.gate is None:
                grip.gate = Entry(self.request.names.gate)
            wait_s = grip.gate.step(now_s)
            if wait_s is not None and not grip.gate.passable(now_s):
                return wait_s
            if not self._take_latch():
                if grip.latch is None:
                    continue  # It is another file now: once more.
                self._busy = True
                return self._keep_place(now_s, wait_s)
            if wait_s is not None:
                grip.gate.pass_over()
            return self._take_claim(now_s, may_block=may_block)
        return POLL_MIN_S

    def _keep_place(self, now_s: float, wait_s: float | None) -> float:
        if wait_s is not None:
            assert self.grip.gate is not None
            self.grip.gate.keep_place(now_s)
            return wait_s
        return self._poll_s(now_s, LATCH_POLL_MAX_S)

    def _open(self, *, may_block: bool) -> bool:
        """Open the transcript; False: it must be created first, and that may block."""
        try:
            self.grip.latch = Latch(self.request.names.resolved)
        except FileNotFoundError:
            if may_block:
                publish_file(self.request.names.resolved, self.request.header)
                self.grip.latch = Latch(self.request.names.resolved)
            return may_block
        except OSError:
            self._refuse_moved()
            raise
        return True

    def _take_latch(self) -> bool:
        """Lock the inode.  False: busy; or, with `grip.latch` None, no longer the file."""
        latch, place = self.grip.latch, self.grip.place
        assert latch is not None
        if latch.held:
            return True
        if not latch.take():
            line.refuse_deadlock(latch.inode, place, self.request.names.resolved)
            return False
        if latch.names_us() and self.request.names.still_lead_to(latch.inode):
            line.note_inode(latch.inode, place)
            return True
        self.grip.latch = None
        latch.close()
        self._refuse_moved()
        return False

    def _refuse_moved(self) -> None:
        names = self.request.names
        if fs.table.realpath(names.given) != names.resolved:
            raise MovedError

    def _take_claim(self, now_s: float, *, may_block: bool) -> float | None:
        path = self.request.names.claim
        for _ in range(REOPEN_MAX):
            judged = self._blocking_claim is not None and now_s < self._judge_at_s
            if judged and self._still_stands(path):
                return self._poll_s(now_s, CLAIM_POLL_MAX_S)
            self._blocking_claim = None
            claim_id = new_claim_id()
            claim = self.grip.claim = Claim(path, claim_id)
            if claim.publish(self.request.payload(claim_id), self.request.names.spare):
                return None
            self.grip.claim = None
            standing = read_standing(path)
            if standing is None:
                continue  # Its owner let go while we looked.
            try:
                if not may_block and not standing.says_ours:
                    return 0.0  # To find out about a stranger may take milliseconds.
                if not self._reclaim(standing, claim_id):
                    self._judge_at_s = _after_judging(now_s)
                    # One that could not be read is read again: it may be ours, and dead.
                    self._blocking_claim = standing.inode if standing.payload else None
                    return self._poll_s(now_s, CLAIM_POLL_MAX_S)
            finally:
                standing.close()
        return POLL_MIN_S

    def _still_stands(self, path: str) -> bool:
        try:
            found = fs.table.lstat(path)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._blocking_claim

    def _reclaim(self, standing: Standing, claim_id: str) -> bool:
        """Remove a claim that is dead by its row.  False: it must be waited for."""
        request = self.request
        found = judge(
            request.names.resolved,
            standing,
            latch="mine",
            stale_ms=request.stale_ms,
            grace_s=grace_s(request.timeout_s),
        )
        if found.verdict != "reclaim":
            return False
        path, why = request.names.claim, ", ".join(found.reasons)
        if set_aside(path, standing, claim_id):
            tally.add_reclaimed()
            log.warning("%s: %s reclaim: pid %s (%s)", path, found.row, found.pid, why)
        return True

    def _poll_s(self, now_s: float, most_s: float) -> float:
        self._still_since_s = self._still_since_s or now_s
        still_s = now_s - self._still_since_s
        if still_s > LONG_S:
            return min(still_s / 100, POLL_LONG_S)
        return min(max(still_s / 8, POLL_MIN_S), most_s)


def _after_judging(since_s: float) -> float:
    """When to judge again, so that judging takes a small share of the time."""
    now_s = fs.table.monotonic()
    return now_s + max(JUDGE_S, (now_s - since_s) * JUDGE_SHARE)
