"""Incidents: replies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from holdfast.lab.scenarios import Scenario

__all__ = ["SCENARIOS"]

SCENARIOS: Final[tuple[Scenario, ...]] = ()
