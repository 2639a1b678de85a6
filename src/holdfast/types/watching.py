"""What can be watched of turns and sessions, and counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.types.coordinating import Place
    from holdfast.types.names import TurnId

__all__ = [
    "Counts",
    "Drained",
    "HoldStatistics",
    "LiveEvent",
    "LogId",
    "Pulse",
    "SessionEvent",
    "TurnEvent",
    "TurnState",
]

#: (token, n) of an event in a live log; written ``<token>.<n>``, and ordered like the pair.
LogId = tuple[int, int]


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """One event of a live log."""

    log_id: LogId
    kind: str  #: started | attempt | text | tool
    at: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TurnState:
    """A turn as one who follows it sees it."""

    state: str
    outcome: str | None
    place: Place


@dataclass(frozen=True, slots=True)
class Pulse:
    """What goes on in a session."""

    running: TurnId | None
    waiting: int
    generation: int  #: Of its transcript.


@dataclass(frozen=True, slots=True)
class Counts:
    """The whole store, now."""

    waiting: int
    running: int
    leases: int
    sessions: int


@dataclass(frozen=True, slots=True)
class TurnEvent:
    """
    Something that happened to a turn.

    `kind`: ``accepted``, ``position``, ``started``, ``attempt``, ``text``, ``tool``,
    ``committed``, ``outcome``, and after it what its target was sent: ``delivered`` a part,
    or ``delivery`` where it failed or nobody knows.  Only what stands in the live log has an
    id; after an ``attempt`` all earlier text is void.
    """

    kind: str
    data: Mapping[str, Any]
    event_id: str | None = None  #: ``<token>.<n>``
    at: str | None = None


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """
    Something that happened to a session.

    `kind`: ``entry`` (with a cursor: go on after it), ``running``, ``idle``, ``waiting``.
    """

    kind: str
    data: Mapping[str, Any]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Drained:
    """What a process left when it stopped taking turns."""

    finished: int  #: Turns that ended while it drained.
    put_back: int  #: Turns that went back to their places in the queue.
    waiting: int  #: Turns that wait in the whole store, those put back included.


@dataclass(frozen=True, slots=True)
class HoldStatistics:
    """The write locks of this process, since it started."""

    acquired: int = 0  #: Counted when they are released.
    contended: int = 0  #: Of those, how many did not succeed at the first look.
    timeouts: int = 0
    reclaimed: int = 0  #: Claims of dead owners that were replaced.
    watchdog_aborts: int = 0  #: Holds that were ended because they passed `max_hold_ms`.
    long_holds: int = 0  #: Of those acquired, how many were held for more than 1 s.
    stale_reports: int = 0  #: Waiters that were told LockStaleError.
    hold_max_ms: float = 0.0
    held_s: float = 0.0  #: In all.
    #: (upper bound in seconds, how many holds were not longer).
    buckets: tuple[tuple[float, int], ...] = ()
