"""
Every tool call is a memo: its intent is durable before it runs, its result before the agent
hears of it, and what ran to its end in one attempt is not run by the next.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast import _points
from holdfast._core.settings import Settings
from holdfast._core.turns import Event
from holdfast._runtime.made import MadeSoFar
from holdfast._runtime.tools import INTERRUPTED, Tools, recorded
from holdfast.backends.memory import MemoryStore, World
from holdfast.errors import (
    AbortedError,
    BadRequestError,
    FencedError,
    LeaseLostError,
    TooLargeError,
    ToolError,
    UnavailableError,
)
from holdfast.testing._conform import admit, leased_now
from holdfast.types import Leased, MadeEntry, Replay, Steered, ToolCall, ToolRecord


class Told:
    """What who watches live would see."""

    def __init__(self) -> None:
        self.states: list[str] = []

    def emit(self, event: str, **data: Any) -> None:
        assert event == "tool"
        self.states.append(data["state"])


class Case:
    """One turn, leased again and again."""

    def __init__(self, store: MemoryStore, leased: Leased) -> None:
        self.store, self.leased = store, leased
        self.told = Told()
        self.checks = 0
        self.ran: list[str] = []

    @property
    def turn_id(self) -> Any:
        return self.leased.turn.turn_id

    def check(self) -> None:
        self.checks += 1

    def tools(self, **more: Any) -> Tools:
        live: Any = self.told
        check = more.pop("check", self.check)
        token = self.leased.token
        return Tools(self.store.control, self.turn_id, token, check, live, **more)

    async def again(self) -> None:
        """Its owner died; the next attempt has a token of its own."""
        await self.store.control.put_back(
            self.turn_id, self.leased.token, what=Event.REQUEUE, reason="owner_died"
        )
        self.leased = await leased_now(self.store)

    async def rows(self) -> list[ToolRecord]:
        return await self.store.control.tool_calls(self.turn_id)

    def effect(self, result: Any = "paid") -> Callable[[], Any]:
        async def run() -> Any:
            self.ran.append("effect")
            if isinstance(result, BaseException):
                raise result
            return result

        return run

    async def torn_off(self, call: ToolCall, tools: Tools) -> None:
        """*call* has its effect, and is cancelled before it returns."""
        running = asyncio.Event()

        async def run() -> None:
            self.ran.append("effect")
            running.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(tools(call, run))
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.fixture
async def case() -> AsyncIterator[Case]:
    async with a_case() as one:
        yield one


@asynccontextmanager
async def a_case() -> AsyncIterator[Case]:
    store = MemoryStore(World(), Settings())
    await store.control.register(store.owner)
    await store.control.register_runner(store.owner.owner_id, ["main"], permanent=True)
    await admit(store)
    yield Case(store, await leased_now(store))
    await store.close()


def pay(call_id: str = "c1", replay: Replay = "never", **more: Any) -> ToolCall:
    arguments = more.pop("arguments", {"sum": 3})
    return ToolCall(call_id=call_id, name="pay", arguments=arguments, replay=replay, **more)


def asking(*call_ids: str) -> dict[str, Any]:
    blocks = [
        {"type": "toolCall", "id": each, "name": "pay", "arguments": {}} for each in call_ids
    ]
    return {"role": "assistant", "content": blocks}


def result(call_id: str, text: str = "paid") -> dict[str, Any]:
    return {"role": "toolResult", "toolCallId": call_id, "content": text}


# ------------------------------------------------------------------------ it runs once


async def test_the_intent_is_durable_before_it_runs_and_the_result_after(case: Case) -> None:
    seen: list[ToolRecord] = []

    async def run() -> list[int]:
        seen.extend(await case.rows())
        return [1]

    assert await case.tools()(pay(), run) == [1]
    [during], [after] = seen, await case.rows()
    assert (during.state, during.arguments, during.result) == ("started", {"sum": 3}, None)
    assert (after.state, after.result) == ("done", [1])
    assert case.told.states == ["started", "done"]


@pytest.mark.parametrize("replay", ["never", "safe"])
async def test_a_recorded_result_is_returned_without_running(
    case: Case, replay: Replay
) -> None:
    call = pay(replay=replay)
    tools = case.tools()
    first = await tools(call, case.effect({"n": 1}))
    assert await tools(call, case.effect("other")) == first, "asked again by the same run"
    await case.again()
    assert await case.tools()(call, case.effect("other")) == first
    assert case.ran == ["effect"]
    assert case.told.states == ["started", "done", "replayed", "replayed"]


async def test_after_a_crash_inside_never_is_interrupted_and_safe_runs_again(
    case: Case,
) -> None:
    for replay, runs, said in (("never", 1, INTERRUPTED), ("safe", 2, "paid")):
        call = pay(replay, replay)  # type: ignore[arg-type]
        await case.torn_off(call, case.tools())
        case.ran.clear()
        await case.again()
        for _ in range(2):
            assert await case.tools()(call, case.effect()) == said
            await case.again()
        row = (await case.rows())[-1]
        assert row.runs == runs
        assert len(case.ran) == runs - 1
    assert INTERRUPTED.startswith("interrupted, effect unknown")
    assert case.told.states == [
        "started", "interrupted", "interrupted", "interrupted",
        "started", "interrupted", "started", "done", "replayed",
    ]  # fmt: skip


async def test_a_call_cancelled_in_its_own_run_is_treated_as_after_a_crash(case: Case) -> None:
    """A provider fails while a tool runs beside it: the same run asks again, same token."""
    tools = case.tools()
    for replay, said in (("never", INTERRUPTED), ("safe", "paid")):
        call = pay(replay, replay)  # type: ignore[arg-type]
        await case.torn_off(call, tools)
        assert await tools(call, case.effect()) == said
        assert await tools(call, case.effect()) == said
    assert case.ran == ["effect", "effect", "effect"]


async def test_cancelled_before_its_intent_was_answered_it_is_told_apart_too(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = case.store.control.begin_tool

    async def begin_and_never_answer(*given: Any, **more: Any) -> None:
        await begin(*given, **more)
        raise asyncio.CancelledError

    tools = case.tools()
    with monkeypatch.context() as patch:
        patch.setattr(case.store.control, "begin_tool", begin_and_never_answer)
        with pytest.raises(asyncio.CancelledError):
            await tools(pay(), case.effect())
    assert await tools(pay(), case.effect()) == INTERRUPTED
    assert case.ran == []


# -------------------------------------------------------------------------- it failed


async def test_a_failure_is_recorded_and_raised_again_without_running(case: Case) -> None:
    bug = ZeroDivisionError("by zero")
    with pytest.raises(ZeroDivisionError) as caught:
        await case.tools()(pay(replay="safe"), case.effect(bug))
    assert caught.value is bug
    await case.again()
    with pytest.raises(ToolError) as again:
        await case.tools()(pay(replay="safe"), case.effect())
    assert (again.value.kind, again.value.detail) == ("ZeroDivisionError", "by zero")
    assert case.ran == ["effect"]
    assert case.told.states == ["started", "failed", "replayed"]


async def test_one_that_outlasted_its_bound_has_failed(case: Case) -> None:
    async def hang() -> None:
        case.ran.append("effect")
        await asyncio.Event().wait()

    call = pay(timeout_s=0.01)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await case.tools()(call, hang)
        await case.again()
    assert case.ran == ["effect"]


async def test_a_result_over_the_limit_has_failed_and_says_so_again(case: Case) -> None:
    """Its effect has taken place: it does not run again, and the row is small."""
    fits, over = "x" * (1_024 - 2), "x" * (1_024 - 1)
    assert await case.tools(result_bytes_max=1_024)(pay("fits"), case.effect(fits)) == fits
    for _ in range(2):
        with pytest.raises(TooLargeError) as refused:
            await case.tools(result_bytes_max=1_024)(pay("over"), case.effect(over))
        assert (refused.value.size, refused.value.limit) == (1_025, 1_024)
        assert "turn.tool_result_max_bytes" in refused.value.hint
        await case.again()
    assert case.ran == ["effect", "effect"]
    [_, row] = await case.rows()
    assert (row.state, row.result) == ("failed", {"error": "too_large", "detail": "1025"})


async def test_of_what_a_failed_tool_says_a_bounded_part_is_kept(case: Case) -> None:
    with pytest.raises(ValueError, match="x"):
        await case.tools()(pay(), case.effect(ValueError("x" * 1_000_000)))
    [row] = await case.rows()
    assert len(row.result["detail"]) == 10_000


async def test_a_timeout_of_the_tools_own_is_not_its_bound(case: Case) -> None:
    for kind in (TimeoutError, ToolError):
        with pytest.raises(kind):
            await case.tools()(pay(), case.effect(TimeoutError("its own")))
        await case.again()


async def test_a_result_that_could_not_be_kept_is_not_handed_on(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model must not go on after what nobody would know."""

    async def fail(*_: Any) -> None:
        raise UnavailableError(path="memory:", detail="the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(case.store.control, "end_tool", fail)
        for given in ("paid", ValueError("no")):
            with pytest.raises(UnavailableError):
                await case.tools()(pay(str(given)), case.effect(given))
    await case.again()
    assert await case.tools()(pay("paid"), case.effect()) == INTERRUPTED


# --------------------------------------------------------------------- the right to act


async def test_who_is_fenced_begins_nothing(case: Case) -> None:
    refusal = FencedError(session_id="s", token=1, newest=2)

    def refuse() -> None:
        raise refusal

    with pytest.raises(FencedError):
        await case.tools(check=refuse)(pay(), case.effect())
    assert (case.ran, await case.rows()) == ([], [])
    tools = case.tools()
    await case.again()
    with pytest.raises(LeaseLostError):
        await tools(pay(), case.effect())
    assert (case.ran, await case.rows()) == ([], [])


async def test_who_is_fenced_after_its_intent_does_not_run_it(case: Case) -> None:
    """Frozen between the two: its successor has told the model that it was interrupted."""

    def refuse_the_second() -> None:
        case.checks += 1
        if case.checks == 2:
            raise FencedError(session_id="s", token=1, newest=2)

    with pytest.raises(FencedError):
        await case.tools(check=refuse_the_second)(pay(), case.effect())
    assert case.ran == []
    assert [row.state for row in await case.rows()] == ["started"]


async def test_a_turn_that_is_to_end_starts_no_tool(case: Case) -> None:
    await case.store.control.cancel(case.turn_id)
    with pytest.raises(AbortedError):
        await case.tools()(pay(), case.effect())
    assert case.ran == []


async def test_one_id_for_two_running_calls_is_an_error_that_says_so(case: Case) -> None:
    tools, running, release = case.tools(), asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        running.set()
        await release.wait()
        return "paid"

    first = asyncio.create_task(tools(pay(), slow))
    await running.wait()
    with pytest.raises(BadRequestError, match="'c1' is another call's"):
        await tools(pay(), case.effect())
    release.set()
    assert await first == "paid"
    assert case.ran == []


async def test_the_tools_count_while_they_are_written_down(case: Case) -> None:
    """The store's time is not the model's: its idle bound stands still."""
    tools, told = case.tools(), list[bool]()
    tools.watched_by(told.append)
    counts: list[int] = []
    for point in ("tool.begun", "tool.ran", "tool.ended"):
        _points.install(point, lambda: counts.append(tools.running))
    try:
        await tools(pay(), case.effect())
    finally:
        for point in ("tool.begun", "tool.ran", "tool.ended"):
            _points.install(point, lambda: None)
    assert (counts, told, tools.running) == ([1, 1, 1], [True, False], 0)


# -------------------------------------------------------------------- what is recorded


@dataclass
class City:
    name: str


class Odd:
    def __str__(self) -> str:
        return "an odd one"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, None),
        ("text", "text"),
        ({"a": [1, 2.5, True]}, {"a": [1, 2.5, True]}),
        ((1, 2), [1, 2]),
        (City("Rome"), {"name": "Rome"}),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        (b"\x00\xff", "AP8="),
        (Odd(), "an odd one"),
        ([Odd()], None),
        (float("nan"), None),
        (1 << 80, None),
        ("half \ud800", "half \ud800"),
        ({"a": ["half \ud800"]}, {"a": ["half \ud800"]}),
    ],
)
async def test_json_of_what_it_returned_is_kept_or_its_text(
    case: Case, value: Any, kept: Any
) -> None:
    assert await case.tools()(pay(), case.effect(value)) is value, "what runs now is as it is"
    await case.again()
    found = await case.tools()(pay(), case.effect())
    if isinstance(value, list):
        kept = str(value)
    if isinstance(value, int) and value > 1:
        assert found in {value, str(value)}
    else:
        assert found == kept
    recorded(value).decode("utf-8")


