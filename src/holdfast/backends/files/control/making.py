"""
What a running turn makes on the way to its reply.  Each function is one transaction's body.

    no row ──begin──▶ started ──end──▶ done | failed
                        │ ▲
                        │ └─begin, `safe`, by another token: it runs again
                        └──begin, `never`, by another token──▶ interrupted
                        └──its turn has its outcome──────────▶ interrupted

`done`, `failed` and `interrupted` are final: whoever begins such a call is told how it ended.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from holdfast._stamps import now_iso
from holdfast.backends.files.control.rows import event, guard
from holdfast.errors import AbortedError, BadRequestError
from holdfast.types import MadeEntry, ToolRecord

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from holdfast.types import FencingToken, ToolCall, TurnId

__all__ = ["add_made", "begin_tool", "end_tool", "find_tool", "has_made", "made", "tool_calls"]

#: The columns of `types.ToolRecord`, in its order.
_TOOL: Final = f"SELECT {', '.join(ToolRecord.__dataclass_fields__)} FROM tool_calls"
_ARGUMENTS, _RESULT = (
    list(ToolRecord.__dataclass_fields__).index(name) for name in ("arguments", "result")
)


def add_made(
    db: sqlite3.Connection, turn_id: TurnId, token: FencingToken, entries: Sequence[MadeEntry]
) -> bool:
    """
    Append *entries*; one whose id is there already is left as it stands.

    Raises:
        LeaseLostError.
    """
    guard(db, turn_id, token)
    for each in entries:
        db.execute(
            "INSERT INTO made SELECT ?1, (SELECT coalesce(max(seq), 0) + 1 FROM made"
            " WHERE turn_id = ?1), ?2, ?3"
            " WHERE NOT EXISTS (SELECT 1 FROM made WHERE turn_id = ?1 AND entry_id = ?2)",
            (turn_id, each.entry_id, _encoded(each.message)),
        )
    return True


def made(db: sqlite3.Connection, turn_id: TurnId) -> list[MadeEntry]:
    """All of it, in order.  Its rows go with the outcome."""
    rows = db.execute(
        "SELECT entry_id, message FROM made WHERE turn_id = ? ORDER BY seq", (turn_id,)
    )
    return [MadeEntry(entry_id, json.loads(message)) for entry_id, message in rows]


def has_made(db: sqlite3.Connection, turn_id: TurnId, entry_ids: set[str]) -> bool:
    """Whether all of *entry_ids* are there."""
    rows = db.execute("SELECT entry_id FROM made WHERE turn_id = ?", (turn_id,))
    return entry_ids <= {row[0] for row in rows}


def begin_tool(
    db: sqlite3.Connection,
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
    turn = guard(db, turn_id, token)
    found = find_tool(db, turn_id, call.call_id)
    if found is None:
        if turn.abort_requested:
            reason = turn.abort_reason or "cancelled"
            raise AbortedError(path=f"turn {turn_id}", reason=reason)
        db.execute(
            "INSERT INTO tool_calls (turn_id, call_id, result_id, name, arguments, replay,"
            " state, token, started_at) VALUES (?, ?, ?, ?, ?, ?, 'started', ?, ?)",
            (
                turn_id, call.call_id, result_id, call.name, _encoded(call.arguments),
                call.replay, token, now_iso(),
            ),
        )  # fmt: skip
    else:
        told = json.loads(_encoded(call.arguments))
        twice = found.state == "started" and found.token == token and not torn
        if twice or (found.name, found.arguments) != (call.name, told):
            detail = f"tool {call.name}: call id {call.call_id!r} is another call's here"
            raise BadRequestError(detail=detail, hint="give every tool call an id of its own")
        if found.state != "started":
            return found
        if found.replay == call.replay == "safe":
            db.execute(
                "UPDATE tool_calls SET runs = runs + 1, token = ?"
                " WHERE turn_id = ? AND call_id = ?",
                (token, turn_id, call.call_id),
            )
        else:
            _end(db, turn_id, call.call_id, "interrupted", None)
            event(
                db, "tool_interrupted", turn.session_id, turn_id, turn.owner_id,
                tool=call.name, call=call.call_id,
            )  # fmt: skip
    record = find_tool(db, turn_id, call.call_id)
    assert record is not None
    return record


def end_tool(
    db: sqlite3.Connection,
    turn_id: TurnId,
    token: FencingToken,
    call_id: str,
    state: str,
    result: bytes,
) -> bool:
    """
    The result of a call that this token has begun.

    Raises:
        LeaseLostError.
    """
    guard(db, turn_id, token)
    found = find_tool(db, turn_id, call_id)
    assert found is not None, f"{call_id} was not begun"
    assert (found.state, found.token) == ("started", token), f"{call_id} is {found.state}"
    assert state in {"done", "failed"}, state
    _end(db, turn_id, call_id, state, result)
    return True


def tool_calls(db: sqlite3.Connection, turn_id: TurnId) -> list[ToolRecord]:
    """Every call of a turn, oldest first."""
    rows = db.execute(f"{_TOOL} WHERE turn_id = ? ORDER BY rowid", (turn_id,))
    return [_to_record(row) for row in rows]


def find_tool(db: sqlite3.Connection, turn_id: TurnId, call_id: str) -> ToolRecord | None:
    row = db.execute(
        f"{_TOOL} WHERE turn_id = ? AND call_id = ?", (turn_id, call_id)
    ).fetchone()
    return None if row is None else _to_record(row)


def _end(
    db: sqlite3.Connection, turn_id: TurnId, call_id: str, state: str, result: bytes | None
) -> None:
    db.execute(
        "UPDATE tool_calls SET state = ?, result = ?, ended_at = ?"
        " WHERE turn_id = ? AND call_id = ?",
        (state, result, now_iso(), turn_id, call_id),
    )


def _to_record(row: tuple[Any, ...]) -> ToolRecord:
    values = list(row)
    values[_ARGUMENTS] = json.loads(values[_ARGUMENTS])
    if values[_RESULT] is not None:
        values[_RESULT] = json.loads(values[_RESULT])
    return ToolRecord(*values)


def _encoded(value: Any) -> bytes:
    """ASCII, so that half a surrogate pair, which a model may write, is no error."""
    return json.dumps(value).encode()
