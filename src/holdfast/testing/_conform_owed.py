"""Clauses about what is owed to channels: seen from outside, and let go of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast._core.delivery import MAY_HAVE_ARRIVED
from holdfast.errors import NotFoundError
from holdfast.testing._conform import clause, opened, refused
from holdfast.testing._conform_deliveries import (
    LATER_MS,
    next_part,
    replied,
    settled,
    taken,
    told_kinds,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store

__all__: list[str] = []  # What it has to say is in the suite already.


@clause
async def why_names_who_sends(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [one, two]:
        turn = await replied(one)
        await taken(two)
        why = await one.control.why(turn.session_id, {})
        assert (why.owed, why.senders) == (1, (two.owner,))
        assert why.deliveries[0].owner_id == two.owner.owner_id
        assert two.owner in why.owners


@clause
async def what_is_dropped_is_sent_no_more_and_settles_its_turn(
    make: Callable[[], Store],
) -> None:
    async with opened(make, 2) as [one, two]:
        turn = await replied(one, "one two", part_chars=4)
        await replied(one, "later")
        first = await taken(one)
        await settled(one, first, "unknown", reason="unanswered", delay_ms=LATER_MS)
        dropped = await two.control.drop_delivery(first.delivery_id)
        assert (dropped.state, dropped.reason) == ("failed", "dropped")
        assert dropped.hint == MAY_HAVE_ARRIVED
        assert dropped.ended_at is not None
        second = f"{turn.turn_id}.2"
        assert (await two.control.drop_delivery(second)).hint is None
        done = await one.control.turn(turn.turn_id)
        assert (done.state, done.outcome) == ("done", "replied")
        assert (await taken(one)).turn_id != turn.turn_id, "what stood behind it goes on"
        assert (await told_kinds(one)).count("delivery_failed") == 2
        again = await two.control.drop_delivery(second)
        assert (again.state, again.reason) == ("failed", "dropped"), "a second time is no error"
        await refused(NotFoundError, two.control.drop_delivery("nobody.1"))


@clause
async def what_is_being_sent_or_has_ended_is_not_dropped(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [one, two]:
        await replied(one)
        row = await taken(one)
        assert await two.control.drop_delivery(row.delivery_id) == row
        arrived = await settled(one, row)
        assert await two.control.drop_delivery(row.delivery_id) == arrived
        assert await next_part(one) is None
