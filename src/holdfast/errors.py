"""
Every error Holdfast raises on purpose.

HoldfastError                 never raised directly: code, fields, advice, hint
├── CoordinationError           two writers met; no model is at fault
│   ├── LockTimeoutError          the write lock was never ours; names the holder
│   ├── LockLostError             our claim was taken from under us; nothing was written
│   ├── LeaseLostError            our turn's lease moved on
│   ├── FencedError               a newer token exists; nothing was written
│   ├── TakeoverError             the transcript was rewritten inside our window
│   ├── ClaimUnknownError         the file system did not say whether the claim landed
│   ├── QueueFullError            the session's queue is at its bound; no row was made
│   ├── DeadlockError             waiting for what only the waiter can release
│   ├── DrainingError             this process takes no new work
│   └── RejectedError             policy `reject` met a busy session; no row was made
├── ProviderError               a model provider failed; another attempt may succeed
├── StoreError                  the state directory or its medium failed
│   ├── UnavailableError          no answer in time; the same call may work later
│   ├── DiskFullError · ReadOnlyError
│   ├── NewerSchemaError          written by a newer Holdfast; named, never touched
│   └── BadTranscriptError        not a transcript we may append to
├── InputError                  the caller's to mend; nothing was accepted
│   ├── BadRequestError · NotFoundError · BadKeyError · UnknownAgentError
│   ├── UnknownLaneError · UnknownPolicyError · TooLargeError
│   ├── IdempotencyConflictError · BadSettingError
│   └── ForkedError               a forked child used what only its parent holds
├── DeliveryError               a channel failed
└── WireError                   a peer on the network broke the protocol

The split is by *who should act*, because that is the only question a caller asks of an
error it did not expect.  `advice` answers it without an isinstance ladder; `code` is what
logs, exit codes and HTTP carry.  An error is never recognised by its text.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from functools import partial
from typing import Any, ClassVar

__all__ = [
    "Advice",
    "BadKeyError",
    "BadRequestError",
    "BadSettingError",
    "BadTranscriptError",
    "ClaimUnknownError",
    "CoordinationError",
    "DeadlockError",
    "DeliveryError",
    "DiskFullError",
    "DrainingError",
    "FencedError",
    "ForkedError",
    "HoldfastError",
    "IdempotencyConflictError",
    "InputError",
    "LeaseLostError",
    "LockLostError",
    "LockTimeoutError",
    "NewerSchemaError",
    "NotFoundError",
    "ProviderError",
    "QueueFullError",
    "ReadOnlyError",
    "RejectedError",
    "StoreError",
    "TakeoverError",
    "TooLargeError",
    "UnavailableError",
    "UnknownAgentError",
    "UnknownLaneError",
    "UnknownPolicyError",
    "WireError",
]


class Advice(Enum):
    """What the caller should do next."""

    RETRY_LATER = "retry_later"  #: The same call, later: the session or store was busy.
    NEXT_ATTEMPT = "next_attempt"  #: The same turn again: the provider failed.
    STOP = "stop"  #: Neither helps; mend the input or tell the person.


# Not frozen: the interpreter and contextlib assign __traceback__ and __cause__.
@dataclass(kw_only=True, eq=False)
class HoldfastError(Exception):
    """Superclass of every error in this package.  Never raised directly."""

    code: ClassVar[str]
    advice: ClassVar[Advice] = Advice.STOP
    exit_code: ClassVar[int] = 1
    status: ClassVar[int] = 500  #: What HTTP should say; HTTP itself is another layer's.

    hint: str = ""  #: What to do about it, in one sentence.

    def __reduce__(self) -> tuple[partial[HoldfastError], tuple[()]]:
        # Exception.__reduce__ replays positional arguments; our fields are keywords.
        kept: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return partial(type(self), **kept), ()

    def to_json(self) -> dict[str, Any]:
        """`{"code", "message", "hint", …fields}`: JSON values only, nothing secret."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "hint"}
        return {"code": self.code, "message": str(self), "hint": self.hint, **own}


