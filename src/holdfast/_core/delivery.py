"""
A delivery's life, as a table: one part of a committed reply, owed to a channel.

    –  ──OWE──▶ PENDING ──TAKE──▶ ATTEMPTING ──LAND──▶ DELIVERED
                  ▲  │              │ │ ▲ └────REFUSE──▶ FAILED
                  │  └───EXPIRE─────┼─┼─┼────────────────▶ ▲
                  └──────RETRY──────┘ │ └─TAKE──┐          │
                                      └──LOSE──▶ UNKNOWN ──┘ EXPIRE

Rules
-----
1. DELIVERED and FAILED are final.
2. An attempt is counted when it is taken, durably, before a byte is sent: whoever dies in it
   leaves a row that says so (LOSE).
3. Every attempt at a part sends the same bytes under the same key, so a receiver that knows
   keys acts on it once.  That is why an UNKNOWN part may be attempted again.
4. UNKNOWN is nobody's last word: whoever takes it asks the channel what became of it, and
   where that cannot be told the channel's `ambiguous` decides (`decide`), and it is said.
5. The parts of one target go in the order of obligation, one at a time.  A part that has kept
   others waiting for HEAD_BLOCKS_MS is passed by them; parts of one turn never pass each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from holdfast.types import Delivery

__all__ = [
    "AMBIGUOUS",
    "ATTEMPTS_MAX",
    "BACKOFF_MS",
    "HEAD_BLOCKS_MS",
    "PERMANENT",
    "TABLE",
    "TRANSIENT",
    "Event",
    "Failure",
    "Next",
    "Queue",
    "State",
    "after_failure",
    "is_ambiguous",
    "look",
    "may_drop",
    "step",
    "terminal",
    "ttl_ms",
]


class State(StrEnum):
    PENDING = "pending"  #: Owed, and not being sent.
    ATTEMPTING = "attempting"  #: Somebody sends it now.
    DELIVERED = "delivered"  #: The channel has it.
    FAILED = "failed"  #: Nobody will try again.
    UNKNOWN = "unknown"  #: An attempt ended, and nobody knows how.


class Event(StrEnum):
    TAKE = "take"  #: An attempt begins; it counts.
    LAND = "land"  #: The channel took it, or had it already.
    RETRY = "retry"  #: It did not arrive; later again.
    REFUSE = "refuse"  #: It did not arrive and never will.
    LOSE = "lose"  #: It may have arrived: no answer came, or the sender died.
    EXPIRE = "expire"  #: Nobody wants it any more.


TABLE: Final[Mapping[State, Mapping[Event, State]]] = {
    State.PENDING: {Event.TAKE: State.ATTEMPTING, Event.EXPIRE: State.FAILED},
    State.ATTEMPTING: {
        Event.LAND: State.DELIVERED,
        Event.RETRY: State.PENDING,
        Event.REFUSE: State.FAILED,
        Event.LOSE: State.UNKNOWN,
    },
    State.UNKNOWN: {Event.TAKE: State.ATTEMPTING, Event.EXPIRE: State.FAILED},
    State.DELIVERED: {},
    State.FAILED: {},
}

ATTEMPTS_MAX: Final = 5
BACKOFF_MS: Final = (5_000, 25_000, 120_000, 600_000)  #: After the first attempt, the second, …
HEAD_BLOCKS_MS: Final = 600_000  #: So long a part may keep others of its target waiting.
RETRY_AFTER_MOST_MS: Final = 3_600_000  #: A channel may ask for patience, not for oblivion.

#: By lane: how long somebody still wants to read it.
_TTL_MS: Final = {
    "subagent": 6 * 3_600_000,
    "cron": 2 * 3_600_000,
    "heartbeat": 2 * 3_600_000,
    "maintenance": 2 * 3_600_000,
}
_TTL_PEOPLE_MS: Final = 24 * 3_600_000

#: Why no attempt will ever succeed → what to do about it.
PERMANENT: Final[Mapping[str, str]] = {
    "bad_request": "the channel does not understand what it is sent",
    "unauthorized": "mend the channel's credentials",
    "forbidden": "let us send there: blocked, kicked, or not a member",
    "not_found": "name a recipient that there is",
    "gone": "the recipient wants nothing more; remove it",
    "too_large": "lower the channel's part_chars",
    "redirected": "name the place that it redirects to",
    "unsupported": "the channel cannot carry this",
    "no_channel": "configure the channel with somewhere to deliver to",
}
#: Why an attempt did not arrive, and a later one may.
TRANSIENT: Final = frozenset(
    {"unreachable", "busy", "server_error", "interrupted", "not_delivered", "failed"}
)
#: Why nobody knows whether an attempt arrived.
AMBIGUOUS: Final = frozenset({"unanswered", "owner_died", "abandoned"})
#: What a part that nobody will try again can be marked with besides.
OVER: Final = frozenset({"expired", "attempts_used_up", "dropped"})

SENT_AGAIN: Final = "nobody knows whether it arrived; it is sent again under the same key"
MAY_HAVE_ARRIVED: Final = "it may have arrived all the same: look there before sending it again"
PASSED: Final = "it kept later ones waiting too long; they went ahead"


def step(state: str, event: Event) -> State:
    """
    Where *event* leads from *state*.

    Raises:
        AssertionError: the table has no such cell.  Nothing has changed.
    """
    found = TABLE[State(state)].get(event)
    assert found is not None, f"{event.value} in {state}"
    return found


def terminal(state: str) -> bool:
    return not TABLE[State(state)]


def may_drop(state: str) -> bool:
    """Whether a person may say now that nobody wants it: not in the middle of an attempt."""
    return Event.EXPIRE in TABLE[State(state)]


def is_ambiguous(delivery: Delivery) -> bool:
    """Whether an earlier attempt at what was just taken may have arrived."""
    return delivery.reason in AMBIGUOUS


def ttl_ms(lane: str) -> int:
    """How long a part of a turn of *lane* is worth an attempt."""
    return _TTL_MS.get(lane, _TTL_PEOPLE_MS)


# ----------------------------------------------------------------------- after an attempt


class Failure(NamedTuple):
    """What an attempt that did not succeed came to."""

    reason: str
    permanent: bool = False
    landed: bool | None = False  #: None: it may have arrived.
    retry_after_ms: int | None = None  #: What the channel asked for.


@dataclass(frozen=True, slots=True)
class Next:
    """What becomes of a part: the state, and how long nothing is done."""

    event: Event
    reason: str
    hint: str | None = None
    delay_ms: int = 0

    @property
    def state(self) -> State:
        return step(State.ATTEMPTING, self.event)


def after_failure(
    failure: Failure, attempts: int, *, resend: bool, asks: bool, doubtful: bool = False
) -> Next:
    """
    Decide after an attempt that did not succeed.

    Args:
        attempts: how many were counted, this one included.
        resend: the channel's `ambiguous`: whether what may have arrived is sent again.
        asks: whether the channel can tell afterwards what arrived.
        doubtful: an earlier attempt may have arrived.
    """
    lost = failure.landed is None
    maybe = MAY_HAVE_ARRIVED if lost or doubtful else None
    if failure.permanent and not lost:
        return Next(Event.REFUSE, failure.reason, maybe or PERMANENT.get(failure.reason))
    if lost and not (resend or asks):
        return Next(Event.REFUSE, failure.reason, maybe)
    if attempts >= ATTEMPTS_MAX:
        reason = failure.reason if lost else "attempts_used_up"
        hint = maybe or f"{attempts} attempts, the last: {failure.reason}"
        return Next(Event.REFUSE, reason, hint)
    delay_ms = BACKOFF_MS[min(attempts, len(BACKOFF_MS)) - 1]
    if failure.retry_after_ms is not None:
        delay_ms = min(max(delay_ms, failure.retry_after_ms), RETRY_AFTER_MOST_MS)
    if lost:
        return Next(Event.LOSE, failure.reason, None, delay_ms)
    return Next(Event.RETRY, failure.reason, None, delay_ms)


# --------------------------------------------------------------------- one target's order


class Queue(NamedTuple):
    """One look at what is owed to one target."""

    head: Delivery | None  #: None: nothing is owed.
    take: Delivery | None  #: May be attempted now.
    passed: tuple[Delivery, ...]  #: Stand before it, and are overtaken if it is taken.
    blocks: Delivery | None  #: Keeps others waiting from now on.
    wake_ms: int | None  #: When another look may find a part to take; None: one is being sent.


def look(owed: Iterable[Delivery], now_ms: int) -> Queue:
    """
    Look at *owed*: what one target is owed, by `seq`.  Stops at the first that holds up the
    rest, and at the one behind it.
    """
    head: Delivery | None = None
    take: Delivery | None = None
    blocks: Delivery | None = None
    ahead: tuple[Delivery, ...] = ()
    passed: list[Delivery] = []
    wakes: list[int] = []
    turns: set[str] = set()
    rest = iter(owed)
    for each in rest:
        head = head or each
        if each.state == State.ATTEMPTING.value:
            blocks = each if each.blocking_ms is None and next(rest, None) else None
            return Queue(head, None, (), blocks, None)
        if each.turn_id not in turns:
            if take is None and each.not_before_ms <= now_ms:
                take, ahead = each, tuple(passed)
            wakes.append(each.not_before_ms)
            since_ms = each.blocking_ms
            if since_ms is None or since_ms + HEAD_BLOCKS_MS > now_ms:
                if next(rest, None) is not None:
                    blocks = each if since_ms is None else None
                    wakes += [] if since_ms is None else [since_ms + HEAD_BLOCKS_MS]
                break
        passed.append(each)
        turns.add(each.turn_id)
    wake_ms = now_ms if take is not None else min(wakes, default=None)
    return Queue(head, take, ahead, blocks, wake_ms)
