"""Clauses about what a new message does to a busy session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast._core.settings import LANES
from holdfast._core.turns import Event
from holdfast.errors import NotFoundError, QueueFullError, RejectedError
from holdfast.testing._conform import (
    abort_of,
    admit,
    asked_for,
    clause,
    clock_clause,
    leased_now,
    opened,
    pick,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store
    from holdfast.testing._conform import Step

__all__: list[str] = []  # What it has to say is in the suite already.

HOUR_MS = 3_600_000

QUIET: dict[str, Any] = {"policy": "collect", "quiet_ms": HOUR_MS, "collect_max": 3}
BRIEF: dict[str, Any] = {**QUIET, "quiet_ms": 2_000}


# ------------------------------------------------------------------- enqueue and reject


@clause
async def enqueue_changes_nothing_for_who_runs(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        await admit(store)
        leased = await leased_now(store)
        turn = await admit(store)
        assert (turn.host, turn.hosted, turn.not_before_ms) == (None, False, 0)
        assert await abort_of(store, leased) is None


@clause
async def reject_refuses_while_others_are_merged(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        await admit(store)
        await leased_now(store)
        await admit(store, policy="steer")
        await refused(RejectedError, store.control.admit(asked_for(policy="reject"), ()))
        await admit(store, policy="reject", session_key="agent:main:other")


@clause
async def the_bound_of_a_queue_counts_who_is_to_be_merged(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        await admit(store)
        await leased_now(store)
        for policy in ("steer", "enqueue"):
            await admit(store, policy=policy, queue_max=2)
        for policy in ("steer", "collect", "interrupt", "rollback", "enqueue"):
            asked = asked_for(policy=policy, queue_max=2, collect_max=10)
            await refused(QueueFullError, store.control.admit(asked, ()))
            await refused(NotFoundError, store.control.turn(asked.turn_id))
        assert await store.control.aborts(store.owner.owner_id) == {}, "it left a trace"


# ------------------------------------------------------------------------------ collect


@clause
async def collect_makes_a_burst_one_turn(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        first = await admit(a, "1", **QUIET)
        assert (first.host, first.not_before_ms - first.accepted_ms) == (None, HOUR_MS)
        rest = [await admit(b, text, **QUIET) for text in "23"]
        for turn in rest:
            assert (turn.host, turn.hosted, turn.state) == (first.turn_id, True, "accepted")
        assert a.control.hosted(first.turn_id) == rest
        fourth = await admit(a, "4", **QUIET)
        assert fourth.host is None, "more than collect_max"
        assert (await admit(b, "5", **QUIET)).host == fourth.turn_id
        assert await pick(a) is None, "it is not quiet yet"
        place = await a.control.place(first.turn_id, LANES)
        assert (place.position, place.waiting_for) == (0, "quiet")
        assert 0 < place.left_ms <= HOUR_MS
        place = await a.control.place(rest[0].turn_id, LANES)
        assert (place.waiting_for, place.blocker) == ("merge", first.turn_id)


@clause
async def a_burst_is_of_one_sender_in_one_lane_to_one_target(
    make: Callable[[], Store],
) -> None:
    async with opened(make) as [store]:
        same = {**QUIET, "sender": "ann", "target": "chat:1", "model": "m"}
        others: list[dict[str, Any]] = [
            {"lane": "vip"}, {"sender": "bob"}, {"sender": None}, {"target": "chat:2"},
            {"model": "other"}, {"instructions": "be brief"}, {"seed": b"[]"},
            {"home": store.owner.owner_id, "bound": True}, {"policy": "enqueue"},
        ]  # fmt: skip
        for n, changes in enumerate(others):
            key = f"agent:main:s{n}"
            first = await admit(store, session_key=key, **same)
            other = await admit(store, session_key=key, **{**same, **changes})
            assert other.host is None, changes
            again = await admit(store, session_key=key, **same)
            assert again.host is None, "a message of another kind stood between them"
            assert (await admit(store, session_key=key, **same)).host == again.turn_id
            assert store.control.hosted(first.turn_id) == []


@clause
async def a_burst_is_not_joined_once_it_has_started(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        joins = {**QUIET, "quiet_ms": 0}
        first = await admit(store, **joins)
        leased = await leased_now(store)
        second = await admit(store, **joins)
        assert second.host is None, "the session's turn runs already"
        assert (await admit(store, **joins)).host == second.turn_id
        await store.control.put_back(
            first.turn_id, leased.token, what=Event.REQUEUE, reason="owner_died"
        )
        await store.control.cancel(second.turn_id)
        for turn in await store.control.turns(state="accepted", after=second.admission):
            await store.control.cancel(turn.turn_id)
        assert (await admit(store, **joins)).host is None, "it has been run before"


@clause
async def a_burst_does_not_pass_what_was_steered_into_another_turn(
    make: Callable[[], Store],
) -> None:
    async with opened(make) as [store]:
        await admit(store, "running")
        await leased_now(store)
        first = await admit(store, "a", **QUIET)
        steered = await admit(store, "s", policy="steer")
        assert steered.host is not None
        second = await admit(store, "b", **QUIET)
        assert (first.host, second.host) == (None, None), "the steered one may come back"


@clause
async def a_system_lane_collects_nobody(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        for _ in range(2):
            turn = await admit(store, **{**QUIET, "lane": "cron"})
            assert (turn.host, turn.not_before_ms - turn.accepted_ms) == (None, HOUR_MS)
        burst = await admit(store, **QUIET)
        await admit(store, lane="heartbeat", priority=20)
        assert (await admit(store, **QUIET)).host == burst.turn_id, "no person stands between"


@clock_clause
async def a_burst_runs_once_it_was_quiet(make: Callable[[], Store], step: Step) -> None:
    async with opened(make) as [store]:
        first = await admit(store, **BRIEF)
        step(1_500)
        second = await admit(store, **BRIEF)
        moved = await store.control.turn(first.turn_id)
        assert moved.not_before_ms == second.accepted_ms + 2_000
        step(1_999)
        assert await pick(store) is None
        step(1)
        leased = await leased_now(store)
        assert leased.turn.turn_id == first.turn_id
        assert [turn.turn_id for turn in leased.merges] == [second.turn_id]


@clock_clause
async def a_burst_that_never_ends_is_run_after_ten_windows(
    make: Callable[[], Store], step: Step
) -> None:
    async with opened(make) as [store]:
        first = await admit(store, **{**BRIEF, "collect_max": 100})
        for _ in range(19):
            step(1_000)
            assert await pick(store) is None
            await admit(store, **{**BRIEF, "collect_max": 100, "queue_max": 100})
        moved = await store.control.turn(first.turn_id)
        assert moved.not_before_ms == first.accepted_ms + 20_000
        step(1_000)
        assert len((await leased_now(store)).merges) == 19


@clock_clause
async def a_quiet_window_survives_a_restart(make: Callable[[], Store], step: Step) -> None:
    async with opened(make) as [store]:
        await admit(store, **BRIEF)
    async with opened(make) as [again]:
        step(1_000)
        assert await pick(again) is None
        step(1_000)
        assert await pick(again) is not None


# -------------------------------------------------------------------------------- steer


@clause
async def steer_goes_into_the_running_turn(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        await admit(a)
        leased = await leased_now(a)
        waiting = await admit(a)
        steered = [await admit(b, policy="steer") for _ in range(2)]
        for turn in steered:
            assert (turn.host, turn.hosted) == (leased.turn.turn_id, True)
            place = await a.control.place(turn.turn_id, LANES)
            assert (place.waiting_for, place.blocker) == ("merge", leased.turn.turn_id)
        assert a.control.hosted(leased.turn.turn_id) == steered
        assert await abort_of(a, leased) is None
        assert (await a.control.place(waiting.turn_id, LANES)).position == 1


@clause
async def steer_waits_like_any_message_if_nobody_can_take_it(
    make: Callable[[], Store],
) -> None:
    async with opened(make, 2) as [a, b]:
        idle = await admit(a, policy="steer")
        assert (idle.host, idle.hosted, idle.not_before_ms) == (None, False, 0)
        assert (await admit(a, policy="steer")).host is None, "who waits takes no steer"
        leased = await leased_now(a)
        await a.control.cancel(leased.turn.turn_id)
        assert (await admit(a, policy="steer")).host is None, "it is about to end"
        other = await admit(b, session_key="agent:main:other")
        leased = await leased_now(b)
        await a.control.take_over(other.session_id, leased.token, a.owner.owner_id)
        late = await admit(b, policy="steer", session_key="agent:main:other")
        assert late.host is None, "its attempt is being ended"


@clause
async def a_bound_message_is_merged_into_nothing(make: Callable[[], Store]) -> None:
    """Its sender brings its own loop, and waits for its own lease."""
    async with opened(make) as [store]:
        await admit(store)
        await leased_now(store)
        mine: dict[str, Any] = {"home": store.owner.owner_id, "bound": True}
        for policy in ("steer", "collect", "collect"):
            turn = await admit(store, **{**QUIET, "policy": policy, **mine})
            assert (turn.host, turn.hosted) == (None, False), policy


# -------------------------------------------------------------- interrupt and rollback


@clause
async def interrupt_and_rollback_end_the_running_turn(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        for n, (policy, reason) in enumerate(
            [("interrupt", "interrupted"), ("rollback", "rolled_back")]
        ):
            key = f"agent:main:s{n}"
            await admit(store, session_key=key)
            leased = await leased_now(store)
            waiting = await admit(store, "waiting", session_key=key)
            late = await admit(store, "late", policy=policy, session_key=key)
            assert await abort_of(store, leased) == reason
            assert (late.host, late.not_before_ms) == (None, 0)
            assert not (await store.control.turn(waiting.turn_id)).abort_requested
            await store.control.end(
                leased.turn.turn_id, leased.token, "cancelled", reason, None
            )
            assert (await leased_now(store)).turn.text == "waiting", "it overtakes nobody"


@clause
async def interrupt_ends_what_would_go_on_and_nothing_else(
    make: Callable[[], Store],
) -> None:
    """A turn whose attempt is being ended, or was, would run again before the message."""
    async with opened(make, 2) as [a, b]:
        for n, later in enumerate((False, True)):
            key = f"agent:main:s{n}"
            turn = await admit(a, session_key=key)
            await admit(a, policy="interrupt", session_key=key)
            assert not (await a.control.turn(turn.turn_id)).abort_requested, "it never ran"
            leased = await leased_now(a)
            token = await b.control.take_over(turn.session_id, leased.token, b.owner.owner_id)
            if later:
                await b.control.put_back(
                    turn.turn_id, token, what=Event.REQUEUE, reason="owner_died"
                )
            await admit(a, policy="interrupt", session_key=key)
            now = await a.control.turn(turn.turn_id)
            assert (now.abort_requested, now.abort_reason) == (True, "interrupted"), later
            waiting = await a.control.turns(session_id=turn.session_id)
            assert [each.abort_requested for each in waiting] == [True, False, False]


@clause
async def the_first_reason_to_end_a_turn_stays(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store)
        leased = await leased_now(store)
        await admit(store, policy="interrupt")
        await admit(store, policy="rollback")
        await store.control.cancel(turn.turn_id, reason="max_time")
        assert await abort_of(store, leased) == "interrupted"
        await store.control.cancel(turn.turn_id)
        assert await abort_of(store, leased) == "cancelled", "its sender says more"
        await admit(store, policy="interrupt")
        await store.control.cancel(turn.turn_id, rollback=True)
        assert await abort_of(store, leased) == "cancelled"


@clock_clause
async def how_long_an_end_was_wanted_counts_from_the_first_wish(
    make: Callable[[], Store], step: Step
) -> None:
    async with opened(make, 2) as [a, b]:
        turn = await admit(a)
        await leased_now(a)
        step(1_000)
        await admit(b, policy="interrupt")
        for reason in ("max_time", "cancelled"):
            step(1_500)
            await b.control.cancel(turn.turn_id, reason=reason)
        [held] = (await b.control.look(b.owner.owner_id)).leases
        assert held.abort_age_ms == 3_000
        seen = await a.control.turn(turn.turn_id)
        assert seen.abort_at_ms == turn.accepted_ms + 1_000
