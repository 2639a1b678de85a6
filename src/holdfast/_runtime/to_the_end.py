"""Awaiting something that must be answered, whoever gives up on us meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["to_the_end"]

T = TypeVar("T")


async def to_the_end(
    work: Coroutine[Any, Any, T],
    *,
    cancelled: Callable[[BaseException], None],
    started: Callable[[asyncio.Task[T]], None] | None = None,
) -> tuple[T | None, BaseException | None]:
    """
    Run *work* to its end, and say how it ended.

    Args:
        cancelled: told of each cancellation of ours; *work* is cancelled too, and awaited.
        started: told the task that runs *work*, for whoever may want to cut it short.

    Returns:
        The result, or what it raised.  Never raises, CancelledError among it: that is for
        the caller to raise, when everything is settled.
    """
    task = asyncio.create_task(work)
    if started is not None:
        started(task)
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled(error)
            task.cancel()
    if task.cancelled():
        return None, asyncio.CancelledError()
    failure = task.exception()
    return (None, failure) if failure is not None else (task.result(), None)
