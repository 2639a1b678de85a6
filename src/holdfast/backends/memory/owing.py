"""
What is owed to channels: rows made in the transaction that gives a turn its outcome.

Knows nothing of the other rows, so that whoever changes those may call it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdfast._core.delivery import State, look, terminal, ttl_ms
from holdfast._core.parts import notice_of, parts_of
from holdfast.types import Delivery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast._core.delivery import Queue
    from holdfast.backends.memory.world import World
    from holdfast.types import Turn

__all__ = ["owe_notice", "owe_reply", "put", "queue_of"]


def owe_reply(world: World, turn: Turn, text: str) -> bool:
    """
    The reply of *turn*, which has its outcome, is owed to its target.

    Returns:
        Whether anything is owed: False settles the turn.
    """
    return _owe(world, turn, "reply", text)


def owe_notice(
    world: World, turn: Turn, outcome: str, reason: str | None, hint: str | None
) -> None:
    """*turn* ends without a reply.  Whoever is refused is told, where the reply would go."""
    turn = replace(turn, outcome=outcome, reason=reason, hint=hint)
    text = notice_of(turn) if turn.target is not None else None
    if text is not None:
        _owe(world, turn, "notice", text)


def _owe(world: World, turn: Turn, kind: str, text: str) -> bool:
    parts = parts_of(turn, kind, text)
    if turn.target is None or not parts:
        return False
    at_ms = world.clock_ms()
    for each in parts:
        put(
            world,
            Delivery(
                len(world.deliveries) + 1, each.delivery_id, turn.turn_id, turn.session_id,
                kind, each.part, each.parts, turn.target, turn.target.partition(":")[0],
                each.body, each.body_hash, State.PENDING.value, 0, None, 0, at_ms, None,
                at_ms + ttl_ms(turn.lane), None, None, None, world.now_iso(), None,
            ),
        )  # fmt: skip
    queue_of(world, turn.target, at_ms)
    return True


def put(world: World, row: Delivery, **changes: Any) -> Delivery:
    """Put a row, changed, in its place, and among what is owed if it is."""
    row = world.deliveries[row.delivery_id] = replace(row, **changes)
    queue = world.owed.setdefault(row.target, {})
    if not terminal(row.state):
        queue[row.seq] = row.delivery_id
    elif queue.pop(row.seq, None) and not queue:
        del world.owed[row.target]
    return row


def queue_of(world: World, target: str, at_ms: int) -> Queue:
    """
    What *target* is owed, now.  To be called after each change of it: notes since when its head
    keeps others waiting, and when to look again.
    """
    queue = look(_owed_to(world, target), at_ms)
    if queue.blocks is not None:
        put(world, queue.blocks, blocking_ms=at_ms)
        queue = look(_owed_to(world, target), at_ms)
    if queue.head is None:
        world.targets.pop(target, None)
    else:
        world.targets[target] = (queue.wake_ms, (queue.take or queue.head).seq)
    return queue


def _owed_to(world: World, target: str) -> Iterator[Delivery]:
    owed = world.owed.get(target, {})
    return (world.deliveries[each] for each in owed.values())
