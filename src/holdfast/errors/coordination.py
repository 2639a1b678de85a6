"""Two writers met on one session; no model is at fault."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

from holdfast.errors.root import Advice, HoldfastError

__all__ = [
    "AbortedError",
    "ClaimUnknownError",
    "CoordinationError",
    "DeadlockError",
    "DrainingError",
    "FencedError",
    "LeaseLostError",
    "LockLostError",
    "LockStaleError",
    "LockTimeoutError",
    "LockWaitError",
    "OwnerWaitError",
    "QueueFullError",
    "RejectedError",
    "SessionBusyError",
    "TakeoverError",
]

TURNS_NAMED: Final = 5  #: In one line, of many.


@dataclass(kw_only=True, eq=False)
class CoordinationError(HoldfastError):
    """
    Two writers met on one session.

    Never counts against a model and never spends a retry: the same two writers would
    meet again on the next provider, at the same price.
    """

    advice: ClassVar[Advice] = Advice.RETRY_LATER
    exit_code: ClassVar[int] = 4
    status: ClassVar[int] = 503


@dataclass(kw_only=True, eq=False)
class LockWaitError(CoordinationError):
    """The write lock of *path* was not had.  Never raised directly."""

    path: str
    timeout_s: float
    holder: str  #: Who was seen holding it, in words; "unknown" if nobody could be read.


@dataclass(kw_only=True, eq=False)
class LockTimeoutError(LockWaitError):
    """The write lock of *path* was not had within the caller's one total deadline."""

    code: ClassVar[str] = "lock_timeout"

    hint: str = "wait for the holder, or give a longer timeout"

    def __str__(self) -> str:
        return (
            f"{self.path}: write lock not had in {self.timeout_s:g} s (held by {self.holder})"
        )


@dataclass(kw_only=True, eq=False)
class LockStaleError(LockWaitError):
    """
    A live owner overstays, or nobody can prove it dead.  Its claim was not removed.

    Raised at the waiter's deadline, or at once with `fail_fast`.
    """

    code: ClassVar[str] = "lock_stale"
    status: ClassVar[int] = 409

    row: str  #: The row of the staleness table that decided, e.g. "@H".
    reasons: list[str]  #: Why it is called stale, one word each, e.g. ["hold_exceeded"].
    age_ms: int | None  #: How long it has stood; None = nobody can tell.
    promised_ms: int | None  #: How long its owner promised to hold it; None = no promise.
    hint: str = "see who it is with: holdfast locks show FILE"

    def __str__(self) -> str:
        age = "" if self.age_ms is None else f" for {self.age_ms / 1000:.1f} s"
        promised = "" if self.promised_ms is None else f", promised {self.promised_ms} ms"
        return (
            f"{self.path}: write lock overstayed ({', '.join(self.reasons)}; row {self.row}):"
            f" held by {self.holder}{age}{promised}"
        )


@dataclass(kw_only=True, eq=False)
class AbortedError(CoordinationError):
    """This attempt is over: it may write nothing, show nothing and start no tool."""

    code: ClassVar[str] = "aborted"
    advice: ClassVar[Advice] = Advice.STOP

    path: str
    reason: str
    hint: str = "begin another attempt"

    def __str__(self) -> str:
        return f"{self.path}: this attempt is over ({self.reason})"


@dataclass(kw_only=True, eq=False)
class OwnerWaitError(CoordinationError):
    """The prompt windows before ours did not end within the caller's one total deadline."""

    code: ClassVar[str] = "owner_wait"

    path: str
    timeout_s: float
    ahead: int | None  #: Windows still before ours; None = nobody can tell.
    hint: str = "wait for the run that has the prompt window, or give a longer timeout"

    def __str__(self) -> str:
        return f"{self.path}: no prompt window within {self.timeout_s:g} s"


@dataclass(kw_only=True, eq=False)
class LockLostError(CoordinationError):
    """
    The write lock is not ours any more.  Nothing was written.

    Our claim no longer stands at its path because somebody removed it, or the hold was ended
    (by the watchdog, by an abort), or it was released.
    """

    code: ClassVar[str] = "lock_lost"
    advice: ClassVar[Advice] = Advice.STOP

    path: str
    detail: str = "our claim was removed while we held the write lock"
    hint: str = "find what removes .lock files of live processes; Holdfast never does"

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"


