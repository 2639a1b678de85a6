"""
Names and times we stamp on things: UUIDv7 (RFC 9562) and RFC 3339 UTC.

For people and for ordering of listings only.  No safety decision reads a clock: those use
integers that we issue (admission numbers, fencing tokens, beats).
"""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta

__all__ = ["age_ms", "days_before", "now_iso", "now_ms", "uuid7"]

_lock = threading.Lock()
_last_ms = 0
_counter = 0


def uuid7() -> str:
    """A new UUIDv7; within a process strictly increasing (RFC 9562, 6.2, method 1)."""
    global _last_ms, _counter  # noqa: PLW0603
    with _lock:
        ms = max(time.time_ns() // 1_000_000, _last_ms)
        if ms > _last_ms:
            _last_ms, _counter = ms, int.from_bytes(os.urandom(2), "big") & 0x7FF
        else:
            _counter += 1
            if _counter > 0xFFF:
                _last_ms, _counter = ms + 1, 0
        ms, counter = _last_ms, _counter
    tail = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    value = (ms << 80) | (0x7 << 76) | (counter << 64) | (0x2 << 62) | tail
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def now_ms() -> int:
    """Milliseconds since the epoch, by this machine's clock."""
    return time.time_ns() // 1_000_000


def now_iso() -> str:
    """RFC 3339 in UTC with milliseconds, e.g. ``2026-11-20T11:02:03.456Z``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def days_before(ms: int, days: float) -> str:
    """The moment *days* before *ms* since the epoch, as `now_iso` shows moments."""
    at = datetime.fromtimestamp(ms / 1000, UTC) - timedelta(days=days)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def age_ms(moment: str) -> int:
    """Milliseconds since *moment* (RFC 3339), by this machine's clock; never less than 0."""
    passed = datetime.now(UTC) - datetime.fromisoformat(moment)
    return max(0, int(passed.total_seconds() * 1000))
