"""What happened and what stands, for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.types.coordinating import Owner, Place, Session, Turn
    from holdfast.types.names import FencingToken, OwnerId, SessionId, TurnId

__all__ = ["Around", "EventRow", "Holder", "LaneState", "Owed", "Waiting", "Why"]


@dataclass(frozen=True, slots=True)
class EventRow:
    event_id: int
    at: str
    kind: str
    session_id: SessionId | None = None
    turn_id: TurnId | None = None
    owner_id: OwnerId | None = None
    lane: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaneState:
    lane: str
    concurrency: int
    priority: int
    running: int  #: Slots in use.
    waiting: int
    oldest: str | None  #: When the turn that has waited longest was accepted.
    oldest_ms: int  #: How long ago, by the store's clock.


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a session's lease."""

    turn: Turn
    token: FencingToken
    owner: Owner | None  #: None: it has left, or was buried.
    since: str
    effective: bool
    recovering: bool
    progress: Mapping[str, Any]  #: As its owner said with its last beat.


@dataclass(frozen=True, slots=True)
class Waiting:
    turn: Turn
    place: Place


@dataclass(frozen=True, slots=True)
class Owed:
    """A part of a committed reply that its channel has not got yet."""

    delivery_id: str
    turn_id: TurnId
    target: str
    state: str  #: pending | attempting | unknown
    part: int
    parts: int
    attempts: int
    left_ms: int  #: Until it may be attempted; 0: now.
    ahead: str | None  #: The delivery of the same target that has to go first.
    owner_id: OwnerId | None  #: Who attempts it now.
    reason: str | None  #: Of its last attempt.
    since: str


@dataclass(frozen=True, slots=True)
class Why:
    """One session, in one moment.  Lists are a page at most."""

    session: Session
    keys: tuple[str, ...]
    holder: Holder | None
    waiting: tuple[Waiting, ...]  #: In the order in which they will run; merges last.
    waiting_count: int  #: All of them.
    runners: tuple[tuple[Owner, bool], ...]  #: Of its agent, draining ones left out; permanent?
    owed: int  #: Deliveries that are not terminal.
    deliveries: tuple[Owed, ...]  #: The first of them.
    senders: tuple[Owner, ...] = ()  #: Who attempts any of those.

    @property
    def owners(self) -> tuple[Owner, ...]:
        """Every process that is named here, once."""
        found = {owner.owner_id: owner for owner, _ in self.runners}
        found |= {owner.owner_id: owner for owner in self.senders}
        if self.holder is not None and self.holder.owner is not None:
            found[self.holder.owner.owner_id] = self.holder.owner
        return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Around:
    """What stands around a session beyond its rows, seen from outside."""

    #: Of each process that was asked about: alive | stopped | dead | unknown.
    lives: Mapping[OwnerId, str] = field(default_factory=dict)
    lock: Mapping[str, Any] | None = None  #: The write lock, as `locks list --json` tells it.
    transcript: str | None = None  #: What is wrong with it; None: nothing.
    blocked: str | None = None  #: Who is stopped inside the store, as a sentence.
