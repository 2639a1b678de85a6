"""Counters of the write locks of this process."""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from itertools import accumulate
from typing import Final

from holdfast.types import HoldStatistics

__all__ = [
    "BUCKETS_S",
    "LONG_S",
    "acquired",
    "add_hold",
    "add_reclaimed",
    "add_stale_report",
    "add_timeout",
    "add_watchdog_abort",
    "statistics",
]

LONG_S: Final = 1.0  #: A hold is milliseconds; one of a second is reported.
BUCKETS_S: Final = (0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class _Tally:
    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.acquired = self.contended = self.timeouts = self.reclaimed = 0
        self.watchdog_aborts = self.long_holds = self.stale_reports = 0
        self.hold_max_s = self.held_s = 0.0
        self.holds = [0] * (len(BUCKETS_S) + 1)


_tally = _Tally()


def statistics() -> HoldStatistics:
    """The counters, as of now."""
    with _tally.mutex:
        return HoldStatistics(
            acquired=_tally.acquired,
            contended=_tally.contended,
            timeouts=_tally.timeouts,
            reclaimed=_tally.reclaimed,
            watchdog_aborts=_tally.watchdog_aborts,
            long_holds=_tally.long_holds,
            stale_reports=_tally.stale_reports,
            hold_max_ms=_tally.hold_max_s * 1000,
            held_s=_tally.held_s,
            buckets=tuple(zip(BUCKETS_S, accumulate(_tally.holds), strict=False)),
        )


def add_hold(held_s: float, *, contended: bool) -> None:
    """One acquisition that succeeded and is over."""
    with _tally.mutex:
        _tally.acquired += 1
        _tally.contended += contended
        _tally.held_s += held_s
        if held_s > _tally.hold_max_s:  # noqa: PLR1730  max() costs more than all of this.
            _tally.hold_max_s = held_s
        if held_s > LONG_S:
            _tally.long_holds += 1
        _tally.holds[bisect_left(BUCKETS_S, held_s)] += 1


def acquired() -> int:
    """`statistics().acquired`, for who asks often."""
    return _tally.acquired


def add_timeout() -> None:
    with _tally.mutex:
        _tally.timeouts += 1


def add_reclaimed() -> None:
    with _tally.mutex:
        _tally.reclaimed += 1


def add_watchdog_abort() -> None:
    with _tally.mutex:
        _tally.watchdog_aborts += 1


def add_stale_report() -> None:
    """A waiter was told LockStaleError: a live owner overstays, or nobody can tell."""
    with _tally.mutex:
        _tally.stale_reports += 1


def _start_afresh() -> None:
    global _tally  # noqa: PLW0603
    _tally = _Tally()


os.register_at_fork(after_in_child=_start_afresh)
