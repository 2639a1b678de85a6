"""Clauses about turns that are merged into another, and about those that are not after all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast._core.turns import Event
from holdfast.errors import LeaseLostError
from holdfast.testing._conform import (
    KEY,
    abort_of,
    admit,
    booked,
    clause,
    leased_now,
    opened,
    pick,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store
    from holdfast.types import Leased, Turn

__all__: list[str] = []  # What it has to say is in the suite already.

BURST: dict[str, Any] = {"policy": "collect", "quiet_ms": 0, "collect_max": 10}


async def steered(store: Store, count: int = 3) -> tuple[Leased, list[Turn]]:
    """A running turn, one that waits behind it, and *count* that were sent into it."""
    await admit(store, "host")
    host = await leased_now(store)
    turns = [await admit(store, str(n), policy="steer") for n in range(count)]
    return host, turns


async def now(store: Store, turns: list[Turn]) -> list[tuple[str, str | None, str | None]]:
    found = [await store.control.turn(turn.turn_id) for turn in turns]
    return [(turn.state, turn.outcome, turn.host) for turn in found]


@clause
async def a_turn_with_a_host_is_nobodys_to_run(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        host = await admit(a, **BURST)
        guest = await admit(a, **BURST)
        assert not await a.control.is_head(guest.turn_id)
        assert await pick(b, only=guest.turn_id) is None
        assert await pick(b, overdue={guest.turn_id}) is not None  # That was the host.
        assert await pick(b) is None
        assert not await a.control.has_heads(["main"])
        assert (await a.control.turn(guest.turn_id)).host == host.turn_id
        assert (await a.control.counts()).waiting == 1, "it waits all the same"


@clause
async def who_runs_a_turn_is_told_whom_it_answers_too(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        await admit(a, **BURST)
        guests = [await admit(store, str(n), **BURST) for n, store in enumerate((a, b, a))]
        leased = await leased_now(b)
        assert list(leased.merges) == guests
        assert a.control.hosted(leased.turn.turn_id) == guests
        assert a.control.hosted(guests[0].turn_id) == []


@clause
async def a_commit_ends_those_that_it_answers_and_frees_the_others(
    make: Callable[[], Store],
) -> None:
    async with opened(make, 2) as [a, b]:
        host, turns = await steered(a)
        done = await booked(a, host, turns[2], turns[0])
        assert (done.outcome, done.merged_into) == ("replied", None)
        for turn in (turns[0], turns[2]):
            seen = await b.control.turn(turn.turn_id)
            assert (seen.state, seen.outcome, seen.host) == ("done", "merged", None)
            assert seen.merged_into == host.turn.turn_id
            assert seen.ended_at is not None
            assert seen.hosted
        assert b.control.hosted(host.turn.turn_id) == []
        left = await leased_now(b)
        assert (left.turn.turn_id, left.turn.host) == (turns[1].turn_id, None)
        assert (left.turn.hosted, left.turn.merged_into) == (True, None)
        assert left.turn.admission == turns[1].admission


@clause
async def a_commit_ends_nobody_elses_turns(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        host, [guest] = await steered(store, 1)
        waiting = await admit(store)
        elsewhere = await admit(store, session_key="agent:main:other")
        await store.control.cancel(guest.turn_id)
        await booked(store, host, guest, waiting, elsewhere)
        assert await now(store, [guest, waiting, elsewhere]) == [
            ("done", "cancelled", None), ("accepted", None, None), ("accepted", None, None),
        ]  # fmt: skip


@clause
async def a_fenced_host_ends_nobody(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [old, reaper]:
        host, turns = await steered(old)
        session_id, me = host.session.session_id, reaper.owner.owner_id
        token = await reaper.control.take_over(session_id, host.token, me)
        taken = {turns[0].turn_id: "entry"}
        await refused(LeaseLostError, booked(old, host, *turns))
        await refused(LeaseLostError, old.control.take(host.turn.turn_id, host.token, taken))
        still = ("accepted", None, host.turn.turn_id)
        assert await now(old, turns) == [still] * 3
        assert (await old.control.turn(turns[0].turn_id)).asked_entry is None
        await reaper.control.take(host.turn.turn_id, token, taken)  # The bookkeeping's way.
        assert old.control.hosted(host.turn.turn_id)[0].asked_entry == "entry"


@clause
async def a_host_that_ends_otherwise_frees_all(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        for outcome in ("silent", "failed", "cancelled"):
            host, turns = await steered(store)
            await store.control.end(host.turn.turn_id, host.token, outcome, "why", None)
            assert await now(store, turns) == [("accepted", None, None)] * 3
            for turn in turns:
                leased = await leased_now(store)
                assert leased.turn.turn_id == turn.turn_id, "at its place"
                await booked(store, leased)


@clause
async def who_is_freed_stands_where_it_stood(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        host, [guest] = await steered(store, 1)
        later = await admit(store, "later")
        await store.control.end(host.turn.turn_id, host.token, "failed", None, None)
        assert await store.control.is_head(guest.turn_id)
        assert not await store.control.is_head(later.turn_id)


@clause
async def a_waiting_host_that_ends_frees_all(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        for how in ("cancel", "end_waiting"):
            host = await admit(store, **BURST)
            turns = [await admit(store, **BURST) for _ in range(2)]
            if how == "cancel":
                await store.control.cancel(host.turn_id)
            else:
                await store.control.end_waiting(host.turn_id, "failed", "owner_died")
            assert await now(store, turns) == [("accepted", None, None)] * 2
            for turn in turns:
                assert (await leased_now(store)).turn.turn_id == turn.turn_id
                leased = await store.control.turn(turn.turn_id)
                assert leased.token is not None
                await store.control.end(turn.turn_id, leased.token, "silent", None, None)


@clause
async def a_host_that_is_put_back_keeps_them(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        host, turns = await steered(a)
        await a.control.take(host.turn.turn_id, host.token, {turns[0].turn_id: "e1"})
        late = await admit(a, "late")
        for what in (Event.REQUEUE, Event.GIVE_BACK):
            token = (await a.control.turn(host.turn.turn_id)).token
            assert token is not None
            await a.control.put_back(host.turn.turn_id, token, what=what, reason="x")
            again = await leased_now(b)
            assert again.turn.turn_id == host.turn.turn_id
            assert [turn.turn_id for turn in again.merges] == [t.turn_id for t in turns]
            assert [turn.asked_entry for turn in again.merges] == ["e1", None, None]
        assert (await a.control.turn(late.turn_id)).host is None


@clause
async def what_was_taken_is_known_after_its_host_is_gone(make: Callable[[], Store]) -> None:
    """Its question stands in the transcript: whoever runs it does not ask it again."""
    async with opened(make) as [store]:
        host, turns = await steered(store)
        taken = {turns[1].turn_id: "e1", "nobody": "e2"}
        await store.control.take(host.turn.turn_id, host.token, taken)  # type: ignore[arg-type]
        seen = [turn.asked_entry for turn in store.control.hosted(host.turn.turn_id)]
        assert seen == [None, "e1", None]
        await store.control.end(host.turn.turn_id, host.token, "failed", None, None)
        left = await store.control.turn(turns[1].turn_id)
        assert (left.host, left.hosted, left.asked_entry) == (None, True, "e1")


@clause
async def a_merged_turn_that_was_not_taken_can_be_cancelled(
    make: Callable[[], Store],
) -> None:
    async with opened(make) as [store]:
        host, turns = await steered(store)
        await store.control.take(host.turn.turn_id, host.token, {turns[0].turn_id: "e1"})
        gone = await store.control.cancel(turns[1].turn_id)
        assert (gone.state, gone.outcome, gone.host) == ("done", "cancelled", None)
        kept = await store.control.cancel(turns[0].turn_id)
        assert (kept.state, kept.outcome, kept.abort_requested) == ("accepted", None, True)
        assert kept.host == host.turn.turn_id, "it ends with its host"
        assert await store.control.aborts(store.owner.owner_id) == {}, "its host goes on"
        await booked(store, host, turns[0])
        assert await now(store, turns) == [
            ("done", "merged", None), ("done", "cancelled", None), ("accepted", None, None),
        ]  # fmt: skip


@clause
async def a_taken_turn_whose_host_is_gone_is_only_asked_to_end(
    make: Callable[[], Store],
) -> None:
    """Its question stands in the transcript: an entry has to end it first."""
    async with opened(make) as [store]:
        host, [guest] = await steered(store, 1)
        await store.control.take(host.turn.turn_id, host.token, {guest.turn_id: "e1"})
        await store.control.end(host.turn.turn_id, host.token, "failed", None, None)
        asked = await store.control.cancel(guest.turn_id)
        assert (asked.state, asked.outcome, asked.abort_requested) == ("accepted", None, True)
        ended = await store.control.end_waiting(guest.turn_id, "cancelled", "cancelled")
        assert (ended.state, ended.outcome) == ("done", "cancelled")


@clause
async def a_reset_takes_a_burst_along_and_leaves_what_was_taken(
    make: Callable[[], Store],
) -> None:
    async with opened(make) as [store]:
        host, turns = await steered(store)
        await store.control.take(host.turn.turn_id, host.token, {turns[0].turn_id: "e1"})
        burst = await admit(store, **BURST)
        joined = await admit(store, **BURST)
        reset = await store.control.reset(KEY)
        assert reset.stayed == (host.turn.turn_id, turns[0].turn_id)
        assert reset.moved == tuple(
            turn.turn_id for turn in (turns[1], turns[2], burst, joined)
        )
        assert await now(store, [*turns, burst, joined]) == [
            ("accepted", None, host.turn.turn_id), ("accepted", None, None),
            ("accepted", None, None), ("accepted", None, None),
            ("accepted", None, burst.turn_id),
        ]  # fmt: skip
        assert [t.turn_id for t in store.control.hosted(host.turn.turn_id)] == [
            turns[0].turn_id
        ]
        for turn in (turns[1], turns[2], burst):
            leased = await leased_now(store)
            assert leased.turn.turn_id == turn.turn_id
            assert leased.session.session_id == reset.new.session_id
            await booked(store, leased, *leased.merges)
        assert (await store.control.turn(joined.turn_id)).outcome == "merged"


@clause
async def what_became_of_a_merge_is_told(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        host, turns = await steered(store, 2)
        await booked(store, host, turns[0])
        told = await store.control.events(kinds=["accepted", "merged", "unmerged"])
        assert [(each.kind, each.turn_id, each.data.get("host")) for each in told] == [
            ("accepted", host.turn.turn_id, None),
            ("accepted", turns[0].turn_id, host.turn.turn_id),
            ("accepted", turns[1].turn_id, host.turn.turn_id),
            ("merged", turns[0].turn_id, host.turn.turn_id),
            ("unmerged", turns[1].turn_id, host.turn.turn_id),
        ]
        assert {each.lane for each in told} == {"user"}


@clause
async def steer_joins_no_turn_whose_reply_cannot_be_its_answer(
    make: Callable[[], Store],
) -> None:
    """It is delivered elsewhere, or by another model, or was not told the same."""
    async with opened(make) as [store]:
        told = {"target": "chat:1", "model": "m", "instructions": "be brief"}
        runs: dict[str, Any] = {"home": store.owner.owner_id, **told}
        joins: list[dict[str, Any]] = [{}, told, {"sender": "bob"}, {"lane": "cron"}]
        others = [{"target": "chat:2"}, {"model": "n"}, {"instructions": "be long"}]
        for n, more in enumerate([*joins, *others]):
            key = f"agent:main:s{n}"
            first = await admit(store, session_key=key, **runs)
            await leased_now(store)
            steered = await admit(store, policy="steer", session_key=key, **more)
            assert steered.host == (first.turn_id if more in joins else None), more
        heartbeat = await admit(store, lane="heartbeat", session_key="agent:main:beat")
        leased = await leased_now(store)
        beat: dict[str, Any] = {"policy": "steer", "session_key": "agent:main:beat"}
        assert (await admit(store, **beat)).host == heartbeat.turn_id
        assert await abort_of(store, leased) is None
        assert (await admit(store, target="chat:1", **beat)).host is None
        assert await abort_of(store, leased) == "preempted", "a person waits for it"
