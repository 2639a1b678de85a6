"""pydantic-ai as an agent of ours, against a real model server on loopback."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pydantic
import pydantic_ai
import pytest
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.toolsets import FunctionToolset

from holdfast.agents.pydantic_ai import PydanticAgent
from holdfast.agents.tools import ToolDeclaration, declaration_of, read_declaration, tool
from holdfast.errors import BadRequestError, FencedError, ProviderError
from holdfast.ports import Agent
from holdfast.testing.model_server import ModelServer, Step
from holdfast.types import AgentEvent, Final, Made, Prompt, Silent, Steered, Text, ToolCall

KEY = "sk-secret-0123456789abcdef"
Make = Callable[..., PydanticAgent]
USER: dict[str, Any] = {"role": "user", "content": "earlier"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with ModelServer() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield running


@pytest.fixture
async def make(server: ModelServer) -> AsyncIterator[Make]:
    """Makes agents, and closes what they keep open."""
    made: list[PydanticAgent] = []

    def one(given: Any = "openai-chat:m", **options: Any) -> PydanticAgent:
        made.append(PydanticAgent(given, **options))
        return made[-1]

    yield one
    for agent in made:
        await agent.aclose()


@pytest.fixture
def agent(make: Make) -> PydanticAgent:
    return make()


def prompt(text: str = "hello there", **given: Any) -> Prompt:
    return Prompt(
        turn_id="t1",
        session_id="s1",
        session_key="agent:main:main",
        agent_id="main",
        lane="main",
        source="test",
        text=text,
        history=given.pop("history", ()),
        attempt=1,
        **given,
    )


class Hook:
    """Lets every call through, and keeps it."""

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []

    async def steered(self) -> list[Steered]:
        return []

    async def __call__(self, call: ToolCall, run: Any) -> Any:
        self.calls.append(call)
        async with asyncio.timeout(call.timeout_s):
            return await run()


async def ask(agent: PydanticAgent, asked: Prompt, hook: Any = None) -> list[AgentEvent]:
    async with aclosing(agent.respond(asked, hook or Hook())) as events:
        return [event async for event in events]


async def fails(agent: PydanticAgent, asked: Prompt | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await ask(agent, asked or prompt())
    return caught.value


def sent(server: ModelServer, number: int = -1) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = server.requests[number].body["messages"]
    return messages


def add_tools(calls: list[tuple[int, int]]) -> Any:
    @tool(replay="safe", timeout_s=7)
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        calls.append((a, b))
        return a + b

    return add


# --------------------------------------------------------------------------- a reply


def test_importing_it_is_cheap() -> None:
    code = (
        "import sys; import holdfast.agents.pydantic_ai as it; it.PydanticAgent('openai:m');"
        " import holdfast.agents.tools, holdfast.testing.model_server, holdfast.agents.demo;"
        " print(sorted({'pydantic_ai', 'openai', 'pydantic', 'uvicorn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


async def test_a_reply_streams_and_ends_in_a_message(
    server: ModelServer, agent: PydanticAgent
) -> None:
    assert isinstance(agent, Agent)
    *texts, final = await ask(agent, prompt())
    assert [t.delta for t in texts] == ["reply", " to:", " hello", " there"]
    assert isinstance(final, Final)
    assert final.text == "reply to: hello there"
    message = dict(final.message)
    assert message.pop("timestamp") > 0
    usage = message.pop("usage")
    assert usage["output"] == 4
    assert usage["totalTokens"] == usage["input"] + 4
    assert message == {
        "role": "assistant",
        "content": [{"type": "text", "text": "reply to: hello there"}],
        "provider": "openai",
        "model": "scripted",
        "stopReason": "stop",
    }
    assert server.requests[0].body["model"] == "m"


async def test_every_event_may_be_asked_for_from_another_task(agent: PydanticAgent) -> None:
    events = agent.respond(prompt(), Hook())
    got = []
    while (event := await asyncio.create_task(anext(events, None))) is not None:
        got.append(event)
    assert isinstance(got[-1], Final)
    await asyncio.create_task(events.aclose())


async def test_a_turn_may_name_its_model(server: ModelServer, agent: PydanticAgent) -> None:
    await ask(agent, prompt(model="openai-chat:other"))
    assert server.requests[0].body["model"] == "other"


async def test_instructions_come_first(server: ModelServer, make: Make) -> None:
    agent = make(instructions="Be brief.")
    await ask(agent, prompt())
    assert sent(server)[0] == {"role": "system", "content": "Be brief."}


async def test_instructions_of_one_turn_stand_beside_the_agents_own(
    server: ModelServer, make: Make
) -> None:
    agent = make(instructions="Be brief.")
    await ask(agent, prompt("one", instructions="Rhyme."))
    told = [message["content"] for message in sent(server) if message["role"] == "system"]
    assert told == ["Be brief.", "Rhyme."]
    bare = make()
    await ask(bare, prompt("two", history=(USER,), instructions="Rhyme."))
    assert sent(server)[0] == {"role": "system", "content": "Rhyme."}
    await ask(bare, prompt("three", history=(USER,)))
    assert [message["role"] for message in sent(server)] == ["user", "user"]


async def test_instructions_hold_for_every_step_of_a_turn(
    server: ModelServer, make: Make
) -> None:
    agent = make(tools=[add_tools([])])
    server.add(Step.call("add", {"a": 2, "b": 3}), Step.cut("eof"), Step.reply("five"))
    made = []
    with pytest.raises(ProviderError):
        asked = prompt("sum?", instructions="Rhyme.")
        async with aclosing(agent.respond(asked, Hook())) as events:
            async for event in events:
                made += [event.message] if isinstance(event, Made) else []
    await ask(agent, prompt("sum?", made=tuple(made), instructions="Rhyme."))
    for number in range(3):
        assert sent(server, number)[0] == {"role": "system", "content": "Rhyme."}


async def test_it_works_again_after_aclose(server: ModelServer, agent: PydanticAgent) -> None:
    for _ in range(2):
        assert isinstance((await ask(agent, prompt()))[-1], Final)
        await agent.aclose()


async def test_a_reply_that_was_too_long_stands(
    server: ModelServer, agent: PydanticAgent
) -> None:
    server.add(Step.reply("half", finish="length"))
    *_, final = await ask(agent, prompt())
    assert isinstance(final, Final)
    assert (final.text, final.message["stopReason"]) == ("half", "length")


@pytest.mark.parametrize("tokens", [["NO_REPLY"], ["NO", "_REP", "LY"], [" NO_REPLY", "\n"]])
async def test_a_deliberate_silence_shows_nothing(
    server: ModelServer, agent: PydanticAgent, tokens: list[str]
) -> None:
    server.add(Step.reply(*tokens))
    assert await ask(agent, prompt()) == [Silent(reason="no_reply")]


@pytest.mark.parametrize("tokens", [["NO", " way"], ["NO_REPLY", " is what I say"], ["NO"]])
async def test_what_only_begins_like_a_silence_is_said(
    server: ModelServer, agent: PydanticAgent, tokens: list[str]
) -> None:
    server.add(Step.reply(*tokens))
    *texts, final = await ask(agent, prompt())
    assert isinstance(final, Final)
    assert "".join(t.delta for t in texts) == final.text == "".join(tokens)


async def test_many_turns_at_once(server: ModelServer, agent: PydanticAgent) -> None:
    await ask(agent, prompt("warm up"))
    held = Step().held(after=2).always()
    server.add(held)
    tasks = [asyncio.create_task(ask(agent, prompt(f"q{n}"))) for n in range(50)]
    all_held = await asyncio.to_thread(
        server.wait, lambda: sum(r.tokens_sent == 2 for r in server.requests) == 50
    )
    assert all_held
    assert held.gate is not None
    held.gate.set()
    finals = [(await task)[-1] for task in tasks]
    assert [f.text for f in finals] == [f"reply to: q{n}" for n in range(50)]


# ------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("step", "reason", "status"),
    [
        (Step.fail("unauthorized"), "auth", 401),
        (Step.fail("rate_limit"), "rate_limit", 429),
        (Step.fail("quota"), "quota", 429),
        (Step.fail("server_error"), "server_error", 500),
        (Step.fail("unavailable"), "server_error", 503),
        (Step.fail("context_length"), "context_overflow", 400),
        (Step.fail("bad_request"), "bad_request", 400),
        (Step.cut("drop", after=2), "connection", None),
        (Step.cut("eof", after=2), "truncated", None),
        (Step.cut("eof", after=0), "truncated", None),
        (Step.cut("garbage", after=1), "bad_reply", None),
        (replace(Step.cut("garbage"), frame="[]"), "bad_reply", None),
        (Step.reply("half", finish="content_filter"), "content_filter", None),
        (Step(tokens=(), finish="length"), "output_limit", None),
        (Step.fail("overloaded", after=1), "server_error", None),
        (Step.fail("bad_request", after=1), "bad_request", None),
    ],
)
async def test_failures(
    server: ModelServer, agent: PydanticAgent, step: Step, reason: str, status: int | None
) -> None:
    server.add(step)
    error = await fails(agent)
    assert (error.reason, error.http_status) == (reason, status)
    assert error.hint
    assert KEY not in f"{error} {error.to_json()}"
    # One request: neither the SDK nor pydantic-ai has tried again.
    assert [(r.retry, r.end) for r in server.requests] == [("0", "done")]


async def test_a_provider_that_goes_quiet_is_a_timeout(server: ModelServer, make: Make) -> None:
    agent = make(timeout_s=0.1)
    server.add(Step.cut("hang", after=1))
    error = await fails(agent)
    assert error.reason == "timeout"
    assert await asyncio.to_thread(server.wait_ended)
    assert len(server.requests) == 1


async def test_nobody_listening_is_a_connection_error(server: ModelServer, make: Make) -> None:
    agent = make("openai-chat:m")
    server.stop()
    assert (await fails(agent)).reason == "connection"


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("0", 0.0), ("soon", None)])
async def test_retry_after_in_seconds(
    server: ModelServer, agent: PydanticAgent, header: str, seconds: float | None
) -> None:
    server.add(Step.fail("rate_limit", retry_after=header))
    assert (await fails(agent)).retry_after_s == seconds


async def test_retry_after_as_a_date(server: ModelServer, agent: PydanticAgent) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True)
    server.add(Step.fail("unavailable", retry_after=at))
    error = await fails(agent)
    assert error.retry_after_s is not None
    assert 100 < error.retry_after_s <= 120


async def test_an_agent_of_ones_own_fails_the_same_way(server: ModelServer, make: Make) -> None:
    agent = make(pydantic_ai.Agent("openai-chat:m"))
    server.add(Step.cut("eof"), Step.fail("unauthorized"))
    assert (await fails(agent)).reason == "truncated"
    assert (await fails(agent)).reason == "auth"


@pytest.mark.parametrize(("own", "requests"), [({}, 1), ({"max_retries": 1}, 2)])
async def test_an_agent_of_ones_own_is_asked_once_unless_it_says_otherwise(
    server: ModelServer, make: Make, own: Any, requests: int
) -> None:
    """Its SDK would ask three times, and the runtime three times that."""
    server.add(Step.fail("unavailable", retry_after="0").always())
    agent = make(pydantic_ai.Agent("openai-chat:m", model_settings=own or None))
    assert (await fails(agent)).reason == "server_error"
    assert len(server.requests) == requests


async def test_of_a_chain_of_models_the_failure_that_may_pass_counts(
    server: ModelServer, make: Make
) -> None:
    from pydantic_ai.models.openai import OpenAIChatModel

    chain = FallbackModel(*(OpenAIChatModel(name) for name in "ab"))
    server.add(Step.fail("unauthorized"), Step.fail("unavailable"))
    assert (await fails(make(chain))).reason == "server_error"


@pytest.mark.parametrize(
    ("name", "reason", "hint"),
    [
        ("nonsense", "bad_request", "provider:model"),
        ("openai", "bad_request", "provider:model"),
        ("nowhere:model", "bad_request", "provider:model"),
        ("groq:model", "bad_request", "install"),
        ("openai-chat:m", "auth", "API key"),
    ],
)
async def test_a_model_that_cannot_be_used_says_why(
    monkeypatch: pytest.MonkeyPatch, name: str, reason: str, hint: str, make: Make
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setitem(sys.modules, "groq", None)  # Not installed, whoever has installed it.
    error = await fails(make(name))
    assert error.reason == reason
    assert hint in error.hint
    if reason == "auth":
        assert "OPENAI_API_KEY" in error.detail


def test_tools_belong_to_the_agent_that_was_given() -> None:
    with pytest.raises(BadRequestError):
        PydanticAgent(pydantic_ai.Agent(TestModel()), tools=[print])


async def test_a_key_in_the_providers_words_is_hidden(
    server: ModelServer, agent: PydanticAgent
) -> None:
    from pydantic_ai.exceptions import ModelHTTPError

    from holdfast.agents._pydantic_errors import provider_error

    body = {"message": f"no access for {KEY}, Authorization: Bearer abc.def"}
    found = provider_error(ModelHTTPError(418, "m", body))
    assert found is not None
    assert (found.reason, found.http_status) == ("bad_request", 418)
    assert found.detail == "no access for [hidden], Authorization: [hidden]"


# --------------------------------------------------------------------- disconnecting


async def test_closing_the_generator_closes_the_connection(
    server: ModelServer, agent: PydanticAgent
) -> None:
    server.hold(after=1)
    events = agent.respond(prompt(), Hook())
    assert await anext(events) == Text(delta="reply")
    await events.aclose()
    assert await asyncio.to_thread(server.wait_ended)
    assert server.requests[0].end == "aborted"


@pytest.mark.parametrize("after", [0, 1])
async def test_cancelling_the_task_closes_the_connection(
    server: ModelServer, agent: PydanticAgent, after: int
) -> None:
    step = server.hold(after=after)
    task = asyncio.create_task(ask(agent, prompt()))
    assert step.reached is not None
    assert await asyncio.to_thread(step.reached.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(server.wait_ended)
    assert server.requests[0].end == "aborted"


async def test_closing_cancels_a_tool(server: ModelServer, make: Make) -> None:
    running, cancelled = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    agent = make(tools=[wait])
    server.add(Step.call("wait"))
    task = asyncio.create_task(ask(agent, prompt()))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()


# ----------------------------------------------------------------------------- tools


async def test_a_tool_goes_through_the_hook_and_into_messages(
    server: ModelServer, make: Make
) -> None:
    calls: list[tuple[int, int]] = []
    hook = Hook()
    agent = make(tools=[add_tools(calls)])
    server.add(Step.call("add", {"a": 2, "b": 3}, fragments=4), Step.reply("five"))
    asked, result, text, final = await ask(agent, prompt(), hook)
    assert calls == [(2, 3)]
    assert hook.calls == [
        ToolCall(
            call_id="call_1", name="add", arguments={"a": 2, "b": 3}, replay="safe", timeout_s=7
        )
    ]
    assert isinstance(asked, Made)
    assert asked.message["stopReason"] == "toolUse"
    assert asked.message["content"] == [
        {"type": "toolCall", "id": "call_1", "name": "add", "arguments": {"a": 2, "b": 3}}
    ]
    assert isinstance(result, Made)
    assert {k: v for k, v in result.message.items() if k != "timestamp"} == {
        "role": "toolResult",
        "toolCallId": "call_1",
        "toolName": "add",
        "content": [{"type": "text", "text": "5"}],
        "isError": False,
    }
    assert text == Text(delta="five")
    assert isinstance(final, Final)
    assert final.text == "five"


async def test_the_call_is_dealt_with_before_its_tool_runs(
    server: ModelServer, make: Make
) -> None:
    calls: list[tuple[int, int]] = []
    agent = make(tools=[add_tools(calls)])
    server.add(Step.call("add", {"a": 2, "b": 3}))
    async with aclosing(agent.respond(prompt(), Hook())) as events:
        assert isinstance(await anext(events), Made)
        for _ in range(20):
            await asyncio.sleep(0)
        assert calls == []
        assert isinstance(await anext(events), Made)
        assert calls == [(2, 3)]


async def test_a_refused_hook_means_the_tool_never_ran(server: ModelServer, make: Make) -> None:
    calls: list[tuple[int, int]] = []
    agent = make(tools=[add_tools(calls)])
    server.add(Step.call("add", {"a": 2, "b": 3}))
    refusal = FencedError(session_id="s1", token=1, newest=2)

    class Refusing(Hook):
        async def __call__(self, call: ToolCall, run: Any) -> Any:
            raise refusal

    with pytest.raises(FencedError) as caught:
        await ask(agent, prompt(), Refusing())
    assert caught.value is refusal
    assert calls == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("end", ["eof", "drop"])
async def test_a_call_out_of_a_broken_stream_is_not_made(
    server: ModelServer, end: Any, make: Make
) -> None:
    calls: list[tuple[int, int]] = []
    hook = Hook()
    agent = make(tools=[add_tools(calls)])
    step = Step(tokens=("let me see",), tool="add", arguments={"a": 2, "b": 3}, end=end)
    server.add(step)
    with pytest.raises(ProviderError) as caught:
        await ask(agent, prompt(), hook)
    assert caught.value.reason == {"eof": "truncated", "drop": "connection"}[end]
    assert (calls, hook.calls) == ([], [])


async def test_a_later_response_is_guarded_too(server: ModelServer, make: Make) -> None:
    agent = make(tools=[add_tools([])])
    server.add(Step.call("add", {"a": 2, "b": 3}), Step.cut("eof"))
    assert (await fails(agent)).reason == "truncated"


async def test_tools_of_every_toolset_go_through_the_hook(
    server: ModelServer, make: Make
) -> None:
    inner = FunctionToolset()
    inner.add_function(add_tools([]), name="add")
    own = pydantic_ai.Agent("openai-chat:m", toolsets=[inner.prefixed("math")])

    @own.tool_plain(metadata={"holdfast": {"replay": "safe", "timeout_s": 3}})
    def today() -> str:
        return "Monday"

    @own.tool
    def plain(ctx: pydantic_ai.RunContext[Any]) -> str:
        return str(ctx.deps)

    server.add(Step.call("math_add", {"a": 1, "b": 1}), Step.call("today"), Step.call("plain"))
    hook = Hook()
    events = await ask(make(own, deps="the deps"), prompt(), hook)
    seen = [(call.name, call.replay, call.timeout_s) for call in hook.calls]
    assert seen == [("math_add", "safe", 7), ("today", "safe", 3), ("plain", "never", 120)]
    texts = [e.message["content"][0] for e in events if isinstance(e, Made)][1::2]
    assert [block["text"] for block in texts] == ["2", "Monday", "the deps"]


@pytest.mark.parametrize("kind", [ZeroDivisionError, ValueError])
async def test_a_tools_own_failure_passes_unchanged(
    server: ModelServer, make: Make, kind: type[Exception]
) -> None:
    bug = kind("a bug")

    def broken() -> None:
        raise bug

    agent = make(tools=[broken])
    server.add(Step.call("broken"))
    with pytest.raises(kind) as caught:
        await ask(agent, prompt())
    assert caught.value is bug


async def test_a_model_asked_by_a_tool_is_not_this_runs_provider(
    server: ModelServer, make: Make
) -> None:
    inner = pydantic_ai.Agent("openai-chat:inner")

    async def delegate() -> str:
        async with inner:
            return (await inner.run("sub question")).output

    agent = make(tools=[delegate])
    server.add(
        Step.call("delegate").keyed("hello"), Step.fail("bad_request").keyed("sub question")
    )
    with pytest.raises(pydantic_ai.ModelHTTPError):
        await ask(agent, prompt())


async def test_what_pydantic_ai_tells_the_model_is_a_failed_result(
    server: ModelServer, make: Make
) -> None:
    def picky(n: int) -> None:
        raise pydantic_ai.ModelRetry("give me an even one")

    agent = make(tools=[picky])
    server.add(Step.call("picky", {"n": 1}), Step.reply("sorry"))
    _, result, *_, final = await ask(agent, prompt())
    assert isinstance(result, Made)
    assert result.message["isError"]
    assert "even one" in result.message["content"][0]["text"]
    assert isinstance(final, Final)


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_tool_that_outlasts_its_bound_is_a_failed_result(
    server: ModelServer, kind: str, make: Make
) -> None:
    released = threading.Event()

    @tool(timeout_s=0.05)
    async def slow() -> None:
        await asyncio.Event().wait()

    @tool(timeout_s=0.05)
    def slow_thread() -> None:
        released.wait(10)

    chosen = slow if kind == "async" else slow_thread
    agent = make(tools=[chosen])
    server.add(Step.call(chosen.__name__), Step.reply("it took too long"))
    try:
        _, result, *_, final = await ask(agent, prompt())
    finally:
        released.set()
    assert isinstance(result, Made)
    assert result.message["isError"]
    assert "within 0.05 s" in result.message["content"][0]["text"]
    assert isinstance(final, Final)


async def test_a_timeout_inside_a_tool_is_the_tools(server: ModelServer, make: Make) -> None:
    def connect() -> None:
        raise TimeoutError("its own")

    agent = make(tools=[connect])
    server.add(Step.call("connect"))
    with pytest.raises(TimeoutError, match="its own"):
        await ask(agent, prompt())


async def test_structured_output_is_json(server: ModelServer, make: Make) -> None:
    class City(pydantic.BaseModel):
        name: str

    hook = Hook()
    agent = make(pydantic_ai.Agent("openai-chat:m", output_type=City))
    server.add(Step.call("final_result", {"name": "Rome"}))
    (final,) = await ask(agent, prompt(), hook)
    assert isinstance(final, Final)
    assert final.text == '{"name":"Rome"}'
    assert final.message["content"] == [{"type": "text", "text": final.text}]
    assert final.message["stopReason"] == "stop"
    assert hook.calls == []


async def test_a_bug_in_a_model_of_this_process_is_no_providers(make: Make) -> None:
    def answer(messages: Any, info: Any) -> ModelResponse:
        raise NotImplementedError

    async def stream(messages: Any, info: Any) -> AsyncIterator[str]:
        yield "so far"
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await ask(make(FunctionModel(answer, stream_function=stream)), prompt())


async def test_models_in_this_process_need_no_finish_reason(make: Make) -> None:
    def answer(messages: Any, info: Any) -> ModelResponse:
        return ModelResponse(parts=[TextPart("plain")])

    async def stream(messages: Any, info: Any) -> AsyncIterator[str]:
        yield "plain"

    for model in (FunctionModel(answer, stream_function=stream), TestModel(call_tools=[])):
        *_, final = await ask(make(model), prompt())
        assert isinstance(final, Final)


# --------------------------------------------------------------------- conversations


async def test_history_is_told_in_the_providers_words(
    server: ModelServer, agent: PydanticAgent
) -> None:
    call = {"type": "toolCall", "id": "c1", "name": "add", "arguments": {"a": 1}}
    lost = {"type": "toolCall", "id": "c2", "name": "add", "arguments": {}}
    result = {"type": "text", "text": "2"}
    history: list[dict[str, Any]] = [
        {"role": "toolResult", "toolCallId": "c0", "toolName": "gone", "content": []},
        {"role": "compactionSummary", "summary": "We spoke of sums."},
        {"role": "user", "content": [{"type": "text", "text": "one plus one?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "wait"}, call]},
        {"role": "toolResult", "toolCallId": "c1", "toolName": "add", "content": [result]},
        {"role": "bashExecution", "command": "ls"},
        {"role": "assistant", "content": "two", "provider": "p", "model": "m"},
        {"role": "assistant", "content": [], "stopReason": "error"},
        {"role": "user", "content": "and then?"},
        {"role": "assistant", "content": [lost], "stopReason": "aborted"},
    ]
    *_, final = await ask(agent, prompt("go on", history=tuple(history)))
    assert isinstance(final, Final)
    told = sent(server)
    assert "We spoke of sums." in json.dumps(told.pop(0))
    roles = [message["role"] for message in told]
    assert roles == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
        "assistant",
        "tool",
        "user",
    ]
    assert "one plus one?" in json.dumps(told[0])
    assert told[1]["content"] == "wait"
    assert told[1]["tool_calls"][0]["id"] == told[2]["tool_call_id"] == "c1"
    assert told[2]["content"] == "2"
    assert told[3]["content"] == "two"
    assert told[6]["tool_call_id"] == "c2"
    assert told[7]["content"] == "go on"


async def test_system_prompts_are_there_on_the_second_turn(
    server: ModelServer, make: Make
) -> None:
    agent = make(pydantic_ai.Agent("openai-chat:m", system_prompt="You are Bob."))
    *_, final = await ask(agent, prompt("one"))
    assert isinstance(final, Final)
    await ask(agent, prompt("two", history=(USER, final.message)))
    for number in (0, 1):
        assert sent(server, number)[0] == {"role": "system", "content": "You are Bob."}
    assert [m["role"] for m in sent(server)] == ["system", "user", "assistant", "user"]


async def test_what_was_made_is_not_made_again(server: ModelServer, make: Make) -> None:
    calls: list[tuple[int, int]] = []
    agent = make(tools=[add_tools(calls)])
    server.add(Step.call("add", {"a": 2, "b": 3}), Step.cut("eof"), Step.reply("five"))
    made = []
    with pytest.raises(ProviderError):
        async with aclosing(agent.respond(prompt("sum?", history=(USER,)), Hook())) as events:
            async for event in events:
                made += [event.message] if isinstance(event, Made) else []
    assert [message["role"] for message in made] == ["assistant", "toolResult"]

    again = prompt("sum?", history=(USER,), made=tuple(made))
    text, final = await ask(agent, again)
    assert calls == [(2, 3)]
    assert text == Text(delta="five")
    assert isinstance(final, Final)
    told = sent(server)
    assert [message["role"] for message in told] == ["user", "user", "assistant", "tool"]
    assert json.dumps(told).count("sum?") == 1
    assert told[-1] == {"role": "tool", "tool_call_id": "call_1", "content": "5"}


async def test_calls_without_a_result_are_made_first(server: ModelServer, make: Make) -> None:
    calls: list[tuple[int, int]] = []
    hook = Hook()
    agent = make(tools=[add_tools(calls)])
    blocks = [
        {"type": "toolCall", "id": f"c{n}", "name": "add", "arguments": {"a": n, "b": n}}
        for n in (1, 2)
    ]
    done = {"type": "text", "text": "2"}
    made = (
        {"role": "assistant", "content": blocks, "provider": "openai", "model": "m"},
        {"role": "toolResult", "toolCallId": "c1", "toolName": "add", "content": [done]},
    )
    result, *_, final = await ask(agent, prompt("sums?", made=made), hook)
    assert calls == [(2, 2)]
    assert [(call.call_id, call.arguments) for call in hook.calls] == [("c2", {"a": 2, "b": 2})]
    assert isinstance(result, Made)
    assert result.message["toolCallId"] == "c2"
    assert isinstance(final, Final)
    answers = [m["tool_call_id"] for m in sent(server) if m["role"] == "tool"]
    assert answers == ["c1", "c2"]

    calls.clear()
    await ask(agent, prompt("sums?", made=made[:1]))
    assert sorted(calls) == [(1, 1), (2, 2)]


# ---------------------------------------------------------------------- declarations


def test_a_declaration_is_read_from_function_and_metadata() -> None:
    @tool(replay="safe", timeout_s=2)
    def declared() -> None: ...

    assert declaration_of(declared) == ToolDeclaration(replay="safe", timeout_s=2)
    assert declaration_of(print) is None
    assert read_declaration({"holdfast": {"replay": "safe"}}) == ToolDeclaration(replay="safe")
    assert read_declaration({"other": 1}) is None
    assert read_declaration(None) is None


@pytest.mark.parametrize(
    "wrong", [{"replay": "maybe"}, {"timeout_s": 0}, {"retries": 3}, {"timeout_s": -1}, 3]
)
def test_a_wrong_declaration_is_refused(wrong: Any) -> None:
    with pytest.raises(BadRequestError):
        read_declaration({"holdfast": wrong})
