"""
The one hook that every tool call of every agent goes through.

Before a tool runs: the attempt's right to act is checked, the call is announced.  While it
runs, the model's idle timeout stands still and the tool's own bound counts.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast._runtime.live import Live
    from holdfast.types import ToolCall

__all__ = ["Tools"]


class Tools:
    """The `ToolHook` of one attempt."""

    def __init__(self, check: Callable[[], None], live: Live) -> None:
        self._check, self._live = check, live
        self._told: Callable[[bool], None] | None = None
        self.running = 0  #: How many tools run now: their time is not the model's.

    def watched_by(self, told: Callable[[bool], None] | None) -> None:
        """Tell *told* when the first tool starts (True) and when the last one ends (False)."""
        self._told = told

    async def __call__(self, call: ToolCall, run: Callable[[], Awaitable[Any]]) -> Any:
        self._check()
        self._live.emit("tool", name=call.name, call_id=call.call_id, state="started")
        self._count(+1)
        state = "failed"
        try:
            async with asyncio.timeout(call.timeout_s):
                result = await run()
            state = "done"
            return result
        finally:
            self._count(-1)
            self._live.emit("tool", name=call.name, call_id=call.call_id, state=state)

    def _count(self, change: int) -> None:
        before, self.running = self.running, self.running + change
        if self._told is not None and bool(before) != bool(self.running):
            self._told(bool(self.running))
