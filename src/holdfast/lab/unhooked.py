"""Asking an agent without a runtime: the floor that benchmarks compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from holdfast.types import Steered, ToolCall

__all__ = ["Unhooked"]


class Unhooked:
    """The `ToolHook` of nobody: every tool just runs, and nothing is ever steered."""

    async def __call__(self, call: ToolCall, run: Callable[[], Awaitable[Any]]) -> Any:
        del call
        return await run()

    async def steered(self) -> Sequence[Steered]:
        return ()
