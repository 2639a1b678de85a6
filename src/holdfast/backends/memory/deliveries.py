"""Attempts at what is owed to channels.  Each function is one transaction's body."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from holdfast._core import delivery, turns
from holdfast._core.delivery import Event, State
from holdfast.backends.memory.owing import put, queue_of
from holdfast.backends.memory.queries import PAGE
from holdfast.backends.memory.rows import fetch_turn, move
from holdfast.errors import LeaseLostError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from holdfast._core.delivery import Queue
    from holdfast.backends.memory.world import World
    from holdfast.types import Delivery, OwnerId, TurnId

__all__ = [
    "deliveries",
    "disown",
    "drop",
    "due_ms",
    "expire",
    "fetch",
    "next_one",
    "settle",
]

EXPIRE_SLICE: Final = 50
_TOLD: Final = {
    State.DELIVERED: "delivered",
    State.FAILED: "delivery_failed",
    State.UNKNOWN: "delivery_unknown",
}
_EVENTS: Final = {
    State.DELIVERED: Event.LAND,
    State.FAILED: Event.REFUSE,
    State.UNKNOWN: Event.LOSE,
    State.PENDING: Event.RETRY,
}


def fetch(world: World, delivery_id: str) -> Delivery:
    found = world.deliveries.get(delivery_id)
    if found is None:
        raise NotFoundError(what="delivery", name=delivery_id[:80])
    return found


def next_one(world: World, owner_id: OwnerId, channels: Collection[str]) -> Delivery | None:
    """Take the oldest part that may be attempted now."""
    if owner_id not in world.owners:
        return None  # Buried: whoever died is nobody's sender.
    at_ms = world.clock_ms()
    expire(world, at_ms)
    queue = _first(world, channels, at_ms)
    if queue is None or queue.take is None:
        return None
    best, passed = queue.take, queue.passed
    for each in passed:
        if not each.overtaken:
            put(world, each, overtaken=True, hint=delivery.PASSED)
            world.event(
                "overtaken", each.session_id, each.turn_id, owner_id,
                delivery=each.delivery_id, by=best.delivery_id,
            )  # fmt: skip
    state = delivery.step(best.state, Event.TAKE)
    attempts = best.attempts + 1
    taken = put(world, best, state=state.value, owner_id=owner_id, attempts=attempts)
    queue_of(world, best.target, at_ms)
    return world.deliveries[taken.delivery_id]


def _first(world: World, channels: Collection[str], at_ms: int) -> Queue | None:
    """Of the targets that are due, the one whose part has been owed for longest."""
    while True:
        due = [
            (seq, target)
            for target, (wake_ms, seq) in world.targets.items()
            if wake_ms is not None and wake_ms <= at_ms and _channel(target) in channels
        ]
        if not due:
            return None
        queue = queue_of(world, min(due)[1], at_ms)
        if queue.take is not None:  # Else it is due later, and says so now.
            return queue


def settle(
    world: World,
    delivery_id: str,
    owner_id: OwnerId,
    state: str,
    *,
    attempt: int | None,
    reason: str | None,
    hint: str | None,
    remote_id: str | None,
    delay_ms: int,
) -> Delivery:
    """See the port."""
    row = fetch(world, delivery_id)
    ours = row.state == State.ATTEMPTING.value and row.owner_id == owner_id
    if not ours or (attempt is not None and attempt != row.attempts):
        raise LeaseLostError(turn_id=row.turn_id, token=row.attempts)
    landing = delivery.step(row.state, _EVENTS[State(state)])
    return _move(
        world, row, landing, owner_id, reason=reason, hint=hint, remote_id=remote_id,
        delay_ms=delay_ms,
    )  # fmt: skip


def expire(world: World, at_ms: int | None = None) -> int:
    """Give up on one slice of what nobody wants any more; returns how many."""
    at_ms = world.clock_ms() if at_ms is None else at_ms
    over = [
        row
        for row in _owed(world)
        if row.expires_ms <= at_ms and row.state != State.ATTEMPTING.value
    ]
    over.sort(key=lambda row: (row.expires_ms, row.seq))
    for row in over[:EXPIRE_SLICE]:
        _give_up(world, row, "expired")
    return len(over[:EXPIRE_SLICE])


def drop(world: World, delivery_id: str) -> Delivery:
    """See the port."""
    row = fetch(world, delivery_id)
    return _give_up(world, row, "dropped") if delivery.may_drop(row.state) else row


def _give_up(world: World, row: Delivery, reason: str) -> Delivery:
    lost = row.state == State.UNKNOWN.value
    landing = delivery.step(row.state, Event.EXPIRE)
    hint = delivery.MAY_HAVE_ARRIVED if lost else None
    return _move(world, row, landing, None, reason=reason, hint=hint)


def disown(world: World, owner_id: OwnerId) -> int:
    """*owner_id* is gone: whether what it was sending has arrived, nobody knows."""
    rows = [
        row
        for row in _owed(world)
        if row.state == State.ATTEMPTING.value and row.owner_id == owner_id
    ]
    for row in sorted(rows, key=lambda row: row.seq):
        landing = delivery.step(row.state, Event.LOSE)
        _move(world, row, landing, owner_id, reason="owner_died")
    return len(rows)


def _move(
    world: World,
    row: Delivery,
    to: State,
    owner_id: OwnerId | None,
    *,
    reason: str | None = None,
    hint: str | None = None,
    remote_id: str | None = None,
    delay_ms: int = 0,
) -> Delivery:
    """The attempt is over, or there will be none.  The last part settles its turn."""
    over, at_ms = delivery.terminal(to), world.clock_ms()
    put(
        world, world.deliveries[row.delivery_id], state=to.value, owner_id=None, reason=reason,
        hint=hint or row.hint, remote_id=remote_id or row.remote_id,
        not_before_ms=at_ms + delay_ms if delay_ms else 0,
        ended_at=world.now_iso() if over else None,
    )  # fmt: skip
    if to in _TOLD:
        world.event(
            _TOLD[to], row.session_id, row.turn_id, owner_id, delivery=row.delivery_id,
            target=row.target, attempts=row.attempts, reason=reason,
        )  # fmt: skip
    if over:
        _settle_turn(world, row.turn_id)
    queue_of(world, row.target, at_ms)
    return world.deliveries[row.delivery_id]


def _settle_turn(world: World, turn_id: TurnId) -> None:
    turn = fetch_turn(world, turn_id)
    owed = any(row.turn_id == turn_id for row in _owed(world))
    if turn.state == turns.State.COMMITTED.value and not owed:
        move(world, turn, turns.Event.SETTLE, outcome="replied")


# ---------------------------------------------------------------------------- reading


def due_ms(world: World, channels: Collection[str]) -> int | None:
    """Milliseconds until there may be something to do; None: nothing is owed."""
    at_ms = world.clock_ms()
    wakes = [
        wake_ms
        for target, (wake_ms, _) in world.targets.items()
        if wake_ms is not None and _channel(target) in channels
    ]
    attempting = State.ATTEMPTING.value
    wakes += [row.expires_ms for row in _owed(world) if row.state != attempting]
    return max(0, min(wakes) - at_ms) if wakes else None


def _channel(target: str) -> str:
    return target.partition(":")[0]


def _owed(world: World) -> Iterator[Delivery]:
    for queue in world.owed.values():
        for delivery_id in queue.values():
            yield world.deliveries[delivery_id]


def deliveries(
    world: World, *, turn_id: TurnId | None, state: str | None, after: int
) -> list[Delivery]:
    """A page, by `seq`."""
    found = (
        row
        for row in world.deliveries.values()
        if row.seq > after
        and (turn_id is None or row.turn_id == turn_id)
        and (state is None or row.state == state)
    )
    return list(islice(found, PAGE))
