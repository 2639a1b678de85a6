"""Clauses about ends that are asked for: pre-emption, cancel; and about a key that is reset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast._core.turns import Event
from holdfast.errors import AbortedError, NotFoundError, RejectedError
from holdfast.testing._conform import (
    KEY,
    abort_of,
    admit,
    asked_for,
    booked,
    clause,
    leased_now,
    opened,
    pick,
    refused,
)
from holdfast.types import ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store
    from holdfast.types import Leased, Turn

__all__: list[str] = []  # What it has to say is in the suite already.

HEARTBEAT: dict[str, Any] = {"lane": "heartbeat", "priority": 20}


# --------------------------------------------------------------------------- pre-emption


async def beats(store: Store, **changes: Any) -> Leased:
    turn = await admit(store, **{**HEARTBEAT, **changes})
    leased = await pick(store, session_id=turn.session_id)
    assert leased is not None
    return leased


@clause
async def a_persons_message_pre_empts_a_heartbeat(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        for n, policy in enumerate(["enqueue", "collect", "interrupt", "rollback"]):
            key = f"agent:main:s{n}"
            leased = await beats(store, session_key=key)
            await admit(store, session_key=key, policy=policy, quiet_ms=1)
            reason = {"interrupt": "interrupted", "rollback": "rolled_back"}
            assert await abort_of(store, leased) == reason.get(policy, "preempted")
            await store.control.end(
                leased.turn.turn_id, leased.token, "cancelled", "preempted", None
            )


@clause
async def only_a_person_pre_empts_and_only_a_heartbeat(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        leased = await beats(store)
        for lane in ("heartbeat", "maintenance", "cron", "subagent"):
            await admit(store, lane=lane)
        await admit(store, policy="steer")
        assert await abort_of(store, leased) is None
        await admit(store, lane="vip")
        assert await abort_of(store, leased) == "preempted"
        await admit(store, lane="cron", session_key="agent:main:other")
        running = await leased_now(store)
        assert running.turn.lane == "cron"
        await admit(store, session_key="agent:main:other")
        assert await abort_of(store, running) is None


@clause
async def a_bound_heartbeat_is_not_pre_empted(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store, **HEARTBEAT, home=store.owner.owner_id, bound=True)
        leased = await pick(store, only=turn.turn_id)
        assert leased is not None
        await admit(store)
        assert await abort_of(store, leased) is None


@clause
async def a_heartbeat_whose_tool_has_no_replay_finishes(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        for replay, reason in (("never", None), ("safe", "preempted")):
            key = f"agent:main:{replay}"
            leased = await beats(store, session_key=key)
            call = ToolCall("c1", "send", {}, replay)  # type: ignore[arg-type]
            await store.control.begin_tool(leased.turn.turn_id, leased.token, call, "r1")
            await admit(store, session_key=key)
            assert await abort_of(store, leased) == reason
            await store.control.end(leased.turn.turn_id, leased.token, "failed", None, None)


@clause
async def a_pre_empted_heartbeat_begins_no_tool_without_replay(
    make: Callable[[], Store],
) -> None:
    async with opened(make) as [store]:
        leased = await beats(store)
        await admit(store)
        call = ToolCall("c1", "send", {}, "never")
        begin = store.control.begin_tool(leased.turn.turn_id, leased.token, call, "r1")
        await refused(AbortedError, begin)
        assert await store.control.tool_calls(leased.turn.turn_id) == []


@clause
async def a_heartbeat_is_pre_empted_twice_in_a_row_at_most(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:

        async def beat(reason: str) -> str | None:
            """A heartbeat, a person's message, and the ends of both."""
            leased = await beats(store)
            await admit(store)
            await admit(store)  # One more pre-empts no further.
            asked = await abort_of(store, leased)
            turn, token = leased.turn.turn_id, leased.token
            await store.control.end(turn, token, "cancelled", reason, None)
            for _ in range(2):
                await booked(store, await leased_now(store))
            return asked

        assert [await beat("preempted") for _ in range(3)] == ["preempted"] * 2 + [None]
        assert await beat("cancelled") is None, "the one before was told to be pre-empted"
        assert await beat("preempted") == "preempted", "one has ended otherwise since"
        leased = await beats(store)
        await booked(store, leased)
        assert [await beat("preempted") for _ in range(3)] == ["preempted"] * 2 + [None]


@clause
async def only_a_heartbeat_that_had_its_run_ends_the_row(make: Callable[[], Store]) -> None:
    """One that is delivered late, or withdrawn while it waits, does not."""
    async with opened(make) as [store]:

        async def pressed() -> str | None:
            leased = await beats(store)
            await admit(store)
            asked = await abort_of(store, leased)
            turn, token = leased.turn.turn_id, leased.token
            await store.control.end(turn, token, "cancelled", "preempted", None)
            await booked(store, await leased_now(store))
            return asked

        control, me = store.control, store.owner.owner_id
        late = await booked(store, await beats(store, target="hook:ann", part_chars=100))
        assert late.state == "committed"
        assert await pressed() == "preempted"
        part = await control.next_delivery(me, ["hook"])
        assert part is not None
        await control.settle_delivery(part.delivery_id, me, "delivered")
        assert (await control.turn(late.turn_id)).state == "done"
        assert await pressed() == "preempted"
        leased = await beats(store)
        withdrawn = await admit(store, **HEARTBEAT)
        assert (await control.cancel(withdrawn.turn_id)).outcome == "cancelled"
        await admit(store)
        assert await abort_of(store, leased) is None, "two were pre-empted in a row"


# ------------------------------------------------------------------------------- cancel


