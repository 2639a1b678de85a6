"""The in-process stand-in plays its acts, one list a prompt, and keeps what it was asked."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from holdfast.errors import FencedError, ProviderError
from holdfast.ports import Agent
from holdfast.testing.scripted import Call, Fail, Quiet, Say, ScriptedModel
from holdfast.types import AgentEvent, Final, Made, Prompt, Silent, Steered, Text, ToolCall


def prompt(text: str = "hi", **given: Any) -> Prompt:
    return Prompt(
        turn_id="t1",
        session_id="s1",
        session_key="agent:main:main",
        agent_id="main",
        lane="main",
        source="test",
        text=text,
        history=(),
        attempt=1,
        **given,
    )


class Hook:
    """Lets every call through; gives out *steered*, one list each time it is asked."""

    def __init__(self, *steered: list[Steered]) -> None:
        self._steered = list(steered)

    async def __call__(self, call: ToolCall, run: Any) -> Any:
        return await run()

    async def steered(self) -> list[Steered]:
        return self._steered.pop(0) if self._steered else []


async def ask(model: ScriptedModel, asked: Prompt, hook: Any = None) -> list[AgentEvent]:
    async with aclosing(model.respond(asked, hook or Hook())) as events:
        return [event async for event in events]


def text_of(events: list[AgentEvent]) -> str:
    assert isinstance(events[-1], Final)
    return events[-1].text


async def test_lists_in_order_keys_first_then_the_echo() -> None:
    model = ScriptedModel([Say(("one",))], [Quiet("resting")])
    assert isinstance(model, Agent)
    model.on("beta", Say(("b",), stop="length"))
    assert text_of(await ask(model, prompt("alpha"))) == "one"
    *_, final = await ask(model, prompt("the beta"))
    assert isinstance(final, Final)
    assert (final.text, final.message["stopReason"]) == ("b", "length")
    assert await ask(model, prompt("gamma")) == [Silent(reason="resting")]
    assert text_of(await ask(model, prompt("delta"))) == "reply to: delta"
    assert [p.text for p in model.prompts] == ["alpha", "the beta", "gamma", "delta"]
    assert model.abandoned == 0


async def test_a_failure_comes_after_its_tokens() -> None:
    model = ScriptedModel([Fail(ProviderError(reason="timeout", detail="x"), ("a", "b"))])
    got = []
    with pytest.raises(ProviderError):
        async for event in model.respond(prompt(), Hook()):
            got.append(event)
    assert got == [Text("a"), Text("b")]


async def test_a_call_goes_through_the_hook_and_not_twice() -> None:
    ran = []

    async def add() -> int:
        ran.append(1)
        return 5

    acts = [Call("add", add, {"a": 2}, replay="safe"), Say(("five",))]
    model = ScriptedModel(list(acts), list(acts), list(acts))
    asked, result, *_ = await ask(model, prompt())
    assert isinstance(asked, Made)
    assert isinstance(result, Made)
    assert result.message["content"] == [{"type": "text", "text": "5"}]
    again = await ask(model, prompt(made=(asked.message, result.message)))
    assert text_of(again) == "five"
    assert ran == [1]

    async def refuse(call: ToolCall, run: Any) -> Any:
        raise FencedError(session_id="s1", token=1, newest=2)

    with pytest.raises(FencedError):
        await ask(model, prompt(), refuse)
    assert ran == [1]
    assert model.abandoned == 1


async def test_a_call_without_its_result_is_made_without_saying_so_again() -> None:
    ran = []

    async def add() -> int:
        ran.append(1)
        return 5

    acts = [Call("add", add), Call("add", add, call_id="call_2"), Say(("ten",))]
    model = ScriptedModel(list(acts), list(acts))
    first, result, second, *_ = await ask(model, prompt())
    assert isinstance(first, Made)
    assert isinstance(result, Made)
    assert isinstance(second, Made)
    ran.clear()
    made = (first.message, result.message, second.message)
    again, *rest = await ask(model, prompt(made=made))
    assert isinstance(again, Made)
    assert again.message["toolCallId"] == "call_2"
    assert text_of(rest) == "ten"
    assert ran == [1]


async def test_what_was_steered_in_is_asked_for_behind_each_call() -> None:
    async def add() -> int:
        return 5

    acts = [Call("add", add), Call("add", add, call_id="call_2"), Say(("ten",))]
    one, two = Steered("t2", "one"), Steered("t3", "two")
    model = ScriptedModel(acts)
    await ask(model, prompt(), Hook([one, two], []))
    assert model.steered == [one, two]


async def test_a_gate_holds_each_token_and_leaving_is_counted() -> None:
    reached, opened = asyncio.Event(), asyncio.Event()

    async def gate(asked: Prompt, count: int) -> None:
        if count == 1:
            reached.set()
            await opened.wait()

    model = ScriptedModel([Say(("a", "b"))], [Say(("a", "b"))], gate=gate)
    for leave in (True, False):
        task = asyncio.create_task(ask(model, prompt()))
        await reached.wait()
        if leave:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            reached.clear()
    opened.set()
    assert text_of(await task) == "ab"
    assert model.abandoned == 1
