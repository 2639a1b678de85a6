"""The turn that the running code belongs to, so that what it asks for is known as its child."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.types import FencingToken, OwnerId, TurnId

__all__ = ["CURRENT", "Current", "at_work"]


@dataclass(frozen=True, slots=True)
class Current:
    turn_id: TurnId
    token: FencingToken
    owner_id: OwnerId  #: Who runs it: another store's turns have nothing to do with it.
    #: Its turn waits for whatever this task waits for: a tool's, or an own turn's block's.
    task: asyncio.Task[Any] | None = None


#: Set for the task that answers a turn, and inherited by the tasks and tools it starts.
CURRENT: Final[ContextVar[Current | None]] = ContextVar("holdfast_turn", default=None)


@contextmanager
def at_work() -> Iterator[None]:
    """The running task does a piece of its turn's work: the turn waits for it."""
    current = CURRENT.get()
    if current is None:
        yield
        return
    before = CURRENT.set(replace(current, task=asyncio.current_task()))
    try:
        yield
    finally:
        # A coroutine that was dropped is closed in another context: no failure of its tool.
        with suppress(ValueError):
            CURRENT.reset(before)