# ------------------------------------------------------------------ coordination


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
class LockTimeoutError(CoordinationError):
    """The write lock of *path* was not had within the caller's one total deadline."""

    code: ClassVar[str] = "lock_timeout"

    path: str
    timeout_s: float
    holder: str  #: Who was seen holding it, in words; "unknown" if nobody could be read.
    hint: str = "wait for the holder, or give a longer timeout"

    def __str__(self) -> str:
        return (
            f"{self.path}: write lock not had in {self.timeout_s:g} s (held by {self.holder})"
        )


@dataclass(kw_only=True, eq=False)
class LockLostError(CoordinationError):
    """Our claim no longer stands at its path: somebody removed it.  Nothing was written."""

    code: ClassVar[str] = "lock_lost"
    advice: ClassVar[Advice] = Advice.STOP

    path: str
    hint: str = "find what removes .lock files of live processes; Holdfast never does"

    def __str__(self) -> str:
        return f"{self.path}: our claim was removed while we held the write lock"


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

    what: str
    hint: str = "use the hold you already have"

    def __str__(self) -> str:
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
    """Policy `reject` met a busy session.  The message was not accepted."""

    code: ClassVar[str] = "rejected"
    status: ClassVar[int] = 409

    session: str
    hint: str = "send again later, or use policy enqueue"

    def __str__(self) -> str:
        return f"{self.session} is busy and the policy is reject; not accepted"


# --------------------------------------------------------------------- providers


@dataclass(kw_only=True, eq=False)
class ProviderError(HoldfastError):
    """
    A model provider failed.

    `reason` is one word of a closed set (`_core.failover.REASONS`); whether another
    attempt may help is decided there, from the reason alone.
    """

    code: ClassVar[str] = "provider"
    advice: ClassVar[Advice] = Advice.NEXT_ATTEMPT
    status: ClassVar[int] = 502

    reason: str
    detail: str
    http_status: int | None = None
    retry_after_s: float | None = None

    def __str__(self) -> str:
        status = f" (HTTP {self.http_status})" if self.http_status else ""
        return f"the model provider failed: {self.reason}{status}: {self.detail}"


# ------------------------------------------------------------------------ stores


@dataclass(kw_only=True, eq=False)
class StoreError(HoldfastError):
    """The state directory, the database or its medium failed."""

    code: ClassVar[str] = "store"
    exit_code: ClassVar[int] = 3
    status: ClassVar[int] = 503

    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"


@dataclass(kw_only=True, eq=False)
class UnavailableError(StoreError):
    """
    The store did not answer in time, or answered with a fault.

    `landed` is the three-valued truth about the write that was asked for:
    False = it did not happen, None = nobody can tell.
    """

    code: ClassVar[str] = "store_unavailable"
    advice: ClassVar[Advice] = Advice.RETRY_LATER

    landed: bool | None = False
    hint: str = "see who holds the store, then try again"


@dataclass(kw_only=True, eq=False)
class DiskFullError(StoreError):
    """The medium is full.  What was accepted stays accepted; nothing new was written."""

    code: ClassVar[str] = "disk_full"
    advice: ClassVar[Advice] = Advice.RETRY_LATER
    status: ClassVar[int] = 507
    hint: str = "free some space, then try again"


@dataclass(kw_only=True, eq=False)
class ReadOnlyError(StoreError):
    """The state directory cannot be written."""

    code: ClassVar[str] = "read_only"
    hint: str = "give a directory this user may write to"


@dataclass(kw_only=True, eq=False)
class NewerSchemaError(StoreError):
    """The store was written by a newer Holdfast.  It was not touched."""

    code: ClassVar[str] = "newer_schema"

    found: int
    known: int
    hint: str = "upgrade this Holdfast"


@dataclass(kw_only=True, eq=False)
class BadTranscriptError(StoreError):
    """The file is not a transcript we may append to.  It was not touched."""

    code: ClassVar[str] = "bad_transcript"

    line: int | None = None
    hint: str = "look at it with: holdfast sessions verify FILE"

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{where}: {self.detail}"


# ------------------------------------------------------------------------- input


@dataclass(kw_only=True, eq=False)
class InputError(HoldfastError):
    """The caller's to mend.  Nothing was accepted."""

    exit_code: ClassVar[int] = 2
    status: ClassVar[int] = 422


