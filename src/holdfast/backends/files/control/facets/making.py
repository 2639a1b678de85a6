"""What a running turn makes on the way to its reply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.backends.files.control import making
from holdfast.backends.files.control.two_ways import TwoWays

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from holdfast.types import FencingToken, MadeEntry, ToolCall, ToolRecord, TurnId

__all__ = ["Making"]


class Making(TwoWays):
    async def add_made(
        self, turn_id: TurnId, token: FencingToken, made: Sequence[MadeEntry]
    ) -> None:
        ids = {each.entry_id for each in made}
        await self._write(
            lambda db: making.add_made(db, turn_id, token, made),
            landed=lambda db: making.has_made(db, turn_id, ids) or None,
            pokes=False,
        )

    async def made(self, turn_id: TurnId) -> list[MadeEntry]:
        return self._look_up(lambda db: making.made(db, turn_id))

    async def begin_tool(
        self,
        turn_id: TurnId,
        token: FencingToken,
        call: ToolCall,
        result_id: str,
        *,
        torn: bool = False,
    ) -> ToolRecord:
        def landed(db: sqlite3.Connection) -> ToolRecord | None:
            found = making.find_tool(db, turn_id, call.call_id)
            begun = found is not None and (found.token == token or found.state != "started")
            return found if begun else None

        return await self._write(
            lambda db: making.begin_tool(db, turn_id, token, call, result_id, torn=torn),
            landed=landed,
            pokes=False,
        )

    async def end_tool(
        self, turn_id: TurnId, token: FencingToken, call_id: str, state: str, result: bytes
    ) -> None:
        def landed(db: sqlite3.Connection) -> bool | None:
            found = making.find_tool(db, turn_id, call_id)
            ended = found is not None and (found.state, found.token) == (state, token)
            return ended or None

        await self._write(
            lambda db: making.end_tool(db, turn_id, token, call_id, state, result),
            landed=landed,
            pokes=False,
        )

    async def tool_calls(self, turn_id: TurnId) -> list[ToolRecord]:
        return await self._page(lambda db: making.tool_calls(db, turn_id))