async def test_arguments_are_kept_as_json_too(case: Case) -> None:
    call = pay(arguments={"when": datetime(2026, 1, 2, tzinfo=UTC), "half": "\ud800"})
    await case.tools()(call, case.effect())
    await case.again()
    assert await case.tools()(call, case.effect()) == "paid"
    assert case.ran == ["effect"]


# -------------------------------------------------------------- ids, within one turn


async def test_an_id_that_comes_again_in_a_later_message_is_another_call(case: Case) -> None:
    """Some models number their calls anew with each message."""
    tools = case.tools()
    tools.made.begin()
    for told in ("one", "two"):
        await tools.made.add(asking("call_0"))
        assert await tools(pay("call_0"), case.effect(told)) == told
        await tools.made.add(result("call_0", told))
    await tools.made.add(asking("call_0"))
    await case.torn_off(pay("call_0"), tools)
    assert len(case.ran) == 3
    await case.again()
    rows = await case.store.control.made(case.turn_id)
    tools = case.tools(made=rows)
    assert len(tools.made.begin()) == 5
    assert await tools(pay("call_0"), case.effect()) == INTERRUPTED
    assert [row.call_id for row in await case.rows()] == ["call_0", "call_0#2", "call_0#3"]
    assert len(case.ran) == 3


# ------------------------------------------------------------------------- what was made


