"""
Frozen values that cross module borders.  No behaviour beyond what a value can say of itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NewType

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Admission",
    "Admitted",
    "Advance",
    "AgentEvent",
    "Appended",
    "Commit",
    "Entry",
    "FencingToken",
    "Final",
    "Leased",
    "Look",
    "Made",
    "Mark",
    "Owner",
    "OwnerId",
    "Place",
    "Prompt",
    "Replay",
    "Session",
    "SessionId",
    "Silent",
    "Standing",
    "Text",
    "ToolCall",
    "Turn",
    "TurnId",
]

SessionId = NewType("SessionId", str)
TurnId = NewType("TurnId", str)
OwnerId = NewType("OwnerId", str)

#: int ≥ 1, per session, strictly increasing, issued with a lease, survives release.
FencingToken = NewType("FencingToken", int)

#: One transcript line, decoded.  Never written back: unknown fields live in the bytes.
Entry = dict[str, Any]

Replay = Literal["never", "safe"]


# ------------------------------------------------------- what an agent is asked, and says


@dataclass(frozen=True, slots=True)
class Prompt:
    """
    What an agent is asked to answer.

    `history` and `made` hold the transcript's `message` objects, oldest first:
    `{"role": "user"|"assistant"|"toolResult"|…, "content": str | [{"type": "text"|
    "toolCall", …}], …}`.  A compaction shows up in `history` as one message with role
    `compactionSummary` and a `summary`.
    """

    turn_id: str
    session_id: str
    session_key: str
    agent_id: str
    lane: str
    source: str
    text: str  #: The question.  It is not repeated in `history`.
    history: tuple[Mapping[str, Any], ...]
    attempt: int  #: 1 for the first.
    model: str | None = None  #: Asked for by this turn; None = the agent's own.
    #: Tool calls and results that earlier attempts of this very turn have already made.
    #: Go on after them; their effects have happened.
    made: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """Some text of the reply, as it streams.  Void if the attempt is superseded."""

    delta: str


@dataclass(frozen=True, slots=True)
class Made:
    """A finished message on the way: an assistant message with tool calls, or a result."""

    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Final:
    """The reply.  Exactly once, and last."""

    message: Mapping[str, Any]
    text: str


@dataclass(frozen=True, slots=True)
class Silent:
    """A deliberate silence instead of a reply.  Exactly once, and last."""

    reason: str


AgentEvent = Text | Made | Final | Silent


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call, before it runs."""

    call_id: str
    name: str
    arguments: Mapping[str, Any]
    replay: Replay = "never"  #: After a crash: run again (`safe`), or say so (`never`).
    timeout_s: float = 120.0


# ------------------------------------------------------------- what coordinates, as values


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


# ------------------------------------------------------------------- transcripts, as values

#: What happened to a transcript since a mark: nothing, only growth, or anything else.
Advance = Literal["same", "appended", "rewritten"]


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a transcript went when a prompt window opened."""

    device: int
    inode: int
    size: int
    leaf: str | None


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append left behind."""

    data: bytes  #: The lines, as they stand in the file.
    end_offset: int
    generation: int
    synced: bool
