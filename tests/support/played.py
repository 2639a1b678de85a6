"""Incidents that are also scenarios of the lab: running one, and with a guarantee removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.lab.scenarios import Saw, every
from holdfast.lab.scenarios._cast import within_s

__all__ = ["played", "soon"]


async def played(name: str, state: Path) -> Saw:
    """What the scenario has shown."""
    return await every()[f"incident-{name}"].run(str(state))


@contextmanager
def soon(bound_s: float = 3.0) -> Iterator[None]:
    """With a guarantee removed: what does not come within *bound_s* does not come."""
    before = within_s()
    within_s(bound_s)
    try:
        yield
    finally:
        within_s(before)