def so_far(case: Case, made: Any = ()) -> MadeSoFar:
    return MadeSoFar(case.store.control, case.turn_id, case.leased.token, made)


async def rows_of(case: Case) -> list[MadeEntry]:
    return await case.store.control.made(case.turn_id)


async def test_a_message_is_durable_with_its_id_before_the_next(case: Case) -> None:
    made = so_far(case)
    assert made.begin() == ()
    await made.add(asking("c1"))
    assert await rows_of(case) == list(made.entries)
    made.expect("c1", "result-1")
    await made.add(result("c1"))
    assert await rows_of(case) == list(made.entries)
    assert made.entries[1].entry_id == "result-1"
    assert made.entries[0].entry_id != "result-1"


async def test_half_a_batch_is_held_back_and_comes_back_as_it_was(case: Case) -> None:
    made = so_far(case)
    made.begin()
    await made.add(asking("c1", "c2"))
    made.expect("c1", "result-1")
    await made.add(result("c1"))
    assert made.in_batch
    for _ in range(2):  # And again, if the next attempt dies at the same place.
        await case.again()
        before = await rows_of(case)
        made = so_far(case, before)
        assert made.begin() == (asking("c1", "c2"),)
        made.expect("c1", "result-1")
        await made.add(result("c1", "told again, at another time"))
        assert list(made.entries) == before
    made.expect("c2", "result-2")
    await made.add(result("c2"))
    assert not made.in_batch
    assert [e.entry_id for e in await rows_of(case)][1:] == ["result-1", "result-2"]
    assert made.begin() == made.messages, "a whole batch stays"


