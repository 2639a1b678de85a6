"""What every bench needs: honest percentiles, and a place on a real disk."""

from __future__ import annotations

import math
import os
import shutil
import statistics
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Report", "ms", "quantile", "quiet", "scratch", "summary_ms"]

#: Kept over a restart (FHS 3.0, 5.15), so it is a disk; the system's temporary directory is
#: often memory, where a sync costs nothing and a bench of syncs says nothing.
ON_DISK: Final = "/var/tmp"  # noqa: S108

#: Told one line of progress at a time.
Report: TypeAlias = "Callable[[str], None]"


def quiet(line: str) -> None:
    """A `Report` that tells nobody."""
    del line


def quantile(values: Sequence[float], share: float) -> float:
    """
    The smallest of *values* that at least *share* of them do not exceed (nearest rank).

    Never a number that was not measured: between a usual value and an outlier, interpolation
    makes up one that nobody waited for.
    """
    assert values, "no values"
    assert 0 < share <= 1
    return sorted(values)[math.ceil(len(values) * share) - 1]


def ms(value_ns: float) -> float:
    """Nanoseconds as milliseconds, to a microsecond."""
    return round(value_ns / 1e6, 3)


def summary_ms(values_ns: Sequence[float]) -> dict[str, float]:
    """`{"p50_ms", "p99_ms"}`."""
    return {
        "p50_ms": ms(statistics.median(values_ns)),
        "p99_ms": ms(quantile(values_ns, 0.99)),
    }


@contextmanager
def scratch(directory: str | None) -> Iterator[str]:
    """A directory under *directory*, or on a disk somewhere; removed in the end."""
    where = directory
    if where is None:
        where = ON_DISK if os.access(ON_DISK, os.W_OK) else os.getcwd()
    os.makedirs(where, exist_ok=True)
    made = tempfile.mkdtemp(prefix="holdfast-lab-", dir=where)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
