"""Clauses about leases, tokens and the fence."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast._core.settings import Lane
from holdfast._core.turns import Event
from holdfast.errors import LeaseLostError
from holdfast.testing._conform import COMMIT, admit, clause, leased_now, opened, pick, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store
    from holdfast.types import FencingToken

__all__: list[str] = []  # What it has to say is in the suite already.


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
            control.salvage(turn.turn_id, token, b"{}"),
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
async def a_waiting_turn_can_be_cancelled_and_a_running_one_is_asked_for(
    make: Callable[[], Store],
) -> None:
    async with opened(make) as [store]:
        running, waiting = await admit(store), await admit(store)
        await leased_now(store)
        assert (await store.control.cancel(waiting.turn_id)).outcome == "cancelled"
        asked = await store.control.cancel(running.turn_id)
        assert (asked.state, asked.abort_requested) == ("running", True)
        assert await store.control.aborts(store.owner.owner_id) == {
            running.turn_id: "cancelled"
        }


@clause
async def every_lease_has_a_token_of_its_own(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turn, tokens = await admit(a), []
        for store, rival in ((a, b), (b, a)):
            leased = await leased_now(store)
            me = rival.owner.owner_id
            newer = await rival.control.take_over(turn.session_id, leased.token, me)
            tokens += [leased.token, newer]
            await rival.control.put_back(
                turn.turn_id, newer, what=Event.REQUEUE, reason="owner_died"
            )
        leased = await leased_now(a)
        tokens.append(leased.token)
        await a.control.end(turn.turn_id, leased.token, "failed", None, None)
        await admit(b)
        tokens.append((await leased_now(b)).token)
        assert tokens == sorted(set(tokens))


@clause
async def who_holds_the_lease_is_seen_by_all_at_once(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turn = await admit(a)
        assert b.control.newest_token(turn.session_id) is None
        leased = await leased_now(a)
        assert b.control.newest_token(turn.session_id) == (leased.token, a.owner.owner_id)
        seen = b.control.turn_now(turn.turn_id)
        assert (seen.state, seen.token, seen.owner_id) == (
            "running", leased.token, a.owner.owner_id,
        )  # fmt: skip
        assert seen.started_at is not None
        me = b.owner.owner_id
        newer = await b.control.take_over(turn.session_id, leased.token, me)
        assert a.control.newest_token(turn.session_id) == (newer, me)
        seen = a.control.turn_now(turn.turn_id)
        assert (seen.state, seen.token, seen.owner_id) == ("running", newer, me)
        await b.control.end(turn.turn_id, newer, "failed", "owner_died", "why")
        assert a.control.newest_token(turn.session_id) is None
        seen = a.control.turn_now(turn.turn_id)
        assert (seen.token, seen.owner_id, seen.reason, seen.hint) == (
            None, None, "owner_died", "why",
        )  # fmt: skip


@clause
async def an_attempt_is_counted_before_it_begins(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turn = await admit(a)
        assert (await leased_now(a)).turn.attempts == 1
        assert (await b.control.turn(turn.turn_id)).attempts == 1
        token = (await b.control.turn(turn.turn_id)).token
        assert token is not None
        assert (await a.control.make_effective(turn.turn_id, token)).attempts == 1
        assert await a.control.count_attempt(turn.turn_id, token) == 2
        assert (await b.control.turn(turn.turn_id)).attempts == 2


@clause
async def who_runs_a_turn_again_is_told_why(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store)
        again, reruns = [], []
        for reason in ("taken_over", "owner_died", "taken_over"):
            leased = await leased_now(store)
            again.append(leased.again)
            what = Event.GIVE_BACK if reason == "taken_over" else Event.REQUEUE
            back = await store.control.put_back(
                turn.turn_id, leased.token, what=what, reason=reason
            )
            reruns.append(back.reruns)
        again.append((await leased_now(store)).again)
        assert again == [None, "taken_over", "owner_died", "taken_over"]
        assert reruns == [1, 1, 2]


@clause
async def a_salvaged_reply_is_kept_for_people_only(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store)
        leased = await leased_now(store)
        await store.control.keep(turn.turn_id, leased.token, b"[1]")
        await store.control.salvage(turn.turn_id, leased.token, b"[2]")
        await store.control.put_back(
            turn.turn_id, leased.token, what=Event.GIVE_BACK, reason="taken_over"
        )
        leased = await leased_now(store)
        assert leased.finished is None, "a successor would append it"
        await store.control.commit(turn.turn_id, leased.token, COMMIT)
        assert (await store.control.turn(turn.turn_id)).salvaged == b"[2]"


@clause
async def a_commit_is_in_the_rows_of_turn_and_session(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turn = await admit(a)
        leased = await leased_now(a)
        await a.control.keep(turn.turn_id, leased.token, b"[1]")
        what = replace(COMMIT, usage=b'{"input": 3}', end_offset=123)
        await a.control.commit(turn.turn_id, leased.token, what)
        seen = await b.control.turn(turn.turn_id)
        assert (seen.reply, seen.final_entry, seen.usage) == ("reply", "entry-1", {"input": 3})
        assert (seen.ended_at is not None, seen.finished, seen.host) == (True, None, None)
        assert (await b.control.session(turn.session_id)).end_offset == 123
        assert (await b.control.counts()).leases == 0


@clause
async def only_the_table_moves_a_turn(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn, waiting = await admit(store), await admit(store)
        leased = await leased_now(store)
        for call in (
            store.control.end(turn.turn_id, leased.token, "replied", None, None),
            store.control.end(turn.turn_id, leased.token, "merged", None, None),
            store.control.end_waiting(waiting.turn_id, "replied", None),
            store.control.put_back(turn.turn_id, leased.token, what=Event.COMMIT, reason="x"),
        ):
            with suppress(AssertionError):
                await call
                raise RuntimeError("the table has no such cell")
        assert (await store.control.turn(turn.turn_id)).state == "running"
        assert (await store.control.turn(waiting.turn_id)).state == "accepted"
        assert store.control.newest_token(turn.session_id) is not None
        still = await store.control.end_waiting(turn.turn_id, "failed", "x")
        assert (still.state, still.outcome) == ("running", None), "its runner ends it"
        ended = await store.control.end_waiting(waiting.turn_id, "failed", "owner_died")
        assert (ended.state, ended.outcome, ended.reason) == ("done", "failed", "owner_died")


@clause
async def a_turn_that_has_begun_once_is_only_asked_to_end(make: Callable[[], Store]) -> None:
    """Its question may stand in the transcript: an entry has to end it first."""
    async with opened(make) as [store]:
        turn = await admit(store)
        leased = await leased_now(store)
        await store.control.put_back(
            turn.turn_id, leased.token, what=Event.REQUEUE, reason="owner_died"
        )
        asked = await store.control.cancel(turn.turn_id)
        assert (asked.state, asked.outcome, asked.abort_requested) == ("accepted", None, True)
        leased = await leased_now(store)
        assert await store.control.aborts(store.owner.owner_id) == {turn.turn_id: "cancelled"}
        assert leased.turn.abort_requested
