"""What a running turn makes on the way to its reply: messages, and tool calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.types import FencingToken, MadeEntry, ToolCall, ToolRecord, TurnId

__all__ = ["Making"]


class Making(Protocol):
    """
    What a running turn makes on the way to its reply.  Every write is guarded by token.  A call
    that is still `started` when its turn has its outcome is `interrupted`.
    """

    async def add_made(
        self, turn_id: TurnId, token: FencingToken, made: Sequence[MadeEntry]
    ) -> None:
        """
        Append to what the turn has made; an entry that is there already is left as it stands.

        Raises:
            LeaseLostError.
        """
        ...

    async def made(self, turn_id: TurnId) -> list[MadeEntry]:
        """All of it, in order.  Empty once the turn has its outcome."""
        ...

    async def begin_tool(
        self,
        turn_id: TurnId,
        token: FencingToken,
        call: ToolCall,
        result_id: str,
        *,
        torn: bool = False,
    ) -> ToolRecord:
        """
        Make the intent to run *call* durable; or say what an earlier attempt left of it.

        One that another token has begun, and nobody ended, runs again if it is `safe`, then
        and now; else it becomes `interrupted`.

        Args:
            result_id: of the entry that its result will be, if it begins here.
            torn: this very token had begun it, and was cancelled in the middle: treat it like
                another's.

        Returns:
            ``state`` `started`: run it, and tell `end_tool`.  `done`, `failed`: it ran; its
            result is there.  `interrupted`: it may have run (`never`), and will not again.

        Raises:
            AbortedError: the turn is to end (`abort_requested`), and this call had not begun:
                so a pre-emption and a tool without replay decide by who is first.
            BadRequestError: this token has begun it already, or the call of that id has another
                name or other arguments.
            LeaseLostError.
        """
        ...

    async def end_tool(
        self, turn_id: TurnId, token: FencingToken, call_id: str, state: str, result: bytes
    ) -> None:
        """
        Make a call's result durable.

        Args:
            state: `done` or `failed`.
            result: JSON.
        """
        ...

    async def tool_calls(self, turn_id: TurnId) -> list[ToolRecord]:
        """Every call of a turn, oldest first: for `turns show`."""
        ...
