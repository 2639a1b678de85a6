"""
Every error Holdfast raises on purpose.

HoldfastError                 never raised directly: code, fields, advice, hint
├── CoordinationError           two writers met; no model is at fault
│   ├── LockWaitError             the write lock was not had
│   │   ├── LockTimeoutError        within the deadline; names the holder
│   │   └── LockStaleError          a live owner overstays; row and reasons
│   ├── AbortedError              this attempt is over; it may do nothing more
│   ├── OwnerWaitError            the prompt windows before ours did not end in time
│   ├── LockLostError             our claim was taken from under us; nothing was written
│   ├── LeaseLostError            our turn's lease moved on
│   ├── FencedError               a newer token exists; nothing was written
│   ├── TakeoverError             the transcript was rewritten inside our window
│   ├── ClaimUnknownError         the file system did not say whether the claim landed
│   ├── QueueFullError            the session's queue is at its bound; no row was made
│   ├── DeadlockError             waiting for what only the waiter can release
│   ├── DrainingError             this process takes no new work
│   ├── RejectedError             policy `reject` met a busy session; no row was made
│   └── SessionBusyError          its turns run or wait; nothing was changed
├── ProviderError               a model provider failed; another attempt may succeed
├── ToolError                   a tool call had failed in an earlier attempt; not run again
├── StoreError                  the state directory or its medium failed
│   ├── UnavailableError          no answer in time; the same call may work later
│   ├── DiskFullError · ReadOnlyError · SharedFilesystemError
│   ├── NewerSchemaError          written by a newer Holdfast; named, never touched
│   └── BadTranscriptError        not a transcript we may append to
├── InputError                  the caller's to mend; nothing was accepted
│   ├── BadRequestError · NotFoundError · BadKeyError · UnknownAgentError
│   ├── UnknownChannelError · UnknownLaneError · UnknownPolicyError · TooLargeError
│   ├── IdempotencyConflictError · BadSettingError
│   └── ForkedError               a forked child used what only its parent holds
├── DeliveryError               a channel failed
└── WireError                   a peer on the network broke the protocol

The split is by *who should act*, because that is the only question a caller asks of an
error it did not expect.  `advice` answers it without an isinstance ladder; `code` is what
logs, exit codes and HTTP carry.  An error is never recognised by its text.
"""

from __future__ import annotations

from holdfast.errors.coordination import (
    AbortedError,
    ClaimUnknownError,
    CoordinationError,
    DeadlockError,
    DrainingError,
    FencedError,
    LeaseLostError,
    LockLostError,
    LockStaleError,
    LockTimeoutError,
    LockWaitError,
    OwnerWaitError,
    QueueFullError,
    RejectedError,
    SessionBusyError,
    TakeoverError,
)
from holdfast.errors.input import (
    BadKeyError,
    BadRequestError,
    BadSettingError,
    ForkedError,
    IdempotencyConflictError,
    InputError,
    NotFoundError,
    TooLargeError,
    UnknownAgentError,
    UnknownChannelError,
    UnknownLaneError,
    UnknownPolicyError,
)
from holdfast.errors.outer import (
    DeliveryError,
    ProviderError,
    ToolError,
    WireError,
)
from holdfast.errors.root import (
    Advice,
    HoldfastError,
)
from holdfast.errors.store import (
    BadTranscriptError,
    DiskFullError,
    NewerSchemaError,
    ReadOnlyError,
    SharedFilesystemError,
    StoreError,
    UnavailableError,
)

__all__ = [
    "AbortedError",
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
    "LockStaleError",
    "LockTimeoutError",
    "LockWaitError",
    "NewerSchemaError",
    "NotFoundError",
    "OwnerWaitError",
    "ProviderError",
    "QueueFullError",
    "ReadOnlyError",
    "RejectedError",
    "SessionBusyError",
    "SharedFilesystemError",
    "StoreError",
    "TakeoverError",
    "TooLargeError",
    "ToolError",
    "UnavailableError",
    "UnknownAgentError",
    "UnknownChannelError",
    "UnknownLaneError",
    "UnknownPolicyError",
    "WireError",
]
