"""Clauses about what is told: events, lanes, who holds a session and who waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast._core.settings import LANES, Lane
from holdfast.errors import NotFoundError
from holdfast.testing._conform import COMMIT, KEY, admit, clause, leased_now, opened, refused
from holdfast.types import SessionId

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store

__all__: list[str] = []  # What it has to say is in the suite already.


@clause
async def events_say_which_session_lane_turn_and_owner(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        me, control = store.owner.owner_id, store.control
        assert await control.newest_event() == 0
        turn = await admit(store, lane="cron", priority=40)
        leased = await leased_now(store)
        await control.commit(turn.turn_id, leased.token, COMMIT)
        told = {each.kind: each for each in await control.events()}
        for kind in ("accepted", "lease", "commit"):
            each = told[kind]
            assert (each.session_id, each.turn_id) == (turn.session_id, turn.turn_id), kind
            assert each.lane == "cron", kind
        assert told["lease"].owner_id == told["commit"].owner_id == me
        again = await admit(store, lane="cron", priority=40)
        held = await leased_now(store)
        await control.take_over(again.session_id, held.token, me)
        await control.note("wait", me, turn_id=again.turn_id, data={"waited_ms": 1})
        for kind in ("fenced", "wait"):
            [each] = await control.events(kinds=[kind])
            assert (each.lane, each.owner_id) == ("cron", me), "the turn's own lane"
        assert told["lease"].data["waited_ms"] >= 0
        assert told["commit"].data["ran_ms"] >= 0


@clause
async def events_come_in_pages_by_number(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        control = store.control
        here = await admit(store)
        there = await admit(store, session_key="agent:main:there")
        everything = await control.events()
        numbers = [each.event_id for each in everything]
        assert numbers == sorted(numbers)
        assert len(set(numbers)) == len(numbers)
        assert await control.newest_event() == numbers[-1]
        [first] = await control.events(limit=1)
        assert first == everything[0]
        assert await control.events(first.event_id) == everything[1:]
        assert await control.events(numbers[-1]) == []
        accepted = await control.events(kinds=["accepted"])
        assert [each.turn_id for each in accepted] == [here.turn_id, there.turn_id]
        assert await control.events(kinds=["no such kind"]) == []
        only = await control.events(session_id=there.session_id)
        assert {each.turn_id for each in only} == {there.turn_id}


@clause
async def lanes_say_what_runs_and_what_waits(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        lanes = {**LANES, "user": Lane(7, 90)}
        running = await admit(store)
        await leased_now(store)
        waiting = await admit(store)
        await admit(store)
        await admit(store, lane="beyond", priority=1, session_key="agent:main:beyond")
        found = {each.lane: each for each in await store.control.lanes(lanes)}
        assert list(found) == [*lanes, "beyond"], "set ones first, in their order"
        user = found["user"]
        assert (user.concurrency, user.priority) == (7, 90)
        assert (user.running, user.waiting) == (1, 2)
        assert user.oldest == waiting.accepted_at != running.turn_id
        assert user.oldest_ms >= 0
        assert (found["cron"].running, found["cron"].waiting) == (0, 0)
        assert (found["cron"].oldest, found["cron"].oldest_ms) == (None, 0)
        assert (found["beyond"].waiting, found["beyond"].concurrency) == (1, 0)


@clause
async def why_says_who_holds_a_session_and_who_waits(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        running = await admit(a)
        leased = await leased_now(a)
        beat = await admit(b, lane="heartbeat", priority=20)
        person = await admit(b)
        why = await b.control.why(running.session_id, LANES)
        assert why.keys == (KEY,)
        assert why.session == await b.control.session(running.session_id)
        assert why.holder is not None
        assert why.holder.turn.turn_id == running.turn_id
        assert (why.holder.token, why.holder.owner) == (leased.token, a.owner)
        assert (why.holder.effective, why.holder.recovering) == (False, False)
        assert why.holder.since
        assert [each.turn.turn_id for each in why.waiting] == [person.turn_id, beat.turn_id]
        for each in why.waiting:
            assert each.place == await b.control.place(each.turn.turn_id, LANES)
        assert (why.waiting_count, why.owed, why.deliveries) == (2, 0, ())
        assert why.runners == tuple(
            sorted(((o, True) for o in (a.owner, b.owner)), key=lambda one: one[0].owner_id)
        )
        assert [each.turn for each in await b.control.holders()] == [why.holder.turn]
        await a.control.make_effective(running.turn_id, leased.token)
        await b.control.take_over(running.session_id, leased.token, b.owner.owner_id)
        taken = (await a.control.why(running.session_id, LANES)).holder
        assert taken is not None
        assert (taken.owner, taken.recovering) == (b.owner, True)


@clause
async def why_of_an_idle_session_is_empty(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store)
        leased = await leased_now(store)
        await store.control.commit(turn.turn_id, leased.token, COMMIT)
        why = await store.control.why(turn.session_id, LANES)
        assert (why.holder, why.waiting, why.waiting_count) == (None, (), 0)
        assert await store.control.holders() == []
        await refused(NotFoundError, store.control.why(SessionId("nowhere"), LANES))


@clause
async def an_owner_that_has_left_holds_without_a_name(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turn = await admit(a)
        await leased_now(a)
        await b.control.bury(a.owner.owner_id, "dead")
        holder = (await b.control.why(turn.session_id, LANES)).holder
        assert holder is not None
        assert holder.owner is None


@clause
async def a_session_with_many_waiting_is_told_by_its_first(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turns = [await admit(store, queue_max=1000) for _ in range(130)]
        why = await store.control.why(turns[0].session_id, LANES)
        assert why.waiting_count == 130
        told = [each.turn.turn_id for each in why.waiting]
        assert told == [turn.turn_id for turn in turns[: len(told)]]
        assert 0 < len(told) < 130
