"""
A turn's life, as a table.

    –  ──ADMIT──▶ ACCEPTED ──LEASE──▶ RUNNING ──COMMIT──▶ COMMITTED ──SETTLE──▶ DONE
                     │  ▲                │ │                                     ▲
                     │  └─REQUEUE────────┘ │                                     │
                     │  └─GIVE_BACK────────┘                                     │
                     └──────────END──────────────────END─────────────────────────┘

This file is the whole protocol; the stores keep its rows, the runtime performs what it
asks for, and neither adds a transition.  A blank cell is a bug in the caller.

Rules
-----
1. DONE is final and has exactly one outcome.
2. An attempt is counted when the lease is taken, durably, before the model is called: a
   turn that kills its process cannot loop for ever.  GIVE_BACK returns the attempt, because
   the turn did nothing wrong: its process drained, the transcript was taken over, or the
   write lock was not had, or was taken away by a stranger, or the disk was full.
3. A turn keeps its admission number for life, so going back to ACCEPTED is going back to
   its place in the queue.
4. COMMITTED means: the final entry is in the transcript.  From here on the only outcome is
   `replied`, whatever happens to the process or the deliveries.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ABORTS",
    "ENDED_BY",
    "GIVES_BACK",
    "HINTS",
    "OUTCOMES",
    "TABLE",
    "Event",
    "Loss",
    "Row",
    "State",
    "after_loss",
    "step",
]


class State(StrEnum):
    ACCEPTED = "accepted"  #: Durable, and in the queue.
    RUNNING = "running"  #: Has the session's lease and a slot of its lane.
    COMMITTED = "committed"  #: Its reply is in the transcript; deliveries may be owed.
    DONE = "done"  #: Has its one outcome.


class Event(StrEnum):
    LEASE = "lease"  #: Slot and lease were picked together.
    REQUEUE = "requeue"  #: Owner dead or fenced: same place, the attempt counts.
    GIVE_BACK = "give_back"  #: See rule 2: same place, the attempt does not count.
    COMMIT = "commit"  #: The final entry stands in the transcript.
    SETTLE = "settle"  #: No delivery owed, or all of them terminal.
    END = "end"  #: An outcome other than `replied`.


OUTCOMES: Final = ("replied", "silent", "refused", "failed", "cancelled", "merged")

#: Why a running turn may go back to its place with its attempt returned.
GIVES_BACK: Final = frozenset(
    {"drained", "taken_over", "write_lock", "lock_lost", "disk_full", "handed_over"}
)

#: Why somebody wants a turn ended → what it ends as; `None`: it goes back to its place, or is
#: `failed` once its attempts are used up.
ABORTS: Final[Mapping[str, str | None]] = {
    "cancelled": "cancelled",  # Its sender, or an operator.
    "interrupted": "cancelled",  # A later message with policy `interrupt`.
    "preempted": "cancelled",  # A person's message; heartbeats only.
    "rolled_back": "cancelled",  # And its question leaves the branch, by a `leaf` entry.
    "max_time": "failed",  # `turn.max_ms` is over.
    "no_progress": None,  # The reaper: nothing moved within `turn.progress_timeout_ms`.
    "handed_over": None,  # Its idle owner was asked to let go; the attempt does not count.
}

#: What whoever is told of such an end may do about it.
HINTS: Final[Mapping[str, str]] = {
    "interrupted": "a later message with policy interrupt ended it; send it again if need be",
    "rolled_back": "it was taken back, by a later message with policy rollback or by hand",
    "preempted": "a person's message came first; the next heartbeat runs as usual",
    "max_time": "it ran longer than turn.max_ms",
    "no_progress": "neither model, tool nor program moved within turn.progress_timeout_ms",
    "attempts_used_up": "each of its runs came to nothing (turn.max_attempts); the log of its"
    " runner says why",
    "owner_died": "the process that answered it itself has ended; send it again",
}

#: `customType` of the entry that ends a turn without a reply, written before its row is.
ENDED_BY: Final = "holdfast:turn-ended"


@dataclass(frozen=True, slots=True)
class Row:
    to: State
    attempts: int = 0  #: Added to the turn's count.
    outcomes: tuple[str, ...] = ()  #: Those that this transition may set.


TABLE: Final[Mapping[State, Mapping[Event, Row]]] = {
    State.ACCEPTED: {
        Event.LEASE: Row(State.RUNNING, attempts=+1),
        Event.END: Row(State.DONE, outcomes=("merged", "cancelled", "refused", "failed")),
    },
    State.RUNNING: {
        Event.REQUEUE: Row(State.ACCEPTED),
        Event.GIVE_BACK: Row(State.ACCEPTED, attempts=-1),
        Event.COMMIT: Row(State.COMMITTED, outcomes=("replied",)),
        Event.END: Row(State.DONE, outcomes=("silent", "failed", "cancelled")),
    },
    State.COMMITTED: {Event.SETTLE: Row(State.DONE, outcomes=("replied",))},
    State.DONE: {},
}


def step(state: State, event: Event, outcome: str | None = None) -> Row:
    """
    The row for *event* in *state*.

    Raises:
        AssertionError: the table has no such cell, or the cell does not set *outcome*.
            Nothing has changed.
    """
    row = TABLE[state].get(event)
    assert row is not None, f"{event.value} in {state.value}"
    allowed = row.outcomes or (None,)
    assert outcome in allowed, f"{event.value} in {state.value} cannot set {outcome}"
    return row


@dataclass(frozen=True, slots=True)
class Loss:
    """What becomes of a running turn whose owner is gone or fenced."""

    event: Event
    outcome: str | None = None
    reason: str = "owner_died"


def after_loss(
    *, reason: str, attempts: int, attempts_max: int, bound: bool, abort: str | None = None
) -> Loss:
    """
    Decide for a turn that has lost its owner, once no final entry of it was found.

    Args:
        reason: why its attempt is ended: ``owner_died``, ``owner_silent``, … or an abort.
        attempts: how many were counted, the lost one included.
        bound: the turn belongs to its process (`hf.turn`) and nobody else can run it.
        abort: why somebody wanted it ended before; one of ABORTS.
    """
    wanted = abort or (reason if reason in ABORTS else None)
    ends_as = None if wanted is None else ABORTS[wanted]
    if ends_as is not None:
        return Loss(Event.END, ends_as, wanted or reason)
    if bound:
        return Loss(Event.END, "failed", wanted or "owner_died")
    if wanted in GIVES_BACK:
        return Loss(Event.GIVE_BACK, None, wanted or reason)
    if attempts >= attempts_max:
        return Loss(Event.END, "failed", "attempts_used_up")
    return Loss(Event.REQUEUE, None, wanted or reason)
