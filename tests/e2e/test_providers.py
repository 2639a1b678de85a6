"""
OpenAI, Anthropic and Google behind one agent: what is asked and answered is the same, in
whichever protocol it goes over the wire.  How each of them fails: `test_faults.py`.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager
from pathlib import Path
from typing import Any

import pydantic_ai
import pytest

import holdfast
from holdfast.agents.pydantic_ai import PydanticAgent
from holdfast.errors import ProviderError
from holdfast.lab.unhooked import Unhooked
from holdfast.testing import ModelServer, Step
from holdfast.types import AgentEvent, Final, Made, Prompt, Text
from support import oracle
from support.providers import MODELS, Make, making
from support.wire import told

KEY = "agent:main:main"

every_provider = pytest.mark.parametrize("provider", MODELS)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with ModelServer() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:
        yield making(stack)


def prompt(text: str = "hello there", **given: Any) -> Prompt:
    return Prompt(
        turn_id="t1",
        session_id="s1",
        session_key=KEY,
        agent_id="main",
        lane="main",
        source="test",
        text=text,
        history=given.pop("history", ()),
        attempt=1,
        **given,
    )


async def ask(agent: PydanticAgent, asked: Prompt) -> list[AgentEvent]:
    async with aclosing(agent.respond(asked, Unhooked())) as events:
        return [event async for event in events]


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# --------------------------------------------------------------------------- one answer


@every_provider
async def test_text_arrives_while_the_rest_is_not_said_yet(
    server: ModelServer, make: Make, provider: str
) -> None:
    held = server.hold(after=2)
    assert held.gate is not None
    async with aclosing(make(provider).respond(prompt(), Unhooked())) as events:
        assert [await anext(events), await anext(events)] == [Text("reply"), Text(" to:")]
        assert server.requests[0].end is None
        held.gate.set()
        *texts, final = [event async for event in events]
    assert texts == [Text(" hello"), Text(" there")]
    assert isinstance(final, Final)
    assert final.text == "reply to: hello there"
    message = dict(final.message)
    assert (message["provider"], message["model"]) == (provider, "scripted")
    assert (message["stopReason"], message["usage"]["output"]) == ("stop", 4)
    assert (server.requests[0].api, server.requests[0].model) == (provider, "m")


@every_provider
async def test_a_tool_call_and_its_result(
    server: ModelServer, make: Make, provider: str
) -> None:
    step = Step(tokens=("let me", " see"), tool="add", arguments={"a": 2, "b": 3}, fragments=4)
    server.add(step, Step.reply("five"))
    events = await ask(make(provider, tools=[add]), prompt("2 + 3?"))
    asked, result = (event for event in events if isinstance(event, Made))
    call = {"type": "toolCall", "id": "call_1", "name": "add", "arguments": {"a": 2, "b": 3}}
    assert asked.message["content"] == [{"type": "text", "text": "let me see"}, call]
    assert asked.message["stopReason"] == "toolUse"
    assert result.message["content"] == [{"type": "text", "text": "5"}]
    assert isinstance(events[-1], Final)
    assert told(server.requests[1]) == [
        [("user", "2 + 3?")],
        [("assistant", "let me see"), ("call", "call_1", "add", {"a": 2, "b": 3})],
        [("result", "call_1", "5")],
    ]


@every_provider
async def test_instructions_are_not_a_part_of_the_conversation(
    server: ModelServer, make: Make, provider: str
) -> None:
    await ask(make(provider, instructions="Be brief."), prompt("hello"))
    (received,) = server.requests
    assert told(received) == [[("user", "hello")]]
    assert "Be brief." in str(received.body)


@every_provider
async def test_a_turn_may_name_another_model(
    server: ModelServer, make: Make, provider: str
) -> None:
    name = MODELS[provider].partition(":")[0]
    await ask(make("test"), prompt(model=f"{name}:other-1"))
    assert (server.requests[0].api, server.requests[0].model) == (provider, "other-1")


@every_provider
async def test_it_works_again_after_aclose(
    server: ModelServer, make: Make, provider: str
) -> None:
    agent = make(provider)
    for _ in range(2):
        assert isinstance((await ask(agent, prompt()))[-1], Final)
        await agent.aclose()
    assert len(server.requests) == 2


# ---------------------------------------------------------------------- a conversation


@every_provider
async def test_the_next_turn_sends_the_history(
    tmp_path: Path, server: ModelServer, make: Make, provider: str
) -> None:
    server.add(Step.call("add", {"a": 2, "b": 3}), Step.reply("five"))
    agent = make(provider, tools=[add])
    for text in ("2 + 3?", "and now?"):  # Opened anew: it comes out of the transcript.
        async with holdfast.open(tmp_path, agent=agent) as hf:
            outcome = await (await hf.submit(KEY, text)).outcome(20)
            assert outcome.kind == "replied"
    assert told(server.requests[-1]) == [
        [("user", "2 + 3?")],
        [("call", "call_1", "add", {"a": 2, "b": 3})],
        [("result", "call_1", "5")],
        [("assistant", "five")],
        [("user", "and now?")],
    ]


async def test_one_conversation_may_go_through_all_of_them(
    tmp_path: Path, server: ModelServer, make: Make
) -> None:
    async with holdfast.open(tmp_path, agent=make("openai", tools=[add])) as hf:
        for number, model in enumerate(MODELS.values()):
            arguments = {"a": number, "b": 1}
            server.add(Step.call("add", arguments), Step.reply(f"answer {number}"))
            receipt = await hf.submit(KEY, f"question {number}", model=model)
            assert (await receipt.outcome(20)).text == f"answer {number}"
    assert [received.api for received in server.requests[::2]] == list(MODELS)
    assert [received.api for received in server.requests[1::2]] == list(MODELS)
    whole = [
        message
        for number in range(3)
        for message in (
            [("user", f"question {number}")],
            [("call", f"call_{number + 1}", "add", {"a": number, "b": 1})],
            [("result", f"call_{number + 1}", str(number + 1))],
            [("assistant", f"answer {number}")],
        )
    ]
    assert told(server.requests[-1]) == whole[:-1]
    entries = oracle.read(oracle.only_transcript(tmp_path))
    assert [e["message"]["provider"] for e in oracle.finals(entries)] == list(MODELS)


@every_provider
async def test_what_was_called_before_a_break_is_not_called_again(
    server: ModelServer, make: Make, provider: str
) -> None:
    """A crash between two results of one message: the second call alone is made."""
    calls: list[int] = []

    async def double(n: int) -> int:
        calls.append(n)
        return 2 * n

    blocks = [
        {"type": "toolCall", "id": f"c{n}", "name": "double", "arguments": {"n": n}}
        for n in (1, 2)
    ]
    done = {"type": "text", "text": "2"}
    made = (
        {"role": "assistant", "content": blocks, "provider": provider, "model": "m"},
        {"role": "toolResult", "toolCallId": "c1", "toolName": "double", "content": [done]},
    )
    events = await ask(make(provider, tools=[double]), prompt("both", made=made))
    assert isinstance(events[-1], Final)
    assert calls == [2]
    said = [part for message in told(server.requests[0]) for part in message]
    assert sorted(part for part in said if part[0] == "result") == [
        ("result", "c1", "2"),
        ("result", "c2", "4"),
    ]
    assert [part[1] for part in said if part[0] == "call"] == ["c1", "c2"]


# ------------------------------------------------------------------------------ leaving


@every_provider
@pytest.mark.parametrize("after", [None, 0, 1])
async def test_cancelling_closes_the_connection(
    server: ModelServer, make: Make, provider: str, after: int | None
) -> None:
    """Before the first byte, before the first token, after it; and not by chance."""
    step = Step.cut("hang", headers=False) if after is None else Step()
    step = step.held(after=after or 0)
    assert step.reached is not None
    server.add(step)
    with without_garbage_collection():
        task = asyncio.create_task(ask(make(provider), prompt()))
        assert await asyncio.to_thread(step.reached.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.wait_ended)
    assert server.requests[0].end == "aborted"


@every_provider
@pytest.mark.parametrize("own", [False, True], ids=["named", "own_agent"])
async def test_closing_the_generator_closes_the_connection(
    server: ModelServer, make: Make, provider: str, own: bool
) -> None:
    """Between two events nothing reads the stream, and nothing closes it by itself."""
    server.hold(after=1)
    agent = make(pydantic_ai.Agent(MODELS[provider]) if own else provider)
    with without_garbage_collection():
        events = agent.respond(prompt(), Unhooked())
        assert await anext(events) == Text("reply")
        await events.aclose()
        assert await asyncio.to_thread(server.wait_ended)
    assert server.requests[0].end == "aborted"


async def test_an_answer_that_cannot_be_read_is_not_read_on(
    server: ModelServer, make: Make
) -> None:
    """The provider would have gone on: arguments that are no object, and no end after them."""
    server.add(Step(tokens=("so",), tool="add", arguments="no object", end="hang"))
    with without_garbage_collection():
        with pytest.raises(ProviderError) as caught:
            await ask(make("google", tools=[add]), prompt())
        assert caught.value.reason == "bad_reply"
        assert await asyncio.to_thread(server.wait_ended)
    assert server.requests[0].end == "aborted"


async def test_a_fallback_of_ones_own_is_watched_inside(
    server: ModelServer, make: Make
) -> None:
    from pydantic_ai.models.fallback import FallbackModel

    server.hold(after=1)
    agent = make(FallbackModel("google:first", "google:second"))
    with without_garbage_collection():
        events = agent.respond(prompt(), Unhooked())
        assert await anext(events) == Text("reply")
        await events.aclose()
        assert await asyncio.to_thread(server.wait_ended)


# ------------------------------------------------------------------------ what is missing


@every_provider
async def test_a_truncated_answer_of_an_agent_of_ones_own_is_none_either(
    server: ModelServer, make: Make, provider: str
) -> None:
    server.add(Step.call("add", {"a": 2, "b": 3}), Step.cut("eof", after=2))
    agent = make(pydantic_ai.Agent(MODELS[provider], tools=[add]))
    with pytest.raises(ProviderError) as caught:
        await ask(agent, prompt())
    assert caught.value.reason == "truncated"


async def test_a_finish_reason_that_says_there_is_none_is_none(
    server: ModelServer, make: Make
) -> None:
    server.add(Step.reply("half", finish="FINISH_REASON_UNSPECIFIED"))
    with pytest.raises(ProviderError) as caught:
        await ask(make("google"), prompt())
    assert caught.value.reason == "truncated"


@every_provider
async def test_nobody_listening_is_a_connection_error(
    server: ModelServer, make: Make, provider: str
) -> None:
    server.stop()
    with pytest.raises(ProviderError) as caught:
        await ask(make(provider), prompt())
    assert caught.value.reason == "connection"


@every_provider
async def test_silence_on_the_line_is_a_timeout(
    server: ModelServer, make: Make, provider: str
) -> None:
    server.add(Step.cut("hang", after=1))
    with pytest.raises(ProviderError) as caught:
        await ask(make(provider, timeout_s=0.2), prompt())
    assert caught.value.reason == "timeout"
    assert await asyncio.to_thread(server.wait_ended)


@pytest.mark.parametrize(
    ("provider", "variable"),
    [
        ("openai", "OPENAI_API_KEY"),
        ("anthropic", "ANTHROPIC_API_KEY"),
        ("google", "GOOGLE_API_KEY"),
    ],
)
async def test_without_a_key_it_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, make: Make, provider: str, variable: str
) -> None:
    for name in (variable, "OPENAI_BASE_URL", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ProviderError) as caught:
        await ask(make(provider), prompt())
    assert caught.value.reason == "auth"
    assert variable in caught.value.detail
