"""Following what a turn owes to a channel, after its outcome."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from holdfast._core import delivery
from holdfast._core.delivery import State
from holdfast.types import TurnEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast._runtime.watching import Watchers
    from holdfast.ports import Store
    from holdfast.types import Delivery, Turn

__all__ = ["follow_owed"]

POLL_S: Final = 1.0  #: A part changes nothing of its turn's row until the last one does.


async def follow_owed(
    store: Store, watchers: Watchers, turn: Turn
) -> AsyncGenerator[TurnEvent, None]:
    """
    ``delivered`` for each part that has arrived, ``delivery`` for one that failed or of which
    nobody knows; ends when nothing is owed any more.
    """
    if turn.target is None:
        return
    told: dict[str, str] = {}
    with watchers.listed(watchers.turns, turn.turn_id) as topic:
        while True:
            changed = topic.changed
            rows = await _all(store, turn)
            for row in rows:
                if _is_news(row) and told.get(row.delivery_id) != row.state:
                    told[row.delivery_id] = row.state
                    yield _event(row)
            if all(delivery.terminal(row.state) for row in rows):
                return
            watchers.check_open()
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await changed.wait()


async def _all(store: Store, turn: Turn) -> list[Delivery]:
    rows: list[Delivery] = []
    while page := await store.control.deliveries(
        turn_id=turn.turn_id, after=rows[-1].seq if rows else 0
    ):
        rows += page
    return rows


def _is_news(row: Delivery) -> bool:
    return delivery.terminal(row.state) or row.state == State.UNKNOWN.value


def _event(row: Delivery) -> TurnEvent:
    arrived = row.state == State.DELIVERED.value
    data = {
        "type": row.kind,
        "target": row.target,
        "part": row.part,
        "parts": row.parts,
        "state": row.state,
        "attempts": row.attempts,
        "reason": row.reason,
        "hint": row.hint,
    }
    return TurnEvent("delivered" if arrived else "delivery", data, at=row.ended_at)
