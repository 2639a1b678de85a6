"""The turn that the running code belongs to, so that what it asks for is known as its child."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from holdfast.types import FencingToken, OwnerId, TurnId

__all__ = ["CURRENT", "Current"]


@dataclass(frozen=True, slots=True)
class Current:
    turn_id: TurnId
    token: FencingToken
    owner_id: OwnerId  #: Who runs it: another store's turns have nothing to do with it.


#: Set for the task that answers a turn, and inherited by the tasks and tools it starts.
CURRENT: Final[ContextVar[Current | None]] = ContextVar("holdfast_turn", default=None)
