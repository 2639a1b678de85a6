"""The end of a turn, asked for.  Transaction bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast._core.turns import ABORTS, Event, State
from holdfast.backends.files.control.clock import tick_ms
from holdfast.backends.files.control.rows import event, fetch_turn, move
from holdfast.errors import RejectedError

if TYPE_CHECKING:
    import sqlite3

    from holdfast.types import Turn, TurnId

__all__ = ["ask_to_end", "cancel"]

#: What `cancelled` replaces: the turn's own sender, or an operator, says more.
_WEAKER: Final = frozenset({"preempted", "interrupted"})


def cancel(
    db: sqlite3.Connection,
    turn_id: TurnId,
    *,
    reason: str = "cancelled",
    rollback: bool = False,
) -> Turn:
    """
    Ask for the end of a turn.

    One that never started, and whose question was not taken by a host, ends here.  Any other
    keeps its state with `abort_requested` set: its question may stand in the transcript, so
    an entry has to end it first.  So does one that is to be rolled back while its host runs,
    which may be writing its question down just now.  What is to go back to its place, and
    stands there, stays.
    """
    turn = fetch_turn(db, turn_id)
    reason = "rolled_back" if rollback else reason
    if rollback and turn.outcome == "replied":
        detail = f"turn {turn_id} has committed its reply; nothing was changed"
        hint = "what was said stays said: send a message that corrects it"
        raise RejectedError(session=turn.session_key, detail=detail, hint=hint)
    if turn.state == State.ACCEPTED.value:
        outcome = ABORTS[reason]
        if outcome is None:
            return turn
        asked = turn.asked_entry is not None or (rollback and _has_a_running_host(db, turn))
        if turn.started_at is None and not asked:
            move(db, turn, Event.END, outcome=outcome, reason=reason)
            return fetch_turn(db, turn_id)
    if turn.state in {State.ACCEPTED.value, State.RUNNING.value}:
        ask_to_end(db, turn, reason)
    return fetch_turn(db, turn_id)


def _has_a_running_host(db: sqlite3.Connection, turn: Turn) -> bool:
    return turn.host is not None and fetch_turn(db, turn.host).state == State.RUNNING.value


def ask_to_end(db: sqlite3.Connection, turn: Turn, reason: str) -> None:
    """Leave an abort row.  The first reason stays, but for what `cancelled` replaces."""
    if turn.abort_requested and not (reason == "cancelled" and turn.abort_reason in _WEAKER):
        return
    db.execute(
        "UPDATE turns SET abort_requested = 1, abort_reason = ?,"
        " abort_at_ms = coalesce(abort_at_ms, ?) WHERE turn_id = ?",
        (reason, tick_ms(db), turn.turn_id),
    )
    event(
        db, "abort_requested", turn.session_id, turn.turn_id, None,
        lane=turn.lane, reason=reason,
    )  # fmt: skip
