"""Running a scenario: a directory of its own, a bound, and what it has shown."""

from __future__ import annotations

import asyncio
import tempfile
import time
from typing import TYPE_CHECKING, Any, Final

from holdfast.lab.scenarios import every

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run_scenario"]

BOUND_S: Final = 120.0


def run_scenario(name: str, say: Callable[[str], None] | None = None) -> dict[str, Any]:
    """
    Run one, and tell it to *say* line by line.

    Returns:
        ``name``, ``passed``, ``refs``, ``there``, ``here``, ``facts``, ``story``, ``took_ms``.

    Raises:
        TimeoutError: it did not end within BOUND_S.
    """
    scenario = every()[name]
    tell = say or (lambda _: None)
    tell(f"{name}  ({', '.join(scenario.refs)})")
    tell(f"  there: {scenario.there}")
    tell(f"  here:  {scenario.here}")
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-") as state:
        saw = asyncio.run(asyncio.wait_for(scenario.run(state), BOUND_S))
    took_ms = round((time.monotonic() - started_s) * 1000)
    for line in saw.story:
        tell(f"    {line}")
    tell(f"  {'passed' if saw.ok else 'FAILED'} in {took_ms} ms")
    return {
        "name": name,
        "passed": saw.ok,
        "refs": list(scenario.refs),
        "there": scenario.there,
        "here": scenario.here,
        "facts": saw.facts,
        "story": list(saw.story),
        "took_ms": took_ms,
    }