@dataclass(kw_only=True, eq=False)
class BadRequestError(InputError):
    """The request is not of the form that was asked for."""

    code: ClassVar[str] = "bad_request"
    status: ClassVar[int] = 400

    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass(kw_only=True, eq=False)
class NotFoundError(InputError):
    """There is no such thing in this store."""

    code: ClassVar[str] = "not_found"
    status: ClassVar[int] = 404

    what: str
    name: str

    def __str__(self) -> str:
        return f"no such {self.what}: {self.name!r}"


@dataclass(kw_only=True, eq=False)
class BadKeyError(InputError):
    """Not a session key.  `key` is cut to 80 characters."""

    code: ClassVar[str] = "bad_key"

    key: str
    detail: str
    hint: str = "keys look like agent:main:main or agent:<id>:<channel>:direct:<peer>"

    def __str__(self) -> str:
        return f"bad session key {self.key!r}: {self.detail}"


@dataclass(kw_only=True, eq=False)
class UnknownAgentError(InputError):
    """No such agent in the settings, and no runner ever registered it in this store."""

    code: ClassVar[str] = "unknown_agent"

    agent: str
    known: list[str]
    hint: str = "start a process that runs this agent, or name one that is known"

    def __str__(self) -> str:
        return f"unknown agent {self.agent!r} (known: {', '.join(self.known)})"


@dataclass(kw_only=True, eq=False)
class UnknownLaneError(InputError):
    """No such lane."""

    code: ClassVar[str] = "unknown_lane"

    lane: str
    known: list[str]
    hint: str = "declare it under lanes.<name>, or use one that is known"

    def __str__(self) -> str:
        return f"unknown lane {self.lane!r} (known: {', '.join(self.known)})"


@dataclass(kw_only=True, eq=False)
class UnknownPolicyError(InputError):
    """No such policy, or not one this version has."""

    code: ClassVar[str] = "unknown_policy"

    policy: str
    available: list[str]
    hint: str = "use one of the available policies"

    def __str__(self) -> str:
        return f"unknown policy {self.policy!r} (available: {', '.join(self.available)})"


@dataclass(kw_only=True, eq=False)
class TooLargeError(InputError):
    """Over a documented limit."""

    code: ClassVar[str] = "too_large"
    status: ClassVar[int] = 413

    what: str
    size: int
    limit: int
    hint: str = "send less, or raise the limit"

    def __str__(self) -> str:
        return f"{self.what} of {self.size} bytes is over the limit of {self.limit}"


@dataclass(kw_only=True, eq=False)
class IdempotencyConflictError(InputError):
    """The idempotency key was used before, with another content."""

    code: ClassVar[str] = "idempotency_conflict"
    status: ClassVar[int] = 409

    idempotency_key: str
    turn_id: str  #: The turn that the key belongs to.
    hint: str = "use a new idempotency key for a new message"

    def __str__(self) -> str:
        return (
            f"idempotency key {self.idempotency_key!r} belongs to turn {self.turn_id},"
            " whose content differs"
        )


@dataclass(kw_only=True, eq=False)
class BadSettingError(InputError):
    """An unknown or malformed setting."""

    code: ClassVar[str] = "bad_setting"

    key: str
    value: str
    allowed: str

    def __str__(self) -> str:
        return f"setting {self.key} = {self.value!r}: {self.allowed}"


@dataclass(kw_only=True, eq=False)
class ForkedError(InputError):
    """A forked child used something that only its parent holds."""

    code: ClassVar[str] = "forked"

    what: str
    hint: str = "open your own after the fork"

    def __str__(self) -> str:
        return f"{self.what} belongs to the parent of this forked process"


# ------------------------------------------------------------------ outer layers


@dataclass(kw_only=True, eq=False)
class DeliveryError(HoldfastError):
    """A channel failed to take a reply that is already committed."""

    code: ClassVar[str] = "delivery"

    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass(kw_only=True, eq=False)
class WireError(HoldfastError):
    """A peer on the network broke the protocol."""

    code: ClassVar[str] = "wire"

    detail: str

    def __str__(self) -> str:
        return self.detail