@dataclass(kw_only=True, eq=False)
class LeaseLostError(CoordinationError):
    """This process no longer holds the turn: it ended, or its lease moved on."""

    code: ClassVar[str] = "lease_lost"
    advice: ClassVar[Advice] = Advice.STOP

    turn_id: str
    token: int

    def __str__(self) -> str:
        return f"turn {self.turn_id}: token {self.token} no longer holds its lease"


@dataclass(kw_only=True, eq=False)
class FencedError(CoordinationError):
    """A newer fencing token exists for this session.  Nothing was written."""

    code: ClassVar[str] = "fenced"
    advice: ClassVar[Advice] = Advice.STOP

    session_id: str
    token: int
    newest: int | None  #: None: no lease stands at all.

    def __str__(self) -> str:
        return f"session {self.session_id}: token {self.token} is fenced (newest {self.newest})"


@dataclass(kw_only=True, eq=False)
class TakeoverError(CoordinationError):
    """The transcript was rewritten, by other hands, inside our prompt window."""

    code: ClassVar[str] = "takeover"

    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: rewritten inside the prompt window ({self.detail})"


@dataclass(kw_only=True, eq=False)
class ClaimUnknownError(CoordinationError):
    """The file system failed at the one moment that decides who owns the lock."""

    code: ClassVar[str] = "claim_unknown"

    path: str

    def __str__(self) -> str:
        return f"{self.path}: cannot tell whether our claim landed"


@dataclass(kw_only=True, eq=False)
class QueueFullError(CoordinationError):
    """The session's queue is at its bound.  The message was not accepted."""

    code: ClassVar[str] = "queue_full"
    status: ClassVar[int] = 429

    session: str
    limit: int
    hint: str = "send again later, or raise turn.queue_max"

    def __str__(self) -> str:
        return f"{self.session}: {self.limit} turns are waiting already; not accepted"


@dataclass(kw_only=True, eq=False)
class DeadlockError(CoordinationError):
    """The wait could never end: the waiter itself holds what it waits for."""

    code: ClassVar[str] = "deadlock"
    advice: ClassVar[Advice] = Advice.STOP
    status: ClassVar[int] = 409

    what: str = ""
    cycle: list[str] = field(default_factory=list)  #: Turns; each waits for the next.

    def __post_init__(self) -> None:
        in_turn = "answer it in the turn that asks, or submit it and do not wait for it"
        self.hint = self.hint or (in_turn if self.cycle else "use the hold you already have")

    def __str__(self) -> str:
        if self.cycle:
            around = " -> ".join([*self.cycle, self.cycle[0]])
            return f"these turns would wait for each other for ever: {around}"
        return f"{self.what} is already held by this very task"


@dataclass(kw_only=True, eq=False)
class DrainingError(CoordinationError):
    """This process is closing and takes no new work."""

    code: ClassVar[str] = "draining"

    hint: str = "send to another process, or again after the restart"

    def __str__(self) -> str:
        return "draining: no new work is taken here"


@dataclass(kw_only=True, eq=False)
class RejectedError(CoordinationError):
    """What was asked for is refused as things stand.  Nothing was changed or accepted."""

    code: ClassVar[str] = "rejected"
    status: ClassVar[int] = 409

    session: str
    detail: str = "it is busy and the policy is reject; not accepted"
    hint: str = "send again later, or use policy enqueue"

    def __str__(self) -> str:
        return f"{self.session}: {self.detail}"


@dataclass(kw_only=True, eq=False)
class SessionBusyError(CoordinationError):
    """Turns of the session run or wait.  Nothing was changed."""

    code: ClassVar[str] = "session_busy"
    status: ClassVar[int] = 409

    session: str
    turns: list[str]  #: Their ids.
    hint: str = "wait until they have ended, or cancel them first"

    def __str__(self) -> str:
        more = len(self.turns) - TURNS_NAMED
        named = ", ".join(self.turns[:TURNS_NAMED]) + (f" and {more} more" if more > 0 else "")
        return f"{self.session} is busy with {named}; nothing was changed"
