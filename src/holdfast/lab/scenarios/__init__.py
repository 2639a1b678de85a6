"""
What happened elsewhere, and what happens here: each incident as a run that can be looked at.

    holdfast lab run incident-burst-typing

A scenario makes its own state directory, provokes what was reported, and says what it saw.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["ROOMS", "Saw", "Scenario", "every"]


@dataclass(frozen=True, slots=True)
class Saw:
    """What a run of a scenario has shown."""

    ok: bool
    facts: dict[str, Any] = field(default_factory=dict)  #: JSON; told beside the verdict.
    story: tuple[str, ...] = ()  #: What happened, a line each, in order.


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str  #: `incident-…`
    refs: tuple[str, ...]  #: Issues it was reported in.
    there: str  #: What happened there, in one or two sentences.
    here: str  #: What happens here.
    run: Callable[[str], Awaitable[Saw]]  #: Given an empty state directory.


#: Modules of this room, each with a `SCENARIOS` tuple.
ROOMS: Final = (
    "replies", "waiting", "stuck", "leaks", "stranded", "children", "identity", "handing",
    "deliveries", "writing", "seeing",
)  # fmt: skip


def every() -> dict[str, Scenario]:
    """All scenarios by name, in the order of their rooms."""
    found: dict[str, Scenario] = {}
    for room in ROOMS:
        module = import_module(f"holdfast.lab.scenarios.{room}")
        found.update({each.name: each for each in module.SCENARIOS})
    return found
