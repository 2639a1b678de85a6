"""Clauses about what a running turn makes: messages, and tool calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast._core.turns import Event
from holdfast.errors import AbortedError, BadRequestError, LeaseLostError
from holdfast.testing._conform import COMMIT, admit, clause, leased_now, opened, refused
from holdfast.types import MadeEntry, ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store
    from holdfast.types import Leased, Replay, ToolRecord

__all__: list[str] = []  # What it has to say is in the suite already.


def made(entry_id: str, **message: Any) -> MadeEntry:
    return MadeEntry(entry_id, {"role": "assistant", "content": [], **message})


def tool(call_id: str = "c1", replay: Replay = "never", **arguments: Any) -> ToolCall:
    return ToolCall(call_id=call_id, name="pay", arguments=arguments, replay=replay)


async def begin(store: Store, leased: Leased, call: ToolCall, result_id: str) -> ToolRecord:
    turn_id = leased.turn.turn_id
    return await store.control.begin_tool(turn_id, leased.token, call, result_id)


async def end(
    store: Store, leased: Leased, call_id: str, state: str = "done", result: bytes = b"1"
) -> None:
    turn_id = leased.turn.turn_id
    await store.control.end_tool(turn_id, leased.token, call_id, state, result)


async def leased_again(store: Store, leased: Leased, reason: str = "owner_died") -> Leased:
    """The next attempt of the same turn, under a later token."""
    await store.control.put_back(
        leased.turn.turn_id, leased.token, what=Event.REQUEUE, reason=reason
    )
    return await leased_now(store)


@clause
async def what_was_made_is_there_for_the_next_run(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turn = await admit(a)
        leased = await leased_now(a)
        first, second = made("e1", n="half a \ud800 pair"), made("e2", role="toolResult")
        await a.control.add_made(turn.turn_id, leased.token, [first, second])
        await a.control.add_made(turn.turn_id, leased.token, [made("e3", role="user")])
        again = await leased_again(a, leased)
        found = await b.control.made(turn.turn_id)
        assert [each.entry_id for each in found] == ["e1", "e2", "e3"]
        assert found[:2] == [first, second]
        assert again.turn.turn_id == turn.turn_id


@clause
async def an_entry_is_made_once(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store)
        token = (await leased_now(store)).token
        await store.control.add_made(turn.turn_id, token, [made("e1", n=1), made("e2")])
        await store.control.add_made(turn.turn_id, token, [made("e1", n=2), made("e3")])
        found = await store.control.made(turn.turn_id)
        assert [each.entry_id for each in found] == ["e1", "e2", "e3"]
        assert found[0].message["n"] == 1, "what was durable has changed"


@clause
async def what_was_made_goes_with_the_outcome_and_tool_calls_stay(
    make: Callable[[], Store],
) -> None:
    async with opened(make) as [store]:
        for ends in ("committed", "failed"):
            turn = await admit(store, ends)
            leased = await leased_now(store)
            await store.control.add_made(turn.turn_id, leased.token, [made("e1")])
            await begin(store, leased, tool(), "r1")
            if ends == "committed":
                await store.control.commit(turn.turn_id, leased.token, COMMIT)
            else:
                await store.control.end(turn.turn_id, leased.token, "failed", None, None)
            assert await store.control.made(turn.turn_id) == []
            (call,) = await store.control.tool_calls(turn.turn_id)
            assert (call.call_id, call.state) == ("c1", "interrupted")
            assert call.ended_at is not None


@clause
async def an_old_token_makes_nothing(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [old, reaper]:
        turn = await admit(old)
        leased = await leased_now(old)
        await begin(old, leased, tool("c1"), "r1")
        me = reaper.owner.owner_id
        await reaper.control.take_over(turn.session_id, leased.token, me)
        control = old.control
        add = control.add_made(turn.turn_id, leased.token, [made("e1")])
        for call in (
            add, begin(old, leased, tool("c2"), "r2"), end(old, leased, "c1"),
        ):  # fmt: skip
            await refused(LeaseLostError, call)
        assert await control.made(turn.turn_id) == []
        assert [t.state for t in await control.tool_calls(turn.turn_id)] == ["started"]


@clause
async def an_intent_and_its_result_are_there_for_everybody(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turn = await admit(a)
        leased = await leased_now(a)
        begun = await begin(a, leased, tool("c1", "safe", sum=3), "r1")
        [seen] = await b.control.tool_calls(turn.turn_id)
        assert seen == begun
        assert (seen.state, seen.result_id, seen.name) == ("started", "r1", "pay")
        assert (seen.arguments, seen.replay, seen.token) == ({"sum": 3}, "safe", leased.token)
        assert (seen.runs, seen.result, seen.ended_at) == (1, None, None)
        await end(a, leased, "c1", result=b'{"paid": [1, null]}')
        await begin(a, leased, tool("c2"), "r2")
        await end(a, leased, "c2", "failed", b'"no"')
        first, second = await b.control.tool_calls(turn.turn_id)
        assert (first.state, first.result) == ("done", {"paid": [1, None]})
        assert (second.state, second.result) == ("failed", "no")
        assert first.ended_at is not None


@clause
async def a_call_that_ended_is_told_and_not_begun_again(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        await admit(store)
        leased = await leased_now(store)
        for state in ("done", "failed"):
            await begin(store, leased, tool(state), "r1")
            await end(store, leased, state, state, b'"said"')
            assert (await begin(store, leased, tool(state), "r2")).state == state
        leased = await leased_again(store, leased)
        for state in ("done", "failed"):
            told = await begin(store, leased, tool(state, "safe"), "r3")
            assert (told.state, told.result, told.runs) == (state, "said", 1)
            assert told.result_id == "r1", "its result's entry has another id now"


@clause
async def after_a_crash_safe_runs_again_and_never_is_interrupted(
    make: Callable[[], Store],
) -> None:
    async with opened(make) as [store]:
        turn = await admit(store)
        leased = await leased_now(store)
        await begin(store, leased, tool("s", "safe"), "r1")
        await begin(store, leased, tool("n"), "r2")
        for runs in (2, 3):
            leased = await leased_again(store, leased)
            told = await begin(store, leased, tool("s", "safe"), "other")
            assert (told.state, told.runs, told.result_id) == ("started", runs, "r1")
            assert told.token == leased.token
            told = await begin(store, leased, tool("n"), "other")
            assert (told.state, told.runs, told.result_id) == ("interrupted", 1, "r2")
            assert told.ended_at is not None
        await end(store, leased, "s")
        found = await store.control.tool_calls(turn.turn_id)
        assert [each.state for each in found] == ["done", "interrupted"]


@clause
async def a_tool_that_is_safe_no_more_is_not_run_again(make: Callable[[], Store]) -> None:
    """Declared anew between two attempts, either way: the careful word counts."""
    async with opened(make) as [store]:
        await admit(store)
        leased = await leased_now(store)
        await begin(store, leased, tool("a", "safe"), "r1")
        await begin(store, leased, tool("b", "never"), "r2")
        leased = await leased_again(store, leased)
        for call in (tool("a", "never"), tool("b", "safe")):
            assert (await begin(store, leased, call, "r")).state == "interrupted"


@clause
async def two_calls_with_one_id_are_refused(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store)
        leased = await leased_now(store)
        await begin(store, leased, tool("c1", "safe"), "r1")
        await refused(BadRequestError, begin(store, leased, tool("c1", "safe"), "r2"))
        await end(store, leased, "c1")
        other = ToolCall(call_id="c1", name="refund", arguments={})
        for call in (tool("c1", sum=4), other):
            await refused(BadRequestError, begin(store, leased, call, "r2"))
        [found] = await store.control.tool_calls(turn.turn_id)
        assert (found.result_id, found.state) == ("r1", "done")


@clause
async def a_turn_that_is_to_end_begins_no_tool(make: Callable[[], Store]) -> None:
    """Whether a tool ran or the turn was stopped first is decided by one transaction."""
    async with opened(make) as [store]:
        turn = await admit(store)
        leased = await leased_now(store)
        await begin(store, leased, tool("done"), "r1")
        await end(store, leased, "done")
        await begin(store, leased, tool("running"), "r2")
        await store.control.cancel(turn.turn_id)
        for replay in ("never", "safe"):
            call = tool(f"new {replay}", replay)
            error = await refused(AbortedError, begin(store, leased, call, "r3"))
            assert error.reason == "cancelled"
        assert (await begin(store, leased, tool("done"), "r")).state == "done"
        await end(store, leased, "running", result=b'"effect"')
        found = await store.control.tool_calls(turn.turn_id)
        assert [each.call_id for each in found] == ["done", "running"]
