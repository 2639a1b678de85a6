"""Clauses about which turn is next, and whose it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast._core.settings import LANES, Lane
from holdfast._core.turns import Event
from holdfast.testing._conform import COMMIT, admit, clause, leased_now, opened, pick

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store

__all__: list[str] = []  # What it has to say is in the suite already.


@clause
async def one_turn_of_a_session_runs_at_a_time(make: Callable[[], Store]) -> None:
    async with opened(make, 3) as stores:
        for _ in range(3):
            await admit(stores[0])
        got = await asyncio.gather(*(pick(store) for store in stores * 3))
        assert sum(leased is not None for leased in got) == 1


@clause
async def slot_and_lease_are_picked_together(make: Callable[[], Store]) -> None:
    lanes = {"user": Lane(1, 100), "cron": Lane(1, 40)}
    async with opened(make) as [store]:
        for n, lane in enumerate(["user", "user", "cron"]):
            await admit(store, session_key=f"agent:main:s{n}", lane=lane)
        got = [await pick(store, lanes=lanes) for _ in range(3)]
        assert [leased and leased.turn.lane for leased in got] == ["user", "cron", None]
        assert got[0] is not None
        await store.control.commit(got[0].turn.turn_id, got[0].token, COMMIT)
        freed = await pick(store, lanes=lanes)
        assert freed is not None
        assert freed.turn.session_key == "agent:main:s1"


@clause
async def slots_are_counted_over_the_whole_store(make: Callable[[], Store]) -> None:
    lanes = {"user": Lane(2, 100)}
    async with opened(make, 3) as stores:
        for n in range(6):
            await admit(stores[0], session_key=f"agent:main:s{n}")
        got = await asyncio.gather(*(pick(store, lanes=lanes) for store in stores * 2))
        leased = [each for each in got if each is not None]
        assert len(leased) == 2
        ends = ("put back", "ended", "committed")
        for number, how in enumerate(ends):  # Each way out gives the slot back.
            turn, control = leased.pop(0), stores[0].control
            token = turn.token
            if how == "put back":
                await control.put_back(
                    turn.turn.turn_id, token,
                    what=Event.REQUEUE, reason="drained", delay_ms=3_600_000,
                )  # fmt: skip
            elif how == "ended":
                await control.end(turn.turn.turn_id, token, "failed", None, None)
            else:
                await control.commit(turn.turn.turn_id, token, COMMIT)
            following = await pick(stores[number], lanes=lanes)
            assert following is not None, f"{how}: its slot is not free"
            assert await pick(stores[number], lanes=lanes) is None, "a slot too many"
            leased.append(following)


@clause
async def a_lane_without_a_bound_has_none(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        for n in range(3):
            await admit(store, session_key=f"agent:main:s{n}", lane="elsewhere")
        assert all([await pick(store, lanes={}) for _ in range(3)])


@clause
async def a_home_that_lives_keeps_its_turns(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [home, other]:
        turn = await admit(home, home=home.owner.owner_id)
        assert await pick(other) is None
        adopted = await pick(other, overdue=frozenset({turn.turn_id}))
        assert adopted is not None, "an overdue turn must be anybody's"


@clause
async def nobody_overtakes_a_head_that_waits_for_its_home(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [home, other]:
        await admit(home, "first", home=home.owner.owner_id)
        await admit(other, "second", home=other.owner.owner_id)
        assert await pick(other) is None


@clause
async def a_home_that_left_leaves_its_turns_to_all(make: Callable[[], Store]) -> None:
    async with opened(make, 3) as [draining, gone, other]:
        for n, home in enumerate([draining, gone]):
            await admit(home, session_key=f"agent:main:s{n}", home=home.owner.owner_id)
        await draining.control.set_draining(draining.owner.owner_id)
        await gone.control.leave(gone.owner.owner_id)
        for n, home in enumerate([draining, gone]):  # Admitted as they were about to go.
            await admit(other, session_key=f"agent:main:t{n}", home=home.owner.owner_id)
        assert all([await pick(other) for _ in range(4)])
        await admit(other)
        assert await pick(draining) is None, "a draining process took a new turn"
        assert await pick(gone) is None, "a process that left took a new turn"


@clause
async def a_bound_turn_is_its_homes_alone(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [home, other]:
        turn = await admit(home, home=home.owner.owner_id, bound=True)
        assert await pick(home) is None, "it is picked by name only: it brings its own loop"
        await home.control.leave(home.owner.owner_id)
        assert await pick(other) is None
        assert await pick(other, overdue=frozenset({turn.turn_id})) is None


@clause
async def a_pick_by_name_takes_that_turn_or_none(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        me = store.owner.owner_id
        first = await admit(store, "first", home=me, bound=True)
        second = await admit(store, "second", home=me, bound=True)
        await admit(store, "elsewhere", session_key="agent:main:b")
        assert await pick(store, only=second.turn_id) is None, "it is not its session's head"
        leased = await pick(store, only=first.turn_id)
        assert leased is not None
        assert leased.turn.turn_id == first.turn_id


@clause
async def a_pick_keeps_to_its_session_and_its_agents(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        await store.control.register_runner(store.owner.owner_id, ["dev"], permanent=True)
        ours = await admit(store, session_key="agent:main:a")
        there = await admit(store, session_key="agent:main:b")
        await admit(store, session_key="agent:dev:main", agent_id="dev")
        leased = await pick(store, session_id=there.session_id)
        assert leased is not None
        assert leased.turn.turn_id == there.turn_id
        assert await pick(store, session_id=there.session_id) is None
        assert (await leased_now(store)).turn.turn_id == ours.turn_id
        assert await pick(store) is None, "a turn of an agent that it was not asked for"


@clause
async def not_before_is_kept(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store)
        await admit(store, "behind it")
        for delay_ms in (0, 3_600_000):
            leased = await leased_now(store)
            assert leased.turn.turn_id == turn.turn_id
            await store.control.put_back(
                turn.turn_id, leased.token,
                what=Event.GIVE_BACK, reason="write_lock", delay_ms=delay_ms,
            )  # fmt: skip
        assert await pick(store) is None, "it, or one behind it, was picked too early"
        place = await store.control.place(turn.turn_id, LANES)
        assert place.waiting_for == "write_lock"
        await admit(store, session_key="agent:main:b")
        assert await pick(store) is not None, "other sessions do not wait for it"


@clause
async def a_look_ahead_agrees_with_the_pick(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        control, me = b.control, a.owner.owner_id
        assert not await control.has_heads(["main"])
        first, second = await admit(a, home=me), await admit(a, home=me)
        assert await control.has_heads(["main"])
        assert await control.has_heads(["main"], session_id=first.session_id)
        assert not await control.has_heads(["dev"])
        # First's home is alive to start it: that is no reason for others to try.
        for one in (None, first.session_id):
            asked = {"session_id": one}
            assert await control.has_heads(["main"], owner_id=me, **asked)
            other = b.owner.owner_id
            assert not await control.has_heads(["main"], owner_id=other, **asked)
        nobody = await admit(a, session_key="agent:main:c")
        assert await control.has_heads(["main"], owner_id=b.owner.owner_id)
        await a.control.end_waiting(nobody.turn_id, "cancelled", "cancelled")
        assert await control.is_head(first.turn_id)
        assert not await control.is_head(second.turn_id)
        leased = await leased_now(a)
        assert not await control.has_heads(["main"])
        assert not await control.is_head(second.turn_id)
        await a.control.commit(first.turn_id, leased.token, COMMIT)
        assert await control.is_head(second.turn_id)
        bound = await admit(a, session_key="agent:main:b", home=me, bound=True)
        assert await control.is_head(bound.turn_id)
        assert not await control.has_heads(["main"], session_id=bound.session_id)


@clause
async def what_was_let_go_of_is_another_runners_to_start(make: Callable[[], Store]) -> None:
    async with opened(make, 4) as [a, b, c, d]:
        me = a.owner.owner_id
        stays, passes, leaves = b.owner.owner_id, c.owner.owner_id, d.owner.owner_id
        for other in (stays, passes):
            await a.control.register_runner(other, ["main"], permanent=other == stays)
        await a.control.set_draining(leaves)
        turn = await admit(a, home=me)
        await admit(c, "behind it", home=passes)  # So it runs this session, too.

        async def let_go(by: Store, reason: str = "handed_over") -> str | None:
            leased = await pick(by)
            assert leased is not None
            assert leased.turn.turn_id == turn.turn_id
            back = await by.control.put_back(
                turn.turn_id, leased.token, what=Event.GIVE_BACK, reason=reason
            )
            return back.home

        assert await let_go(a, "write_lock") == me
        assert await let_go(a) == stays
        assert await pick(a) is None, "it would be the same one again"
        adopted = await pick(a, overdue=[turn.turn_id])
        assert adopted is not None, "its new home does not start it either"
        await a.control.put_back(
            turn.turn_id, adopted.token, what=Event.GIVE_BACK, reason="drained"
        )
        assert await let_go(b) == me, "the other one that stays"
        await a.control.set_draining(stays)
        assert await let_go(a) == passes
        await a.control.set_draining(me)
        assert await let_go(c) == passes, "nobody else can run it"
