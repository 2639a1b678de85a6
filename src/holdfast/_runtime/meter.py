"""
What one process has counted: the numbers behind `/metrics`.

Each fact is counted once, by the process that made it so: an acceptance by the one that
admitted the message, an outcome by the one that booked it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from holdfast._runtime.receipts import Outcome, between_ms

if TYPE_CHECKING:
    from holdfast.types import Admitted, Turn

__all__ = ["WAIT_BUCKETS_S", "Meter"]

#: From a free session to the end of a long queue of model calls; and for runs.
WAIT_BUCKETS_S: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 1800.0)


#: (bound in seconds, how many were no longer) …, how many in all, seconds in all.
Told = tuple[tuple[tuple[float, int], ...], int, float]


class _Histogram:
    """Under the meter's mutex."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(WAIT_BUCKETS_S) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(WAIT_BUCKETS_S, seconds)] += 1
        self.total_s += seconds

    def told(self) -> Told:
        sums = list(accumulate(self.counts))
        return tuple(zip(WAIT_BUCKETS_S, sums, strict=False)), sums[-1], self.total_s


class Meter:
    """Counters since this process opened the store.  Thread-safe: the keeper counts too."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._accepted: Counter[str] = Counter()
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self._waits: dict[str, _Histogram] = {}
        self._runs: dict[str, _Histogram] = {}

    def admitted(self, admitted: Admitted) -> None:
        if admitted.fresh:
            with self._mutex:
                self._accepted[admitted.turn.lane] += 1

    def ended(self, turn: Turn) -> None:
        """A turn was given its outcome here.  One that has none yet is passed over."""
        if not turn.ended:
            return
        outcome = Outcome.of(turn)
        with self._mutex:
            self._outcomes[turn.lane, outcome.kind] += 1
            if turn.started_at is not None:
                self._waits.setdefault(turn.lane, _Histogram()).add(outcome.waited_ms / 1000)
                ran_s = between_ms(turn.started_at, turn.ended_at) / 1000
                self._runs.setdefault(turn.lane, _Histogram()).add(ran_s)

    def accepted(self) -> dict[str, int]:
        """By lane."""
        with self._mutex:
            return dict(self._accepted)

    def outcomes(self) -> dict[tuple[str, str], int]:
        """By lane and kind."""
        with self._mutex:
            return dict(self._outcomes)

    def waits(self) -> dict[str, Told]:
        """By lane: from acceptance to the first start."""
        with self._mutex:
            return {lane: each.told() for lane, each in self._waits.items()}

    def runs(self) -> dict[str, Told]:
        """By lane: from the first start to the outcome, further waits in between included."""
        with self._mutex:
            return {lane: each.told() for lane, each in self._runs.items()}