async def test_a_result_without_a_row_of_its_own_comes_back_once(case: Case) -> None:
    """Of a call that its agent refused before it came to the hook."""
    made = so_far(case)
    made.begin()
    await made.add(asking("bad", "c2"))
    await made.add(result("bad", "no such tool"))
    for _ in range(3):
        await case.again()
        made = so_far(case, await rows_of(case))
        made.begin()
        await made.add(result("bad", "no such tool"))
    assert len(await rows_of(case)) == 2
    await made.add(result("c2"))
    assert [e.message["role"] for e in await rows_of(case)] == [
        "assistant", "toolResult", "toolResult",
    ]  # fmt: skip


async def test_what_only_the_caller_knew_is_durable_with_the_first_message(case: Case) -> None:
    """Carried over by a version that kept no such rows."""
    carried = [MadeEntry("e1", asking("c1")), MadeEntry("e2", result("c1"))]
    made = so_far(case, carried)
    assert made.begin() == (asking("c1"), result("c1"))
    await made.add(asking("c2"))
    assert [e.entry_id for e in await rows_of(case)][:2] == ["e1", "e2"]
    assert len(await rows_of(case)) == 3


async def test_a_steered_message_ends_the_batch_before_it(case: Case) -> None:
    made = so_far(case)
    made.begin()
    await made.add(asking("c1"))
    await made.add(result("c1"))
    steered = MadeEntry("s1", {"role": "user", "content": "and hurry"})
    made.note([steered])
    assert not made.in_batch
    assert made.begin()[-1] == steered.message


async def test_steered_messages_are_not_taken_in_the_middle_of_a_batch(case: Case) -> None:
    given = [Steered("t2", "and hurry")]

    async def steered() -> list[Steered]:
        return given

    tools = case.tools(steered=steered)
    tools.made.begin()
    assert await tools.steered() == given
    await tools.made.add(asking("c1", "c2"))
    await tools.made.add(result("c1"))
    assert await tools.steered() == ()
    await tools.made.add(result("c2"))
    assert await tools.steered() == given
    assert await case.tools().steered() == ()


async def test_who_may_not_act_takes_no_steered_messages(case: Case) -> None:
    def refuse() -> None:
        raise FencedError(session_id="s", token=1, newest=2)

    async def steered() -> list[Steered]:
        raise AssertionError("asked")

    with pytest.raises(FencedError):
        await case.tools(check=refuse, steered=steered).steered()