@clause
async def a_turn_ends_for_the_reason_that_was_asked_for(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        waiting = await admit(store)
        ended = await store.control.cancel(waiting.turn_id, rollback=True)
        assert (ended.outcome, ended.reason) == ("cancelled", "rolled_back")
        turn = await admit(store)
        leased = await leased_now(store)
        asked = await store.control.cancel(turn.turn_id, reason="no_progress")
        assert (asked.state, asked.abort_reason) == ("running", "no_progress")
        await store.control.put_back(
            turn.turn_id, leased.token, what=Event.REQUEUE, reason="no_progress"
        )
        again = await leased_now(store)
        assert not again.turn.abort_requested, "it went back, which was all that was wanted"
        await refused(NotFoundError, store.control.cancel(asked_for().turn_id))


@clause
async def what_is_to_go_back_and_waits_already_stays(make: Callable[[], Store]) -> None:
    """Who asks may be late: the run that it saw is over."""
    async with opened(make) as [store]:
        turn = await admit(store)
        for reason in ("no_progress", "handed_over"):
            left = await store.control.cancel(turn.turn_id, reason=reason)
            assert (left.state, left.abort_requested) == ("accepted", False)


@clause
async def what_a_running_host_may_be_taking_is_not_rolled_back_at_once(
    make: Callable[[], Store],
) -> None:
    """Its question may be written down at this moment: an entry has to end it, and will."""
    async with opened(make) as [store]:
        await admit(store)
        host = await leased_now(store)
        steered = [await admit(store, policy="steer") for _ in range(2)]
        assert {turn.host for turn in steered} == {host.turn.turn_id}
        left = await store.control.cancel(steered[0].turn_id, rollback=True)
        assert (left.state, left.abort_reason) == ("accepted", "rolled_back")
        gone = await store.control.cancel(steered[1].turn_id)
        assert (gone.outcome, gone.reason) == ("cancelled", "cancelled")
        await booked(store, host)
        again = await leased_now(store)
        assert again.turn.turn_id == left.turn_id
        assert await abort_of(store, again) == "rolled_back"


@clause
async def a_committed_turn_is_not_rolled_back(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        await admit(store)
        done = await booked(store, await leased_now(store))
        await refused(RejectedError, store.control.cancel(done.turn_id, rollback=True))
        assert await store.control.turn(done.turn_id) == done
        assert await store.control.cancel(done.turn_id) == done
        waiting = await admit(store)
        ended = await store.control.cancel(waiting.turn_id)
        assert await store.control.cancel(waiting.turn_id, rollback=True) == ended


async def keys_of(store: Store, turn: Turn) -> list[str]:
    found: list[str] = (await store.control.session_facts(turn.session_id))["keys"]
    return found


@clause
async def a_key_that_is_reset_names_a_new_session(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        await a.control.make_alias("agent:main:alias", KEY)
        runs = await admit(a, "runs")
        leased = await leased_now(a)
        waits = [await admit(b, str(n)) for n in range(2)]
        reset = await b.control.reset("agent:main:alias")
        assert reset.old.session_id == runs.session_id != reset.new.session_id
        assert (reset.new.agent_id, reset.new.end_offset) == ("main", 0)
        assert reset.moved == tuple(turn.turn_id for turn in waits)
        assert reset.stayed == (runs.turn_id,)
        assert await a.control.session_of_key(KEY) == reset.new
        assert await a.control.session(reset.old.session_id) == reset.old
        assert (await admit(a)).session_id == reset.new.session_id
        assert await keys_of(a, runs) == []
        done = await booked(a, leased)  # It ends where it began.
        assert done.session_id == reset.old.session_id
        for turn in waits:
            leased = await leased_now(b)
            assert leased.turn.turn_id == turn.turn_id, "not in the order of admission"
            assert leased.session == reset.new
            await b.control.end(leased.turn.turn_id, leased.token, "silent", None, None)


@clause
async def a_reset_of_a_key_that_nobody_has_is_refused(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        await refused(NotFoundError, store.control.reset(KEY))
        assert (await store.control.counts()).sessions == 0


@clause
async def a_reset_session_runs_while_the_old_one_still_does(
    make: Callable[[], Store],
) -> None:
    async with opened(make) as [store]:
        await admit(store, idempotency_key="k")
        old = await leased_now(store)
        back = await admit(store)
        await store.control.reset(KEY)
        assert (await leased_now(store)).turn.turn_id == back.turn_id
        again = await store.control.admit(asked_for(idempotency_key="k"), ())
        assert again.turn.turn_id == old.turn.turn_id, "its receipt is its key's"


@clause
async def a_turn_that_has_started_stays_at_a_reset(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store)
        leased = await leased_now(store)
        await store.control.put_back(
            turn.turn_id, leased.token, what=Event.REQUEUE, reason="owner_died"
        )
        reset = await store.control.reset(KEY)
        assert (reset.moved, reset.stayed) == ((), (turn.turn_id,))
        again = await leased_now(store)
        assert (again.turn.turn_id, again.session) == (turn.turn_id, reset.old)


@clause
async def who_was_asked_to_end_and_why_is_told(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        leased = await beats(store)
        late = await admit(store)
        await store.control.cancel(leased.turn.turn_id)
        reset = await store.control.reset(KEY)
        kinds = ["abort_requested", "preempted", "reset"]
        told = await store.control.events(kinds=kinds)
        assert [(each.kind, each.lane) for each in told] == [
            ("abort_requested", "heartbeat"), ("preempted", "heartbeat"),
            ("abort_requested", "heartbeat"), ("reset", None),
        ]  # fmt: skip
        assert [each.data.get("reason") for each in told] == [
            "preempted", None, "cancelled", None,
        ]  # fmt: skip
        assert told[1].data["by"] == late.turn_id
        assert told[3].session_id == reset.old.session_id
        assert told[3].data["new"] == reset.new.session_id
