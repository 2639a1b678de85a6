"""What a lone attempt tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.types import Entry

__all__ = ["AttemptStatistics", "Counted", "PromptView"]


@dataclass(slots=True)
class PromptView:
    """One prompt window, as its block sees it."""

    #: What others appended while we stood in line: not in a history loaded before that.
    before: tuple[Entry, ...]
    #: What others appended while the window was open.  Empty until the block is over.
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class AttemptStatistics:
    """Counters of one attempt."""

    state: str
    windows: int  #: Prompt windows opened.
    rests: int  #: Idle waits.
    in_line_ms: float  #: Spent in line for a window, and taking the lock back after it.
    window_ms: float  #: Spent in prompt windows: no lock held.
    lent: int  #: Writes under the lock that was held.
    borrowed: int  #: Writes that took the lock for one moment, out of a window.
    appended: int  #: Entries written.
    foreign: int  #: Entries that others wrote meanwhile.
    posted: int  #: Entries that wait to be written.
    torn: int  #: Windows whose block raised.
    late: int  #: Times the lock was not had in time, after a window.
    leaks: int  #: Claims that could not be removed.
    ended_by: str | None  #: Why it is over; None: it is not.


@dataclass(slots=True)
class Counted:
    """The same, while it is counted."""

    windows: int = 0
    rests: int = 0
    in_line_s: float = 0.0
    window_s: float = 0.0
    lent: int = 0
    borrowed: int = 0
    appended: int = 0
    foreign: int = 0
    torn: int = 0
    late: int = 0

    def frozen(
        self, *, state: str, leaks: int, foreign: int, posted: int, ended_by: str | None
    ) -> AttemptStatistics:
        return AttemptStatistics(
            state=state, windows=self.windows, rests=self.rests,
            in_line_ms=self.in_line_s * 1000, window_ms=self.window_s * 1000,
            lent=self.lent, borrowed=self.borrowed, appended=self.appended, foreign=foreign,
            posted=posted, torn=self.torn, late=self.late, leaks=leaks, ended_by=ended_by,
        )  # fmt: skip
