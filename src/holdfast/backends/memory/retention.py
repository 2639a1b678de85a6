"""Forgetting, a slice at a time.  Each function is one transaction; see `_core/retention`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast import _stamps
from holdfast._core import retention
from holdfast._core.retention import DAY_MS, SLICE
from holdfast._core.turns import State
from holdfast.types import Trimmed, TurnId

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.backends.memory.world import World
    from holdfast.types import Turn

__all__ = ["trim"]


def trim(world: World, kind: str, keep_days: int, after: str) -> Trimmed:
    """One slice of what is over.  Raises KeyError: no such *kind*."""
    return _WAYS[kind](world, keep_days, after)


def _turns(world: World, keep_days: int, after: str) -> Trimmed:
    ended_at, _, admission = after.partition(" ")
    behind, until = (
        (ended_at, int(admission or 0)),
        _stamps.days_before(world.now_ms(), keep_days),
    )
    found = sorted(
        (turn for turn in world.turns.values() if _is_ended(world, turn, until)), key=_order
    )
    rows = [turn for turn in found if _order(turn) > behind][:SLICE]
    removed = 0
    for turn in rows:
        days = keep_days if turn.idempotency_key is None else _both(keep_days)
        if _is_over(world, turn, days) and not _is_anchor(world, turn):
            _forget(world, turn)
            removed += 1
    last = f"{rows[-1].ended_at} {rows[-1].admission}" if len(rows) == SLICE else None
    return Trimmed(removed, last)


def _is_ended(world: World, turn: Turn, until: str) -> bool:
    """Ended, and its row holds the only copy of nothing."""
    return (
        turn.state == State.DONE.value
        and turn.salvaged is None
        and world.beside[turn.turn_id].entries is None
        and (turn.ended_at or "") < until
    )


def _order(turn: Turn) -> tuple[str, int]:
    return turn.ended_at or "", turn.admission


def _both(keep_days: int) -> int:
    return max(keep_days, retention.IDEMPOTENCY_DAYS)


def _is_over(world: World, turn: Turn, days: int) -> bool:
    return (
        turn.state == State.DONE.value
        and (turn.ended_at or "") < _stamps.days_before(world.now_ms(), days)
        and turn.accepted_ms < world.clock_ms() - days * DAY_MS
        and not any(
            each.turn_id == turn.turn_id and retention.is_owed(each)
            for each in world.deliveries.values()
        )
    )


def _is_anchor(world: World, turn: Turn) -> bool:
    """A transcript that was cut is known by its commits: one without copies stays."""
    room, beside = world.rooms[turn.session_id], world.beside[turn.turn_id]
    if turn.final_entry is None or beside.generation != room.session.generation:
        return False
    for each in room.turns:
        later, its = world.turns[each], world.beside[each]
        if (
            later.admission > turn.admission
            and later.final_entry is not None
            and its.entries is None
            and its.generation == beside.generation
            and (its.end_offset or 0) >= (beside.end_offset or 0)
        ):
            return False
    return True


def _forget(world: World, turn: Turn) -> None:
    turn_id = turn.turn_id
    world.rooms[turn.session_id].turns.remove(turn_id)
    del world.turns[turn_id], world.beside[turn_id]
    world.made.pop(turn_id, None)
    world.tool_calls.pop(turn_id, None)
    for its in [each for each in world.deliveries.values() if each.turn_id == turn_id]:
        del world.deliveries[its.delivery_id]
    for key in [key for key, (_, whose) in world.receipts.items() if whose == turn_id]:
        del world.receipts[key]


def _idempotency(world: World, keep_days: int, after: str) -> Trimmed:
    del keep_days
    until = retention.id_before(world.now_ms(), retention.IDEMPOTENCY_DAYS)
    rows = sorted(
        (turn_id, key)
        for key, (_, turn_id) in world.receipts.items()
        if after < turn_id < until
    )[:SLICE]
    removed = 0
    for turn_id, key in rows:
        turn = world.turns.get(turn_id)
        if turn is None or _is_over(world, turn, retention.IDEMPOTENCY_DAYS):
            del world.receipts[key]
            removed += 1
    return Trimmed(removed, rows[-1][0] if len(rows) == SLICE else None)


def _handovers(world: World, keep_days: int, after: str) -> Trimmed:
    del keep_days, after
    until = retention.id_before(world.now_ms(), retention.HANDOVER_DAYS)
    old = [request_id for request_id in sorted(world.handovers) if request_id < until][:SLICE]
    for request_id in old:
        del world.handovers[request_id]
    return Trimmed(len(old), "" if len(old) == SLICE else None)


def _made(world: World, keep_days: int, after: str) -> Trimmed:
    del keep_days
    found = [TurnId(turn_id) for turn_id in sorted(world.made) if turn_id > after][:SLICE]
    removed = 0
    for turn_id in found:
        turn = world.turns.get(turn_id)
        if turn is None or turn.ended:
            removed += len(world.made.pop(turn_id))
    return Trimmed(removed, found[-1] if len(found) == SLICE else None)


_WAYS: Final[dict[str, Callable[[World, int, str], Trimmed]]] = {
    "turns": _turns,
    "idempotency": _idempotency,
    "handovers": _handovers,
    "made": _made,
}
assert _WAYS.keys() == set(retention.KINDS)
