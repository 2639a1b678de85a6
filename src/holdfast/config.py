"""Settings from outside: the environment.  The table itself is `_core.settings`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PREFIX", "default_store", "from_environment"]

PREFIX: Final = "HOLDFAST_"
_NOT_SETTINGS: Final = {"HOLDFAST_STORE", "HOLDFAST_DEBUG"}


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """``HOLDFAST_TURN__QUEUE_MAX=400`` → ``{"turn.queue_max": "400"}``, unchecked."""
    return {
        name.removeprefix(PREFIX).lower().replace("__", "."): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and name not in _NOT_SETTINGS
    }


def default_store() -> str:
    """``$HOLDFAST_STORE``, else the user's state directory (XDG Base Directory)."""
    if given := os.environ.get("HOLDFAST_STORE"):
        return given
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(
        os.path.expanduser("~"), ".local", "state"
    )
    return os.path.join(base, "holdfast")
