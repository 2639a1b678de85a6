"""Counters of the write locks of this process."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace

__all__ = [
    "Statistics",
    "add_hold",
    "add_reclaimed",
    "add_timeout",
    "statistics",
]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Since this process started, or was forked."""

    acquired: int = 0  #: Counted when they are released.
    contended: int = 0  #: Of those, how many did not succeed at the first look.
    timeouts: int = 0
    reclaimed: int = 0  #: Claims of dead owners that were replaced.
    hold_max_ms: float = 0.0


class _Tally:
    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.acquired = self.contended = self.timeouts = self.reclaimed = 0
        self.hold_max_s = 0.0


_tally = _Tally()


def statistics() -> Statistics:
    """The counters, as of now."""
    with _tally.mutex:
        return replace(
            Statistics(),
            acquired=_tally.acquired,
            contended=_tally.contended,
            timeouts=_tally.timeouts,
            reclaimed=_tally.reclaimed,
            hold_max_ms=_tally.hold_max_s * 1000,
        )


def add_hold(held_s: float, *, contended: bool) -> None:
    """One acquisition that succeeded and is over."""
    with _tally.mutex:
        _tally.acquired += 1
        _tally.contended += contended
        _tally.hold_max_s = max(_tally.hold_max_s, held_s)


def add_timeout() -> None:
    with _tally.mutex:
        _tally.timeouts += 1


def add_reclaimed() -> None:
    with _tally.mutex:
        _tally.reclaimed += 1


def _start_afresh() -> None:
    global _tally  # noqa: PLW0603
    _tally = _Tally()


os.register_at_fork(after_in_child=_start_afresh)
