"""What coordinates: owners, sessions, turns, leases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.types.names import FencingToken, OwnerId, SessionId, TurnId

__all__ = [
    "Admission",
    "Admitted",
    "Commit",
    "Leased",
    "Look",
    "Owner",
    "Place",
    "Session",
    "Standing",
    "Turn",
]


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from every other that ever had its pid."""

    owner_id: OwnerId
    pid: int
    start_time: int  #: Clock ticks since boot (field 22 of /proc/<pid>/stat).
    boot_id: str
    pid_namespace: int
    host: str


@dataclass(frozen=True, slots=True)
class Session:
    session_id: SessionId
    agent_id: str
    transcript: str  #: Relative to the state directory.
    generation: int  #: Raised by whoever rewrites the transcript.
    end_offset: int  #: Bytes of it that a commit has vouched for.
    created_at: str


@dataclass(frozen=True, slots=True)
class Admission:
    """An inbound message, before anything has happened to it.  Already checked."""

    turn_id: TurnId
    session_key: str
    agent_id: str
    text: str
    lane: str
    source: str
    priority: int
    policy: str
    queue_max: int
    model: str | None = None
    idempotency_key: str | None = None
    request_hash: str = ""
    home: OwnerId | None = None  #: The runner that admits it; None: any runner's.
    bound: bool = False  #: Only its home can run it, and it dies with it (`hf.turn`).
    instructions: str | None = None  #: What the agent is told for this turn only.
    #: Earlier messages, as JSON `[{"role": "user"|"assistant", "content": str}, …]`; they
    #: begin the transcript if it has no message yet, and are ignored otherwise.
    seed: bytes | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn's row."""

    turn_id: TurnId
    admission: int  #: Global, in the order of acceptance.
    session_id: SessionId
    session_key: str
    agent_id: str
    lane: str
    source: str
    priority: int
    policy: str
    state: str
    outcome: str | None
    reason: str | None
    hint: str | None
    text: str
    reply: str | None
    model: str | None
    attempts: int
    reruns: int
    idempotency_key: str | None
    home: OwnerId | None
    bound: bool
    not_before_ms: int
    host: TurnId | None
    token: FencingToken | None
    owner_id: OwnerId | None
    abort_requested: bool
    accepted_at: str
    started_at: str | None
    ended_at: str | None
    final_entry: str | None
    #: A finished reply that could not be appended yet, as JSON: a successor appends it.
    finished: bytes | None
    #: A finished reply whose place in the transcript is gone; kept for `turns show`.
    salvaged: bytes | None
    usage: Mapping[str, Any] | None  #: The reply's, as its message has it.

    @property
    def ended(self) -> bool:
        return self.outcome is not None


@dataclass(frozen=True, slots=True)
class Admitted:
    turn: Turn
    fresh: bool  #: False: the idempotency key had been used; this is the earlier turn.


@dataclass(frozen=True, slots=True)
class Leased:
    """A turn that this process may run, with the token that says so."""

    turn: Turn
    session: Session
    token: FencingToken
    #: A finished reply that an earlier owner could not append: append it, ask no model.
    finished: bytes | None
    instructions: str | None = None  #: See `Admission`; read for who runs the turn only.
    seed: bytes | None = None
    #: Why an earlier run of this turn came to nothing; None: this is the first.
    again: str | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """What a turn's final append left behind, for its row."""

    reply: str
    final_entry: str
    entries: bytes  #: All lines of this turn, as they stand in the transcript.
    end_offset: int
    generation: int
    synced: bool  #: Whether the batch was synced, and with it everything before it.
    usage: bytes | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a turn stands, and what it waits for."""

    position: int  #: Turns of its session ahead of it, the running one included.
    waiting_for: str | None  #: turn | queue | slot | no_runner | write_lock; None: nothing.


@dataclass(frozen=True, slots=True)
class Standing:
    """A lease as it stands: what the reaper looks at."""

    session_id: SessionId
    turn_id: TurnId
    token: FencingToken
    owner_id: OwnerId
    recovering: bool


@dataclass(frozen=True, slots=True)
class Look:
    """One consistent look at everything that is held, and by whom."""

    owners: tuple[tuple[Owner, int], ...]  #: With their beats.
    leases: tuple[Standing, ...]
    orphans: tuple[tuple[TurnId, OwnerId], ...]  #: Bound turns, waiting, and their homes.
    #: Heads of idle sessions that another live process is expected to start.
    foreign_heads: tuple[TurnId, ...]
