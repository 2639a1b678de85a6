"""
Whose turn is next: people's lanes, aged priorities, and the head of a session.  Pure.

A session has one queue a lane, in the order of admission.  Its head is the best of its lanes'
heads by effective priority, then admission; but among people's lanes the order is that of
admission alone: their earliest head stands for all of them, with the greatest effective
priority among theirs.  So no later message of a person ever overtakes an earlier one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["AGED_MOST", "SYSTEM", "Head", "bound_ms", "effective", "head_of", "is_people"]

#: Lanes whose turns nobody is sitting and waiting for.  Every other lane is people's.
SYSTEM: Final = frozenset({"subagent", "cron", "heartbeat", "maintenance"})
AGED_MOST: Final = 100  #: What every waiting turn reaches in the end.


def is_people(lane: str) -> bool:
    """Whether people wait for this lane's turns."""
    return lane not in SYSTEM


def effective(priority: int, waited_ms: int) -> int:
    """*priority*, and 1 for each whole second waited until it stands at 100."""
    return max(priority, min(AGED_MOST, priority + max(waited_ms, 0) // 1000))


class Head(NamedTuple):
    """The first waiting turn of a session's lane, or of a whole session."""

    effective: int
    admission: int
    lane: str

    @property
    def rank(self) -> tuple[int, int]:
        """Lower is better."""
        return -self.effective, self.admission


def head_of(heads: Iterable[Head]) -> Head | None:
    """The head of a session, of those of its lanes; None: nobody waits."""
    each = list(heads)
    people = [head for head in each if is_people(head.lane)]
    if people:
        first = min(people, key=lambda head: head.admission)
        best = max(head.effective for head in people)
        each = [head for head in each if not is_people(head.lane)]
        each.append(first._replace(effective=best))
    return min(each, key=lambda head: head.rank, default=None)


def bound_ms(lowest: int, earlier: int, longest_ms: int) -> int:
    """
    How long a turn waits at most, whatever comes after it.

    Once it and all that were admitted before it stand at 100, the first of them by admission
    is its session's head and the best of the store: nothing that came later starts before it
    in its session, and none takes the next free slot of its lane.  So it waits for one run
    at most until its session is idle, and for one more until a slot is free.

    Args:
        lowest: priority, of those that waited when it was admitted and of its own.
        earlier: how many waited when it was admitted, in the whole store.
        longest_ms: no run takes longer.  Times that a head spends waiting for its runner or
            for its `not_before`, and runs that take their slot back, count as runs.
    """
    return (AGED_MOST - min(lowest, AGED_MOST)) * 1000 + 2 * longest_ms * (earlier + 1)
