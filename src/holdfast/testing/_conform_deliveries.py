"""Clauses about what is owed to channels."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast._core.delivery import (
    HEAD_BLOCKS_MS,
    MAY_HAVE_ARRIVED,
    PASSED,
    is_ambiguous,
)
from holdfast._core.turns import Event
from holdfast.errors import LeaseLostError, NotFoundError
from holdfast.testing._conform import (
    COMMIT,
    admit,
    clause,
    clock_clause,
    leased_now,
    opened,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store
    from holdfast.types import Delivery, Turn

__all__: list[str] = []  # What it has to say is in the suite already.

TARGET = "hook:ann"
LATER_MS = 3_600_000


async def replied(store: Store, text: str = "reply", **changes: Any) -> Turn:
    """A turn that has committed *text*, owed to TARGET unless *changes* say otherwise."""
    changes = {"target": TARGET, "part_chars": 1000, **changes}
    turn = await admit(store, **changes)
    leased = await leased_now(store)
    assert leased.turn.turn_id == turn.turn_id
    return await store.control.commit(turn.turn_id, leased.token, replace(COMMIT, reply=text))


async def next_part(store: Store, *channels: str) -> Delivery | None:
    return await store.control.next_delivery(store.owner.owner_id, channels or ("hook",))


async def taken(store: Store) -> Delivery:
    found = await next_part(store)
    assert found is not None, "nothing that is owed and due was found"
    return found


async def settled(
    store: Store, row: Delivery, state: str = "delivered", **more: Any
) -> Delivery:
    return await store.control.settle_delivery(
        row.delivery_id, store.owner.owner_id, state, **more
    )


async def told_kinds(store: Store) -> list[str]:
    return [each.kind for each in await store.control.events()]


@clause
async def a_reply_without_a_target_is_owed_to_nobody(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await replied(store, target=None)
        assert (turn.state, turn.outcome) == ("done", "replied")
        assert await store.control.deliveries() == []
        assert await next_part(store) is None
        assert await store.control.due_ms(["hook"]) is None


@clause
async def a_committed_reply_is_owed_to_its_target_in_parts(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await replied(store, "one two three", part_chars=8)
        assert (turn.state, turn.outcome) == ("committed", "replied")
        assert turn.ended_at is not None
        rows = await store.control.deliveries(turn_id=turn.turn_id)
        assert [row.delivery_id for row in rows] == [f"{turn.turn_id}.{n}" for n in (1, 2)]
        assert [(row.part, row.parts, row.kind) for row in rows] == [
            (1, 2, "reply"), (2, 2, "reply"),
        ]  # fmt: skip
        assert [msgspec.json.decode(row.body)["text"] for row in rows] == ["one two", "three"]
        assert {(row.state, row.channel, row.address) for row in rows} == {
            ("pending", "hook", "ann")
        }
        assert await store.control.due_ms(["hook"]) == 0


@clause
async def a_turn_is_done_when_all_that_is_owed_is_terminal(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await replied(store, "one two three", part_chars=8)
        first = await taken(store)
        assert (first.part, first.state, first.attempts) == (1, "attempting", 1)
        await settled(store, first, remote_id="m1")
        assert (await store.control.turn(turn.turn_id)).state == "committed"
        second = await taken(store)
        await settled(store, second, "failed", reason="gone", hint="why")
        done = await store.control.turn(turn.turn_id)
        assert (done.state, done.outcome, done.ended_at) == ("done", "replied", turn.ended_at)
        rows = await store.control.deliveries(turn_id=turn.turn_id)
        assert [(row.state, row.reason, row.hint, row.remote_id) for row in rows] == [
            ("delivered", None, None, "m1"), ("failed", "gone", "why", None),
        ]  # fmt: skip
        assert all(row.ended_at and row.owner_id is None for row in rows)
        assert {"delivered", "delivery_failed", "settle"} <= set(await told_kinds(store))
        assert await store.control.due_ms(["hook"]) is None


@clause
async def one_target_is_served_in_order_and_one_at_a_time(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [one, two]:
        await replied(one, "first")
        await replied(one, "second")
        await replied(one, "other", target="hook:bob")
        first = await taken(one)
        assert msgspec.json.decode(first.body)["text"] == "first"
        other = await taken(two)
        assert other.target == "hook:bob", "a target that is being served is served once"
        assert await next_part(one) is None
        assert await next_part(two) is None
        # A head that has to wait is waited for.
        await settled(one, first, "pending", reason="busy", delay_ms=LATER_MS)
        assert await next_part(one) is None
        due_ms = await one.control.due_ms(["hook"])
        assert due_ms is not None
        assert 0 < due_ms <= LATER_MS


@clause
async def only_ones_own_channels_are_served(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        await replied(store, "to a hook")
        assert await next_part(store, "other", "hoo", "hook2") is None
        assert await next_part(store, "other", "hook") is not None


@clause
async def of_many_senders_one_gets_a_part(make: Callable[[], Store]) -> None:
    async with opened(make, 4) as stores:
        await replied(stores[0])
        got = await asyncio.gather(*(next_part(store) for store in stores))
        assert sum(each is not None for each in got) == 1


@clause
async def every_attempt_sends_the_same_bytes(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        await replied(store)
        seen = set()
        for number in (1, 2, 3):
            row = await taken(store)
            assert row.attempts == number
            seen.add((row.delivery_id, row.body, row.body_hash))
            await settled(store, row, "pending", reason="server_error")
        assert len(seen) == 1


@clause
async def an_attempt_that_is_not_ours_changes_nothing(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [one, two]:
        await replied(one)
        row = await taken(one)
        await refused(LeaseLostError, settled(two, row))
        await settled(one, row, "pending", reason="busy")
        await refused(LeaseLostError, settled(one, row))
        again = await taken(one)
        await refused(LeaseLostError, settled(one, row, attempt=row.attempts))
        assert one.control.delivery_now(row.delivery_id).state == "attempting"
        assert (await settled(one, again, attempt=again.attempts)).state == "delivered"
        await refused(NotFoundError, one.control.settle_delivery("x.1", "o", "delivered"))  # type: ignore[arg-type]


@clause
async def what_a_dead_owner_was_sending_is_unknown(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [dead, other]:
        turn = await replied(dead)
        row = await taken(dead)
        assert not is_ambiguous(row)
        await other.control.bury(dead.owner.owner_id, "dead")
        [lost] = await other.control.deliveries(state="unknown")
        assert (lost.delivery_id, lost.reason, lost.attempts) == (
            row.delivery_id, "owner_died", 1,
        )  # fmt: skip
        await refused(LeaseLostError, settled(dead, row))
        assert await next_part(dead) is None, "who was buried sends nothing"
        assert (await other.control.turn(turn.turn_id)).state == "committed"
        again = await taken(other)
        assert is_ambiguous(again)
        assert (again.body, again.attempts) == (row.body, 2)
        await settled(other, again, "delivered")
        assert (await other.control.turn(turn.turn_id)).state == "done"
        assert "delivery_unknown" in await told_kinds(other)
        assert await other.control.disown_deliveries(dead.owner.owner_id) == 0


@clause
async def whoever_is_refused_is_told(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store, target=TARGET)
        leased = await leased_now(store)
        ended = await store.control.end(
            turn.turn_id, leased.token, "failed", "attempts_used_up", "ask the operator"
        )
        assert (ended.state, ended.outcome) == ("done", "failed")
        [row] = await store.control.deliveries(turn_id=turn.turn_id)
        told = msgspec.json.decode(row.body)
        assert (row.kind, told["type"], told["outcome"]) == ("notice", "notice", "failed")
        assert "ask the operator" in told["text"]
        await settled(store, await taken(store))
        assert (await store.control.turn(turn.turn_id)).state == "done"


@clause
async def who_ends_his_own_turn_is_not_told_so(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        mine = await admit(store, target=TARGET)
        await store.control.cancel(mine.turn_id)
        stopped = await admit(store, target=TARGET)
        leased = await leased_now(store)
        await store.control.end(stopped.turn_id, leased.token, "cancelled", "interrupted", None)
        silent = await admit(store, target=TARGET)
        leased = await leased_now(store)
        await store.control.end(silent.turn_id, leased.token, "silent", None, None)
        rows = await store.control.deliveries()
        assert [row.turn_id for row in rows] == [stopped.turn_id]


@clause
async def a_turn_that_goes_back_owes_nothing_yet(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store, target=TARGET)
        leased = await leased_now(store)
        await store.control.put_back(
            turn.turn_id, leased.token, what=Event.REQUEUE, reason="owner_died"
        )
        assert await store.control.deliveries() == []


@clause
async def a_reply_that_says_nothing_is_owed_to_nobody(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        assert (await replied(store, " \n ")).state == "done"


@clause
async def nothing_is_expired_before_its_time(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        await replied(store)
        assert await store.control.expire_deliveries() == 0


# ------------------------------------------------------------------------------- in time


@clock_clause
async def a_head_that_blocks_for_ten_minutes_is_passed(
    make: Callable[[], Store], step: Callable[[int], None]
) -> None:
    async with opened(make) as [store]:
        await replied(store, "head")
        step(1_000_000)  # Nobody waits for it yet: this does not count.
        await replied(store, "one two three", part_chars=8)
        head = await taken(store)
        await settled(store, head, "pending", reason="unreachable", delay_ms=2 * LATER_MS)
        step(HEAD_BLOCKS_MS - 1)
        assert await next_part(store) is None
        assert await store.control.due_ms(["hook"]) == 1
        step(1)
        later = await taken(store)
        assert (later.part, later.target) == (1, TARGET)
        passed = store.control.delivery_now(head.delivery_id)
        assert passed.overtaken
        assert passed.hint == PASSED
        assert await next_part(store) is None, "one at a time all the same"
        await settled(store, later)
        assert (await taken(store)).part == 2
        kinds = await told_kinds(store)
        assert kinds.count("overtaken") == 1, "said once"


@clock_clause
async def parts_of_one_turn_never_pass_each_other(
    make: Callable[[], Store], step: Callable[[int], None]
) -> None:
    async with opened(make) as [store]:
        await replied(store, "one two three", part_chars=8)
        first = await taken(store)
        await settled(store, first, "unknown", reason="unanswered", delay_ms=2 * LATER_MS)
        step(2 * HEAD_BLOCKS_MS)
        assert await next_part(store) is None
        await replied(store, "later")
        later = await taken(store)
        assert later.turn_id != first.turn_id, "both of its parts are passed"
        await settled(store, later)
        step(2 * LATER_MS)
        again = await taken(store)
        assert (again.delivery_id, is_ambiguous(again)) == (first.delivery_id, True)
        await settled(store, again)
        assert (await taken(store)).part == 2


@clock_clause
async def what_nobody_wants_any_more_is_given_up(
    make: Callable[[], Store], step: Callable[[int], None]
) -> None:
    hour_ms = 3_600_000
    async with opened(make) as [store]:
        turns = {}
        for lane in ("cron", "subagent", "user"):
            key, target = f"agent:main:{lane}", f"hook:{lane}"
            turns[lane] = await replied(store, lane=lane, session_key=key, target=target)
        lost = await taken(store)
        await settled(store, lost, "unknown", reason="unanswered", delay_ms=100 * hour_ms)
        under_way = await taken(store)
        for hours, gone in ((2, ["cron"]), (4, ["cron"]), (18, ["cron", "user"])):
            step(hours * hour_ms)
            await store.control.expire_deliveries()
            done = {
                lane
                for lane, turn in turns.items()
                if (await store.control.turn(turn.turn_id)).state == "done"
            }
            assert done == set(gone), "what is being sent is left alone"
        row = store.control.delivery_now(lost.delivery_id)
        assert (row.state, row.reason, row.hint) == ("failed", "expired", MAY_HAVE_ARRIVED)
        await settled(store, under_way, "pending", reason="busy")
        assert await next_part(store) is None
        assert (await store.control.turn(turns["subagent"].turn_id)).state == "done"
