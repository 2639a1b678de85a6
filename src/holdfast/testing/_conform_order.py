"""Clauses about the order in which turns run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast._core.settings import LANES, Lane
from holdfast._core.turns import Event
from holdfast.testing._conform import (
    COMMIT,
    KEY,
    admit,
    clause,
    clock_clause,
    leased_now,
    opened,
    pick,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store
    from holdfast.testing._conform import Step

__all__: list[str] = []  # What it has to say is in the suite already.

OTHER = "agent:main:other"


async def order_of(store: Store, *, by_lane: bool = False) -> list[str]:
    """Run everything that waits, one turn after the other."""
    order = []
    while (leased := await pick(store)) is not None:
        order.append(leased.turn.lane if by_lane else leased.turn.text)
        await store.control.commit(leased.turn.turn_id, leased.token, COMMIT)
    return order


@clause
async def order_in_a_lane_is_that_of_admission(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        for n, priority in enumerate([20, 100, 60, 100]):
            await admit(store, str(n), priority=priority)
        assert await order_of(store) == ["0", "1", "2", "3"]


@clause
async def order_among_lanes_is_priority_then_admission(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        for lane, priority in (("maintenance", 10), ("cron", 40), ("subagent", 40)):
            for n in range(2):
                await admit(store, f"{lane} {n}", lane=lane, priority=priority)
        await admit(store, "user", priority=100)
        assert await order_of(store) == [
            "user", "cron 0", "cron 1", "subagent 0", "subagent 1",
            "maintenance 0", "maintenance 1",
        ]  # fmt: skip


@clause
async def order_among_sessions_is_priority_then_admission(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        for n, priority in enumerate([20, 100, 60, 100]):
            await admit(store, str(n), priority=priority, session_key=f"agent:main:s{n}")
        assert [(await leased_now(store)).turn.text for _ in range(4)] == ["1", "3", "2", "0"]


@clause
async def a_persons_later_message_never_overtakes_an_earlier_one(
    make: Callable[[], Store],
) -> None:
    async with opened(make) as [store]:
        for n, (lane, priority) in enumerate([("slow", 5), ("user", 100), ("vip", 99)]):
            await admit(store, f"{lane} {n}", lane=lane, priority=priority)
        await admit(store, "slow 3", lane="slow", priority=5)
        assert await order_of(store) == ["slow 0", "user 1", "vip 2", "slow 3"]


@clause
async def a_persons_first_message_stands_for_the_most_urgent_one(
    make: Callable[[], Store],
) -> None:
    """Else whoever is behind a slow lane would wait for every system lane too."""
    async with opened(make) as [store]:
        await admit(store, "cron", lane="cron", priority=40)
        await admit(store, "slow", lane="slow", priority=5)
        await admit(store, "user", priority=100)
        await admit(store, "elsewhere", session_key=OTHER, priority=50)
        assert await order_of(store) == ["slow", "user", "elsewhere", "cron"]


@clause
async def a_system_lane_may_stand_before_people(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        await admit(store, "user", priority=30)
        await admit(store, "cron", lane="cron", priority=40)
        assert await order_of(store) == ["cron", "user"]


@clause
async def a_head_that_may_not_run_still_is_the_head(make: Callable[[], Store]) -> None:
    lanes = {"user": Lane(1, 100), "cron": Lane(8, 40)}
    async with opened(make) as [store]:
        await admit(store, "elsewhere", session_key=OTHER)
        assert await pick(store, lanes=lanes) is not None
        head = await admit(store, "head")
        behind = await admit(store, "behind", lane="cron", priority=40)
        assert await pick(store, lanes=lanes) is None, "its lane is full; others wait for it"
        assert await store.control.is_head(head.turn_id)
        assert not await store.control.is_head(behind.turn_id)


@clause
async def nobody_overtakes_a_head_that_nobody_runs(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        await store.control.register_runner(store.owner.owner_id, ["dev"], permanent=True)
        await admit(store, "head", agent_id="dev")
        await admit(store, "behind")
        assert await pick(store) is None, "this runner was asked for turns of main alone"


@clause
async def a_full_lane_keeps_no_other_lane_waiting(make: Callable[[], Store]) -> None:
    lanes = {"user": Lane(1, 100), "cron": Lane(1, 40)}
    async with opened(make) as [store]:
        for n in range(3):
            await admit(store, session_key=f"agent:main:u{n}")
        await admit(store, session_key="agent:main:c", lane="cron", priority=40)
        got = [await pick(store, lanes=lanes) for _ in range(3)]
        assert [each and each.turn.lane for each in got] == ["user", "cron", None]


@clause
async def a_lane_without_slots_runs_nothing(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store)
        closed = {"user": Lane(0, 100)}
        assert await pick(store, lanes=closed) is None
        assert await pick(store, lanes=closed, session_id=turn.session_id) is None
        assert (await store.control.place(turn.turn_id, closed)).waiting_for == "slot"


@clause
async def many_who_wait_are_run_in_order(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        for n in range(60):
            await admit(store, str(n), queue_max=100)
        assert await order_of(store) == [str(n) for n in range(60)]


@clause
async def a_place_counts_who_is_ahead(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turns = [await admit(a, str(n)) for n in range(4)]
        runs = await leased_now(a)

        async def places() -> list[int]:
            found = [await b.control.place(turn.turn_id, LANES) for turn in turns]
            return [place.position for place in found]

        assert await places() == [0, 1, 2, 3]
        place = await b.control.place(turns[1].turn_id, LANES)
        assert (place.waiting_for, place.blocker) == ("turn", runs.turn.turn_id)
        assert (place.lane, place.since) == ("user", runs.turn.started_at)
        await a.control.commit(runs.turn.turn_id, runs.token, COMMIT)
        assert (await places())[1:] == [0, 1, 2]


@clause
async def a_place_counts_the_lanes_that_come_first(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        asked = [
            ("heartbeat", 20), ("cron", 40), ("user", 100), ("vip", 90), ("cron", 40),
            ("slow", 5),
        ]  # fmt: skip
        turns = [await admit(store, lane=lane, priority=each) for lane, each in asked]
        places = [await store.control.place(turn.turn_id, LANES) for turn in turns]
        assert [place.position for place in places] == [4, 2, 0, 1, 3, 5]
        assert {place.blocker for place in places[3:]} == {turns[2].turn_id}
        assert await order_of(store, by_lane=True) == [
            "user", "vip", "cron", "cron", "heartbeat", "slow",
        ]  # fmt: skip
        assert [place.waiting_for for place in places[:3]] == ["queue", "queue", None]


@clause
async def a_person_stands_behind_every_earlier_one(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        asked = [("slow", 5), ("slow", 5), ("user", 100), ("vip", 50)]
        turns = [await admit(store, lane=lane, priority=each) for lane, each in asked]
        places = [await store.control.place(turn.turn_id, LANES) for turn in turns]
        assert [place.position for place in places] == [0, 1, 2, 3]


@clause
async def the_place_of_a_full_lane_is_said(make: Callable[[], Store]) -> None:
    lanes = {"user": Lane(1, 100)}
    async with opened(make) as [store]:
        await admit(store)
        await leased_now(store)
        waits = await admit(store, session_key=OTHER)
        place = await store.control.place(waits.turn_id, lanes)
        assert (place.position, place.waiting_for, place.lane) == (0, "slot", "user")


# ------------------------------------------------------------------------------ in time


@clock_clause
async def who_waits_gains_one_a_second(make: Callable[[], Store], step: Step) -> None:
    async with opened(make) as [store]:
        await admit(store, "old", lane="cron", priority=40)
        step(20_999)
        await admit(store, "higher", lane="cron", priority=61, session_key="agent:main:b")
        await admit(store, "same", lane="cron", priority=60, session_key="agent:main:c")
        await admit(store, "in its session", lane="heartbeat", priority=61)
        order = [(await leased_now(store)).turn.text for _ in range(3)]
        assert order == ["higher", "in its session", "same"]


@clock_clause
async def who_waits_gains_until_it_stands_at_100(make: Callable[[], Store], step: Step) -> None:
    async with opened(make) as [store]:
        await admit(store, "old", lane="maintenance", priority=10)
        step(89_000)
        await admit(store, "new", session_key="agent:main:b", priority=100)
        await admit(store, "more", session_key="agent:main:c", priority=101)
        assert (await leased_now(store)).turn.text == "more", "nobody is aged beyond 100"
        step(1_000)  # "old" stands at 100 now, and came first.
        await admit(store, "newest", session_key="agent:main:d", priority=100)
        assert [(await leased_now(store)).turn.text for _ in range(3)] == [
            "old", "new", "newest",
        ]  # fmt: skip
        await admit(store, "aged", session_key="agent:main:e", priority=1)
        step(3_600_000)
        await admit(store, "urgent", session_key="agent:main:f", priority=200)
        step(1_000)
        assert (await leased_now(store)).turn.text == "urgent", "nor below its priority"


@clock_clause
async def nobody_waits_for_ever_behind_a_stream_of_others(
    make: Callable[[], Store], step: Step
) -> None:
    async with opened(make) as [store]:
        await admit(store, "low", lane="maintenance", priority=10)
        order: list[str] = []
        for n in range(100):
            await admit(store, str(n), session_key=f"agent:main:s{n}", priority=100)
            leased = await leased_now(store)
            order.append(leased.turn.text)
            await store.control.commit(leased.turn.turn_id, leased.token, COMMIT)
            step(1_000)
        assert order.index("low") == 90, "the second in which it stood at 100"


@clock_clause
async def a_delay_is_kept_by_the_stores_clock(make: Callable[[], Store], step: Step) -> None:
    async with opened(make) as [store]:
        turn = await admit(store)
        leased = await leased_now(store)
        back = await store.control.put_back(
            turn.turn_id, leased.token,
            what=Event.GIVE_BACK, reason="write_lock", delay_ms=60_000,
        )  # fmt: skip
        assert back.not_before_ms >= turn.accepted_ms + 60_000
        step(30_000)
        assert await pick(store) is None
        place = await store.control.place(turn.turn_id, LANES)
        assert place.waiting_for == "write_lock"
        assert 0 < place.left_ms <= 30_000
        step(30_000)
        assert (await store.control.place(turn.turn_id, LANES)).waiting_for is None
        assert (await leased_now(store)).turn.not_before_ms == 0


@clock_clause
async def the_time_that_a_turn_was_taken_in_is_the_stores(
    make: Callable[[], Store], step: Step
) -> None:
    async with opened(make, 2) as [a, b]:
        first = await admit(a)
        step(5_000)
        second = await admit(b, session_key=OTHER)
        assert second.accepted_ms - first.accepted_ms >= 5_000
        seen = await asyncio.gather(*(each.control.turn(first.turn_id) for each in (a, b)))
        assert seen[0].accepted_ms == seen[1].accepted_ms == first.accepted_ms


@clock_clause
async def the_clock_goes_on_where_it_stood(make: Callable[[], Store], step: Step) -> None:
    async with opened(make) as [store]:
        step(3_600_000)
        before = await admit(store)
    async with opened(make) as [store]:
        after = await admit(store, session_key=KEY)
        assert after.accepted_ms >= before.accepted_ms
