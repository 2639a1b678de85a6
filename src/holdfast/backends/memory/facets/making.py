"""What a running turn makes on the way to its reply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.backends.memory import making
from holdfast.backends.memory.two_ways import TwoWays

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.types import FencingToken, MadeEntry, ToolCall, ToolRecord, TurnId

__all__ = ["Making"]


class Making(TwoWays):
    async def add_made(
        self, turn_id: TurnId, token: FencingToken, made: Sequence[MadeEntry]
    ) -> None:
        await self._write(lambda w: making.add_made(w, turn_id, token, made), pokes=False)

    async def made(self, turn_id: TurnId) -> list[MadeEntry]:
        return self._read(lambda w: making.made(w, turn_id))

    async def begin_tool(
        self,
        turn_id: TurnId,
        token: FencingToken,
        call: ToolCall,
        result_id: str,
        *,
        torn: bool = False,
    ) -> ToolRecord:
        return await self._write(
            lambda w: making.begin_tool(w, turn_id, token, call, result_id, torn=torn),
            pokes=False,
        )

    async def end_tool(
        self, turn_id: TurnId, token: FencingToken, call_id: str, state: str, result: bytes
    ) -> None:
        await self._write(
            lambda w: making.end_tool(w, turn_id, token, call_id, state, result), pokes=False
        )

    async def tool_calls(self, turn_id: TurnId) -> list[ToolRecord]:
        return self._read(lambda w: making.tool_calls(w, turn_id))
