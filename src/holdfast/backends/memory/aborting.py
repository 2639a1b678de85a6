"""The end of a turn, asked for.  Transaction bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast._core.turns import ABORTS, Event, State
from holdfast.backends.memory.rows import change, fetch_turn, move
from holdfast.errors import RejectedError

if TYPE_CHECKING:
    from holdfast.backends.memory.world import World
    from holdfast.types import Turn, TurnId

__all__ = ["ask_to_end", "cancel"]

#: What `cancelled` replaces: the turn's own sender, or an operator, says more.
_WEAKER: Final = frozenset({"preempted", "interrupted"})


def cancel(
    world: World, turn_id: TurnId, *, reason: str = "cancelled", rollback: bool = False
) -> Turn:
    """
    Ask for the end of a turn.

    One that never started, and whose question was not taken by a host, ends here.  Any other
    keeps its state with `abort_requested` set: its question may stand in the transcript, so
    an entry has to end it first.  So does one that is to be rolled back while its host runs,
    which may be writing its question down just now.  What is to go back to its place, and
    stands there, stays.
    """
    turn = fetch_turn(world, turn_id)
    reason = "rolled_back" if rollback else reason
    if rollback and turn.outcome == "replied":
        detail = f"turn {turn_id} has committed its reply; nothing was changed"
        hint = "what was said stays said: send a message that corrects it"
        raise RejectedError(session=turn.session_key, detail=detail, hint=hint)
    if turn.state == State.ACCEPTED.value:
        outcome = ABORTS[reason]
        if outcome is None:
            return turn
        asked = turn.asked_entry is not None or (rollback and _has_a_running_host(world, turn))
        if turn.started_at is None and not asked:
            return move(world, turn, Event.END, outcome=outcome, reason=reason)
    if turn.state in {State.ACCEPTED.value, State.RUNNING.value}:
        return ask_to_end(world, turn, reason)
    return turn


def _has_a_running_host(world: World, turn: Turn) -> bool:
    return turn.host is not None and world.turns[turn.host].state == State.RUNNING.value


def ask_to_end(world: World, turn: Turn, reason: str) -> Turn:
    """Leave an abort row.  The first reason stays, but for what `cancelled` replaces."""
    if turn.abort_requested and not (reason == "cancelled" and turn.abort_reason in _WEAKER):
        return turn
    world.event("abort_requested", turn.session_id, turn.turn_id, None, reason=reason)
    at_ms = turn.abort_at_ms if turn.abort_requested else world.clock_ms()
    return change(
        world, turn.turn_id, abort_requested=True, abort_reason=reason, abort_at_ms=at_ms
    )
