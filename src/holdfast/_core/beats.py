"""
When may a silent owner be called expired?  Leases by beats, without comparing clocks.

Every owner (process) bumps a counter, its *beat*, every `lease_ms / 6`.  Whoever has seen
the same beat for `lease_ms` on its own monotonic clock may call the owner expired.  No clock
is compared across processes, so stepping or skewed clocks cannot end a lease early.

Rules
-----
1. An observer's watches count only while the observer itself is being served: if its own
   beat is late by more than `lease_ms / 3`, or the store was blocked, it might be the one
   that was frozen, and every watch starts again.
2. An expired owner is not a dead one: it may wake up and go on.  Expiry permits moving the
   token; what the late owner still tries is refused where bytes are written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.types import OwnerId

__all__ = ["BEATS_PER_LEASE", "Watch"]

BEATS_PER_LEASE = 6


@dataclass(slots=True)
class Watch:
    """One observer's view of everybody's beats."""

    lease_s: float
    _seen: dict[OwnerId, tuple[int, float]] = field(default_factory=dict)
    _own_beat_at_s: float | None = None

    def own_beat_committed(self, now_s: float) -> None:
        """Our own beat was committed at *now_s*.  A late one starts every watch again."""
        last, self._own_beat_at_s = self._own_beat_at_s, now_s
        allowed_s = self.lease_s / BEATS_PER_LEASE + self.lease_s / 3
        if last is None or now_s - last > allowed_s:
            self._seen.clear()

    def look(self, beats: Mapping[OwnerId, int], now_s: float) -> set[OwnerId]:
        """
        Take a look at every owner's beat; return those that may be called expired.

        Args:
            beats: owner id → its beat, as just read.
            now_s: our monotonic clock.
        """
        if self._own_beat_at_s is None or now_s - self._own_beat_at_s > self.lease_s / 2:
            self._seen.clear()
        expired: set[OwnerId] = set()
        for owner, beat in beats.items():
            known = self._seen.get(owner)
            if known is None or known[0] != beat:
                self._seen[owner] = (beat, now_s)
            elif now_s - known[1] >= self.lease_s:
                expired.add(owner)
        for gone in self._seen.keys() - beats.keys():
            del self._seen[gone]
        return expired
