"""`/metrics`: every counter of the write locks is there, under its name."""

from __future__ import annotations

from typing import Any

from holdfast.gateway.metrics import _Collected
from holdfast.types import HoldStatistics


def test_every_counter_of_the_write_locks_is_shown() -> None:
    counted: dict[str, Any] = {
        "contended": 2, "timeouts": 3, "reclaimed": 4, "watchdog_aborts": 5, "long_holds": 6,
        "stale_reports": 7,
    }  # fmt: skip
    nothing: Any = None
    shown = {
        sample.name: sample.value
        for metric in _Collected(
            nothing, HoldStatistics(acquired=9, **counted), nothing, nothing
        )._locks()
        for sample in metric.samples
    }
    for name, count in counted.items():
        assert shown[f"holdfast_write_lock_{name}_total"] == count
    assert shown["holdfast_write_lock_hold_seconds_count"] == 9
    told = set(HoldStatistics.__dataclass_fields__) - {"hold_max_ms", "held_s", "buckets"}
    assert told == {"acquired", *counted}, "a counter that /metrics does not show"
