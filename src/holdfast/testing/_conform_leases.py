"""Clauses about leases, slots, tokens and the fence."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast._core.settings import LANES, Lane
from holdfast._core.turns import Event
from holdfast._stamps import now_ms
from holdfast.errors import LeaseLostError
from holdfast.testing._conform import COMMIT, admit, clause, leased_now, opened, pick, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store
    from holdfast.types import FencingToken

__all__: list[str] = []  # What it has to say is in the suite already.


@clause
async def one_turn_of_a_session_runs_at_a_time(make: Callable[[], Store]) -> None:
    async with opened(make, 3) as stores:
        for _ in range(3):
            await admit(stores[0])
        got = await asyncio.gather(*(pick(store) for store in stores * 3))
        assert sum(leased is not None for leased in got) == 1


@clause
async def tokens_never_repeat(make: Callable[[], Store]) -> None:
    tokens: list[FencingToken] = []
    for _ in range(3):  # Not across a restart either.
        async with opened(make) as [store]:
            turn = await admit(store)
            leased = await leased_now(store)
            tokens.append(leased.token)
            await store.control.commit(turn.turn_id, leased.token, COMMIT)
    assert tokens == sorted(set(tokens))
    assert tokens[0] >= 1


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
async def order_is_priority_then_admission(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        for n, priority in enumerate([20, 100, 60, 100]):
            await admit(store, str(n), priority=priority)
        order = []
        for _ in range(4):
            leased = await leased_now(store)
            order.append(leased.turn.text)
            await store.control.commit(leased.turn.turn_id, leased.token, COMMIT)
        assert order == ["1", "3", "2", "0"]


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
        assert await pick(other) is not None
        assert await pick(other) is not None
        await admit(other)
        assert await pick(draining) is None, "a draining process took a new turn"


@clause
async def a_bound_turn_is_its_homes_alone(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [home, other]:
        turn = await admit(home, home=home.owner.owner_id, bound=True)
        await home.control.leave(home.owner.owner_id)
        assert await pick(other) is None
        assert await pick(other, overdue=frozenset({turn.turn_id})) is None


@clause
async def not_before_is_kept(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store)
        leased = await leased_now(store)
        later = now_ms() + 3_600_000
        await store.control.put_back(
            turn.turn_id, leased.token,
            what=Event.GIVE_BACK, reason="write_lock", not_before_ms=later,
        )  # fmt: skip
        assert await pick(store) is None
        place = await store.control.place(turn.turn_id, LANES)
        assert place.waiting_for == "write_lock"


@clause
async def an_old_token_changes_nothing(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [old, reaper]:
        turn = await admit(old)
        leased = await leased_now(old)
        me = reaper.owner.owner_id
        newer = await reaper.control.take_over(turn.session_id, leased.token, me)
        assert newer > leased.token
        control, token = old.control, leased.token
        for call in (
            control.commit(turn.turn_id, token, COMMIT),
            control.end(turn.turn_id, token, "failed", None, None),
            control.put_back(turn.turn_id, token, what=Event.REQUEUE, reason="x"),
            control.make_effective(turn.turn_id, token),
            control.count_attempt(turn.turn_id, token),
            control.keep(turn.turn_id, token, b"{}"),
            control.take_over(turn.session_id, token, old.owner.owner_id),
        ):
            await refused(LeaseLostError, call)
        assert control.newest_token(turn.session_id) == (newer, me)
        assert (await control.turn(turn.turn_id)).state == "running"


@clause
async def of_many_reapers_one_wins(make: Callable[[], Store]) -> None:
    async with opened(make, 4) as [dead, *reapers]:
        turn = await admit(dead)
        leased = await leased_now(dead)
        got = await asyncio.gather(
            *(
                r.control.take_over(turn.session_id, leased.token, r.owner.owner_id)
                for r in reapers
            ),
            return_exceptions=True,
        )
        assert sum(not isinstance(each, BaseException) for each in got) == 1
        assert sum(isinstance(each, LeaseLostError) for each in got) == 2


@clause
async def a_turn_put_back_keeps_its_place(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        first = await admit(store, "first")
        await admit(store, "second")
        for what, attempts in ((Event.REQUEUE, 1), (Event.GIVE_BACK, 1)):
            leased = await leased_now(store)
            assert leased.turn.text == "first"
            back = await store.control.put_back(
                first.turn_id, leased.token, what=what, reason="drained"
            )
            assert (back.state, back.attempts, back.token) == ("accepted", attempts, None)


@clause
async def a_fenced_owner_frees_its_slot_at_once(make: Callable[[], Store]) -> None:
    lanes = {"user": Lane(1, 100)}
    async with opened(make, 2) as [dead, other]:
        turn = await admit(dead, session_key="agent:main:a")
        await admit(other, session_key="agent:main:b")
        leased = await pick(dead, lanes=lanes)
        assert leased is not None
        assert await pick(other, lanes=lanes) is None
        await other.control.take_over(turn.session_id, leased.token, other.owner.owner_id)
        assert await pick(other, lanes=lanes) is not None


@clause
async def a_kept_reply_reaches_the_successor(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store)
        leased = await leased_now(store)
        await store.control.keep(turn.turn_id, leased.token, b"[1]")
        await store.control.put_back(
            turn.turn_id, leased.token, what=Event.REQUEUE, reason="owner_died"
        )
        assert (await leased_now(store)).finished == b"[1]"


@clause
async def an_outcome_is_final(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store)
        leased = await leased_now(store)
        done = await store.control.commit(turn.turn_id, leased.token, COMMIT)
        assert (done.state, done.outcome, done.reply) == ("done", "replied", "reply")
        await refused(LeaseLostError, store.control.commit(turn.turn_id, leased.token, COMMIT))
        assert (await store.control.cancel(turn.turn_id)).outcome == "replied"
        assert store.control.newest_token(turn.session_id) is None
        assert [t.turn_id for t in await store.control.ended([turn.turn_id])] == [turn.turn_id]


@clause
async def a_waiting_turn_can_be_cancelled_and_a_running_one_isasked_for(
    make: Callable[[], Store],
) -> None:
    async with opened(make) as [store]:
        running, waiting = await admit(store), await admit(store)
        await leased_now(store)
        assert (await store.control.cancel(waiting.turn_id)).outcome == "cancelled"
        asked = await store.control.cancel(running.turn_id)
        assert (asked.state, asked.abort_requested) == ("running", True)
        assert await store.control.aborts(store.owner.owner_id) == [running.turn_id]


@clause
async def a_buried_owner_learns_it_from_its_beat(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        assert await a.control.beat(a.owner.owner_id) is True
        assert await b.control.bury(a.owner.owner_id, "silent") is True
        assert await a.control.beat(a.owner.owner_id) is False
        assert await b.control.bury(a.owner.owner_id, "silent") is False
