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
    "Reset",
    "Session",
    "Standing",
    "Trimmed",
    "Turn",
    "Vouched",
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
    sender: str | None = None  #: Who speaks, as its channel names them.
    target: str | None = None  #: `channel:address` that the reply is owed to.
    part_chars: int | None = None  #: The longest part that the target takes.
    parent: TurnId | None = None  #: The turn that asks for this one.
    awaited: bool = False  #: The parent will wait for its end.
    quiet_ms: int = 0  #: `collect`: how long its session must be quiet before it runs.
    preempts: bool = True  #: A running heartbeat may be ended for it, if it is a person's.
    collect_max: int = 0  #: `collect`: so many messages at most become one turn.


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
    sender: str | None = None
    target: str | None = None
    part_chars: int | None = None
    parent: TurnId | None = None
    #: The children whose ends it waits for, a space between; it has no slot then.
    waits_for: str | None = None
    slot_wanted: bool = False  #: It takes the next free slot of its lane, before new turns.
    abort_reason: str | None = None  #: _core/turns.py, ABORTS
    abort_at_ms: int | None = None  #: By the store's clock.
    hosted: bool = False  #: It had a host at some time: its question may stand already.
    asked_entry: str | None = None  #: Its question, taken into its host's run.
    merged_into: TurnId | None = None
    accepted_ms: int = 0  #: By the store's clock.

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
    #: Turns provisionally merged into this one, in the order of admission.
    merges: tuple[Turn, ...] = ()


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
    #: Turns whose question is an ancestor of the final entry: they end `merged`.
    merged: tuple[TurnId, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a turn stands, and what it waits for."""

    position: int  #: Turns of its session ahead of it, the running one included.
    #: turn | queue | slot | no_runner | write_lock | quiet | merge | …; None: nothing.
    waiting_for: str | None
    blocker: TurnId | None = None  #: The turn that it waits for, if it is one.
    lane: str | None = None  #: Of the blocker; for `slot`, the lane that is full.
    since: str | None = None  #: When the blocker began to run; None: it waits itself.
    left_ms: int = 0  #: Until `not_before` is over.


@dataclass(frozen=True, slots=True)
class Standing:
    """A lease as it stands: what the reaper looks at."""

    session_id: SessionId
    turn_id: TurnId
    token: FencingToken
    owner_id: OwnerId
    recovering: bool
    abort_age_ms: int | None = None  #: Since somebody asked for its end, by the store's clock.


@dataclass(frozen=True, slots=True)
class Reset:
    """A key that was moved to a new session."""

    old: Session
    new: Session
    moved: tuple[TurnId, ...]  #: Waiting turns that went with it, in admission order.
    stayed: tuple[TurnId, ...]  #: Turns that had started: they end where they began.


@dataclass(frozen=True, slots=True)
class Trimmed:
    """A slice of what was over."""

    removed: int
    after: str | None  #: Where the next slice goes on; None: there is no more.


@dataclass(frozen=True, slots=True)
class Look:
    """One consistent look at everything that is held, and by whom."""

    owners: tuple[tuple[Owner, int], ...]  #: With their beats.
    leases: tuple[Standing, ...]
    orphans: tuple[tuple[TurnId, OwnerId], ...]  #: Bound turns, waiting, and their homes.
    #: Heads of idle sessions that another live process is expected to start.
    foreign_heads: tuple[TurnId, ...]


@dataclass(frozen=True, slots=True)
class Vouched:
    """What the rows say of a transcript: how far a commit has vouched for it."""

    session_id: SessionId
    transcript: str
    generation: int
    end_offset: int
