"""
What a running turn makes on the way to its reply.  Each function is one transaction's body.

Messages, arguments and results go through JSON, as they do on files: nobody gets back the
object that somebody else still changes.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdfast.backends.memory.rows import guard
from holdfast.errors import AbortedError, BadRequestError
from holdfast.types import MadeEntry, ToolRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.backends.memory.world import World
    from holdfast.types import FencingToken, ToolCall, TurnId

__all__ = ["add_made", "begin_tool", "end_tool", "made", "tool_calls"]


def add_made(
    world: World, turn_id: TurnId, token: FencingToken, entries: Sequence[MadeEntry]
) -> None:
    """Append *entries*; one whose id is there already is left as it stands."""
    guard(world, turn_id, token)
    plain = [MadeEntry(each.entry_id, _plain(each.message)) for each in entries]
    rows = world.made.setdefault(turn_id, {})
    for each in plain:
        rows.setdefault(each.entry_id, each)


def made(world: World, turn_id: TurnId) -> list[MadeEntry]:
    """All of it, in order.  Its rows go with the outcome."""
    rows = world.made.get(turn_id, {}).values()
    return [MadeEntry(each.entry_id, _plain(each.message)) for each in rows]


def begin_tool(
    world: World,
    turn_id: TurnId,
    token: FencingToken,
    call: ToolCall,
    result_id: str,
    *,
    torn: bool = False,
) -> ToolRecord:
    """
    The intent to run *call*; or what an earlier attempt left of it.

    Raises:
        AbortedError: the turn is to end, and this call had not begun.
        BadRequestError: another call of this turn has its id.
        LeaseLostError.
    """
    turn = guard(world, turn_id, token)
    found = world.tool_calls.get(turn_id, {}).get(call.call_id)
    told = _plain(call.arguments)
    if found is None:
        if turn.abort_requested:
            reason = turn.abort_reason or "cancelled"
            raise AbortedError(path=f"turn {turn_id}", reason=reason)
        record = ToolRecord(
            turn_id, call.call_id, result_id, call.name, told, call.replay, "started", token,
            1, None, world.now_iso(), None,
        )  # fmt: skip
        return _put(world, record)
    twice = found.state == "started" and found.token == token and not torn
    if twice or (found.name, found.arguments) != (call.name, told):
        detail = f"tool {call.name}: call id {call.call_id!r} is another call's here"
        raise BadRequestError(detail=detail, hint="give every tool call an id of its own")
    if found.state != "started":
        return _copy(found)
    if found.replay == call.replay == "safe":
        return _put(world, replace(found, runs=found.runs + 1, token=token))
    world.event(
        "tool_interrupted", turn.session_id, turn_id, turn.owner_id,
        tool=call.name, call=call.call_id,
    )  # fmt: skip
    return _put(world, replace(found, state="interrupted", ended_at=world.now_iso()))


def end_tool(
    world: World, turn_id: TurnId, token: FencingToken, call_id: str, state: str, result: bytes
) -> None:
    """The result of a call that this token has begun."""
    guard(world, turn_id, token)
    found = world.tool_calls.get(turn_id, {}).get(call_id)
    assert found is not None, f"{call_id} was not begun"
    assert (found.state, found.token) == ("started", token), f"{call_id} is {found.state}"
    assert state in {"done", "failed"}, state
    _put(
        world, replace(found, state=state, result=json.loads(result), ended_at=world.now_iso())
    )


def tool_calls(world: World, turn_id: TurnId) -> list[ToolRecord]:
    """Every call of a turn, oldest first."""
    return [_copy(each) for each in world.tool_calls.get(turn_id, {}).values()]


def _put(world: World, record: ToolRecord) -> ToolRecord:
    world.tool_calls.setdefault(record.turn_id, {})[record.call_id] = record
    return _copy(record)


def _copy(record: ToolRecord) -> ToolRecord:
    return replace(record, arguments=_plain(record.arguments), result=_plain(record.result))


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
