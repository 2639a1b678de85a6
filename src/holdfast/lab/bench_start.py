"""
What does starting cost?  Whole processes, above an interpreter that does nothing.

Sketch first.  The bare interpreter takes 10-20 ms.  `import holdfast` loads one module and
should add one or two; `--help` loads the command line's library (87 ms here) and must not
load a model's client (two seconds) or the settings' (a quarter of one).  The three are run in
turns, so that a slow moment of the machine falls on all of them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from holdfast.lab.figures import ms, quiet

if TYPE_CHECKING:
    from holdfast.lab.figures import Report

__all__ = ["bench_start"]

_RUNS: Final = {
    "floor": ("-c", "pass"),
    "import": ("-c", "import holdfast"),
    "help": ("-m", "holdfast", "--help"),
}


def bench_start(*, quick: bool = False, report: Report | None = None) -> dict[str, float]:
    """
    Measure start-up.

    Returns:
        ``{"import_ms", "help_ms", "floor_ms", "import_over_ms", "help_over_ms"}``: medians,
        and what is above the bare interpreter.

    Raises:
        subprocess.CalledProcessError: one of them does not start.
    """
    rounds = 3 if quick else 20
    (report or quiet)(f"start: {rounds} rounds of {len(_RUNS)} processes …")
    took_ns: dict[str, list[int]] = {name: [] for name in _RUNS}
    for _ in range(rounds + 1):
        for name, arguments in _RUNS.items():
            took_ns[name].append(_time(*arguments))
    # The first round wrote byte code and filled the disk's cache.
    medians = {name: statistics.median(values[1:]) for name, values in took_ns.items()}
    return {
        "import_ms": ms(medians["import"]),
        "help_ms": ms(medians["help"]),
        "floor_ms": ms(medians["floor"]),
        "import_over_ms": ms(medians["import"] - medians["floor"]),
        "help_over_ms": ms(medians["help"] - medians["floor"]),
    }


def _time(*arguments: str) -> int:
    start = perf_counter_ns()
    subprocess.run(  # noqa: S603  This very interpreter, arguments from the table above.
        [sys.executable, *arguments], check=True, capture_output=True
    )
    return perf_counter_ns() - start
