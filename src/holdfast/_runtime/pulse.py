"""
Whether the runtime's event loop answers, and how late it is.

The keeper's thread posts a ping and looks when it was answered: the delay is what any
callback of that loop had to wait.  One ping is under way at a time; one that is not
answered yet counts as late as it is by now.

A late loop is not a dead run: bytes wait in sockets, and nobody could take them.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["EVERY_S", "LATE_S", "LoopDelay", "Pulse"]

EVERY_S: Final = 0.25
LATE_S: Final = 1.0  #: From here on it is told, and nobody is judged.
WINDOW_S: Final = 60.0
TELL_AGAIN_S: Final = 120.0
_P: Final = 0.99

_log = logging.getLogger("holdfast.recovery")


@dataclass(frozen=True, slots=True)
class LoopDelay:
    """How long a callback had to wait, in the last minute."""

    max_s: float
    p99_s: float


class Pulse:
    """
    `ping` and the figures are for the keeper's thread; reading a figure is for any.

    Args:
        loop: the loop that must answer.
        now_s: a monotonic clock.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._loop, self._now_s = loop, now_s
        self.answered_s = now_s()  #: When the loop last answered.
        self.late_at_s = -WINDOW_S  #: When it was last seen late.
        self._asked_s: float | None = None  #: Since when a ping is under way.
        self._delays: deque[tuple[float, float]] = deque()
        self._told_s: float | None = None

    def ping(self) -> None:
        """Ask, unless an earlier question is open."""
        now_s = self._now_s()
        if self.delay_s >= LATE_S:
            self.late_at_s = now_s
        if self._asked_s is None:
            self._asked_s = now_s
            self._loop.call_soon_threadsafe(self._pong, now_s)
        while self._delays and self._delays[0][0] < now_s - WINDOW_S:
            self._delays.popleft()

    def _pong(self, asked_s: float) -> None:
        """On the loop."""
        now_s = self._now_s()
        delay_s = now_s - asked_s
        if delay_s >= LATE_S:
            self.late_at_s = now_s
        self._delays.append((now_s, delay_s))
        self.answered_s, self._asked_s = now_s, None

    @property
    def delay_s(self) -> float:
        """How late the open question is by now; 0: none is open."""
        asked_s = self._asked_s
        return 0.0 if asked_s is None else self._now_s() - asked_s

    @property
    def late(self) -> bool:
        """Whether the loop is late now, or was a moment ago."""
        return self.delay_s >= LATE_S or self._now_s() - self.late_at_s < LATE_S

    @property
    def max_s(self) -> float:
        """The longest delay of the last minute, the open question included."""
        return max([self.delay_s, *(delay for _, delay in list(self._delays))])

    @property
    def p99_s(self) -> float:
        """Of the last minute; the open question included once it is late."""
        open_s = self.delay_s
        delays = sorted(delay for _, delay in list(self._delays))
        if open_s >= LATE_S:
            delays.append(open_s)
        return delays[min(int(len(delays) * _P), len(delays) - 1)] if delays else 0.0

    def figures(self) -> LoopDelay:
        return LoopDelay(self.max_s, self.p99_s)

    def to_tell(self) -> dict[str, int] | None:
        """Once in two minutes while the loop is late: its figures, logged; else None."""
        now_s = self._now_s()
        if not self.late or (self._told_s is not None and now_s - self._told_s < TELL_AGAIN_S):
            return None
        self._told_s = now_s
        told = {"max_ms": round(self.max_s * 1000), "p99_ms": round(self.p99_s * 1000)}
        _log.warning(
            "event loop delay: max=%dms p99=%dms window=%ds: no run is judged meanwhile",
            told["max_ms"], told["p99_ms"], WINDOW_S,
        )  # fmt: skip
        return told
