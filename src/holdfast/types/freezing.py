"""A stopped process that keeps others waiting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.types.coordinating import Owner

__all__ = ["FrozenHolder"]


@dataclass(frozen=True, slots=True)
class FrozenHolder:
    pid: int
    start_time: int | None  #: Clock ticks after boot; None: not said.
    path: str | None  #: The transcript whose write lock it has; None: the store's gate.
    owner: Owner | None  #: None: it is no owner of this store.
    said: str  #: Who, what, since when and what can be done, as one line for the log.
