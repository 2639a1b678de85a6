"""
A pydantic-ai agent that goes on after a crash, and that is spoken to while it runs: the calls
it owes are made through the hook, and what was steered in stays in what the model is told.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pydantic_ai
import pytest
from pydantic import BaseModel
from pydantic_ai.messages import BinaryContent, ToolReturn

from holdfast.agents.pydantic_ai import PydanticAgent
from holdfast.errors import FencedError, TooLargeError, ToolError
from holdfast.testing.model_server import ModelServer, Step
from holdfast.types import AgentEvent, Final, Made, Prompt, Steered, ToolCall

Make = Callable[..., PydanticAgent]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with ModelServer() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
async def make(server: ModelServer) -> AsyncIterator[Make]:
    made: list[PydanticAgent] = []

    def one(*tools: Any) -> PydanticAgent:
        made.append(PydanticAgent("openai-chat:m", tools=tools))
        return made[-1]

    yield one
    for agent in made:
        await agent.aclose()


class Hook:
    """
    Keeps what ran, as JSON, and gives that out the next time; like the runtime's.

    *steered*: one list for each time it is asked.
    """

    def __init__(self, *steered: list[str]) -> None:
        self.kept: dict[str, Any] = {}
        self.ran: list[str] = []
        self.asked = 0
        self._steered = list(steered)

    async def __call__(self, call: ToolCall, run: Any) -> Any:
        kept = self.kept.get(call.call_id)
        if isinstance(kept, Exception):
            raise kept
        if call.call_id in self.kept:
            return kept
        self.ran.append(call.call_id)
        try:
            result = await run()
        except Exception as error:
            kind = type(error).__name__
            self.kept[call.call_id] = ToolError(tool=call.name, kind=kind, detail=str(error))
            raise
        self.kept[call.call_id] = json.loads(json.dumps(result))
        return result

    async def steered(self) -> list[Steered]:
        self.asked += 1
        given = self._steered.pop(0) if self._steered else []
        return [Steered(f"t-{text}", text) for text in given]


def prompt(text: str = "sums?", **given: Any) -> Prompt:
    return Prompt(
        turn_id="t1", session_id="s1", session_key="agent:main:main", agent_id="main",
        lane="user", source="test", text=text, history=(), attempt=1, **given,
    )  # fmt: skip


async def ask(agent: PydanticAgent, asked: Prompt, hook: Hook) -> list[AgentEvent]:
    async with aclosing(agent.respond(asked, hook)) as events:
        return [event async for event in events]


def sent(server: ModelServer, number: int = -1) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = server.requests[number].body["messages"]
    return messages


def told(server: ModelServer, number: int = -1) -> list[tuple[str, Any]]:
    return [(each["role"], each.get("content")) for each in sent(server, number)]


async def add(a: int, b: int) -> int:
    return a + b


def asking(*call_ids: str, name: str = "add", **arguments: Any) -> dict[str, Any]:
    arguments = arguments or {"a": 1, "b": 1}
    blocks = [
        {"type": "toolCall", "id": each, "name": name, "arguments": arguments}
        for each in call_ids
    ]
    return {"role": "assistant", "content": blocks, "provider": "openai", "model": "m"}


def result(call_id: str, text: str = "2") -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"role": "toolResult", "toolCallId": call_id, "toolName": "add", "content": content}


USER: dict[str, Any] = {"role": "user", "content": [{"type": "text", "text": "and hurry"}]}


# --------------------------------------------------------------------------- going on


async def test_all_calls_of_the_last_message_are_made_through_the_hook(
    server: ModelServer, make: Make
) -> None:
    """The hook replays what has run; the model is told of all of them, once, in order."""
    hook = Hook()
    hook.kept["c1"] = 7
    events = await ask(make(add), prompt(made=(asking("c1", "c2"),)), hook)
    assert hook.ran == ["c2"]
    results = [e.message for e in events if isinstance(e, Made)]
    assert [m["role"] for m in results] == ["toolResult"] * 2, "the calls were said again"
    assert told(server)[2:] == [("tool", "7"), ("tool", "2")]
    assert isinstance(events[-1], Final)


async def test_messages_of_users_among_what_was_made_stay_where_they_stood(
    server: ModelServer, make: Make
) -> None:
    before = (asking("c1"), result("c1"), USER)
    await ask(make(add), prompt(made=before), Hook())
    assert told(server) == [
        ("user", "sums?"), ("assistant", None), ("tool", "2"), ("user", "and hurry"),
    ]  # fmt: skip
    hook = Hook()
    await ask(make(add), prompt(made=(*before, asking("c2"))), hook)
    assert hook.ran == ["c2"]
    assert [role for role, _ in told(server)] == [
        "user", "assistant", "tool", "user", "assistant", "tool",
    ]  # fmt: skip
    await ask(make(add), prompt(made=(USER,)), Hook())
    assert "sums?" in json.dumps(sent(server))
    assert "and hurry" in json.dumps(sent(server))


# ---------------------------------------------------------------------- being steered


async def test_what_was_steered_in_is_in_the_next_request_and_every_later_one(
    server: ModelServer, make: Make
) -> None:
    server.add(
        Step.call("add", {"a": 1, "b": 1}), Step.call("add", {"a": 2, "b": 2}), Step.reply("8")
    )
    hook = Hook(["and hurry", "please"], [])
    events = await ask(make(add), prompt(), hook)
    assert isinstance(events[-1], Final)
    assert told(server, 0) == [("user", "sums?")], "nothing was due before the first request"
    second = told(server, 1)
    assert second[2:3] == [("tool", "2")]
    assert [role for role, _ in second[3:]] in (["user"], ["user", "user"])
    words = json.dumps(second[3:])
    assert words.index("and hurry") < words.index("please")
    third = told(server, 2)
    assert third[: len(second)] == second, "the model has forgotten what it was told"
    assert json.dumps(third).count("and hurry") == 1
    assert hook.asked == 2


async def test_a_run_that_goes_on_asks_before_its_first_request(
    server: ModelServer, make: Make
) -> None:
    made = (asking("c1"), result("c1"))
    await ask(make(add), prompt(made=made), Hook(["and hurry"]))
    assert told(server)[-1] == ("user", "and hurry")


async def test_it_is_asked_for_when_all_results_are_made(
    server: ModelServer, make: Make
) -> None:
    """What it gives out stands behind them in the transcript."""
    order: list[str] = []

    class Noting(Hook):
        async def steered(self) -> list[Steered]:
            order.append("steered")
            return []

    server.add(Step.call("add", {"a": 1, "b": 1}, call_id="c1"))
    async with aclosing(make(add).respond(prompt(), Noting())) as events:
        async for event in events:
            order.append(type(event).__name__)
            for _ in range(20):  # Whatever could run ahead of us has done so.
                await asyncio.sleep(0)
    assert order[:3] == ["Made", "Made", "steered"]


async def test_who_may_not_act_any_more_hears_it_as_it_is(
    server: ModelServer, make: Make
) -> None:
    refusal = FencedError(session_id="s1", token=1, newest=2)

    class Fenced(Hook):
        async def steered(self) -> list[Steered]:
            raise refusal

    server.add(Step.call("add", {"a": 1, "b": 1}))
    with pytest.raises(FencedError) as caught:
        await ask(make(add), prompt(), Fenced())
    assert caught.value is refusal
    assert len(server.requests) == 1


# -------------------------------------------------------------- what the model is told


class City(BaseModel):
    name: str
    people: int | None = None


async def a_model() -> City:
    return City(name="Rome")


async def a_list() -> list[City]:
    return [City(name="Rome"), City(name="Ostia", people=3)]


async def a_return() -> ToolReturn[str]:
    return ToolReturn(return_value="seen", metadata=object())


async def nothing() -> None: ...


async def words() -> str:
    return 'with "quotes"'


@pytest.mark.parametrize("function", [a_model, a_list, a_return, nothing, words, add])
async def test_a_replayed_result_tells_the_model_what_the_first_one_told(
    server: ModelServer, make: Make, function: Any
) -> None:
    name = function.__name__
    arguments = {"a": 1, "b": 1} if function is add else {}
    server.add(Step.call(name, arguments, call_id="c1"))
    hook = Hook()
    events = await ask(make(function), prompt(), hook)
    first = told(server)[-1]
    made = next(e.message for e in events if isinstance(e, Made))
    await ask(make(function), prompt(made=(made,)), hook)
    assert told(server)[-1] == first
    assert first[0] == "tool"
    assert hook.ran == ["c1"]


async def test_what_no_json_can_say_is_kept_as_text(server: ModelServer, make: Make) -> None:
    async def picture() -> list[Any]:
        return [BinaryContent(b"\x00\xff", media_type="image/png"), object()]

    hook = Hook()
    server.add(Step.call("picture", call_id="c1"))
    with pytest.raises(Exception, match="object"):  # Its own: nobody can tell it the model.
        await ask(make(picture), prompt(), hook)
    assert "AP8" in json.dumps(hook.kept["c1"])


@pytest.mark.parametrize("kind", [pydantic_ai.ModelRetry, pydantic_ai.ToolFailed])
async def test_a_failure_the_model_was_told_of_is_told_again(
    server: ModelServer, make: Make, kind: type[Exception]
) -> None:
    async def picky() -> None:
        raise kind("give me an even one")

    server.add(Step.call("picky", call_id="c1"))
    hook = Hook()
    events = await ask(make(picky), prompt(), hook)
    first = told(server)[-1]
    assert "an even one" in json.dumps(first)
    made = next(e.message for e in events if isinstance(e, Made))
    _, *_, final = await ask(make(picky), prompt(made=(made,)), hook)
    assert told(server)[-1] == first
    assert isinstance(final, Final)
    assert hook.ran == ["c1"]


async def test_the_model_is_told_of_a_result_that_was_too_large(
    server: ModelServer, make: Make
) -> None:
    """It may ask for less; what a tool itself finds too large ends the run, as any failure."""
    own = TooLargeError(what="its own", size=2, limit=1)

    async def dump(fails: bool) -> str:
        if fails:
            raise own
        return "a whole table"

    class Strict(Hook):
        async def __call__(self, call: ToolCall, run: Any) -> Any:
            await super().__call__(call, run)
            raise TooLargeError(what="the result of tool dump", size=15, limit=9, hint="less")

    server.add(Step.call("dump", {"fails": False}, call_id="c1"), Step.reply("I see"))
    *_, final = await ask(make(dump), prompt(), Strict())
    assert isinstance(final, Final)
    said = json.dumps(told(server)[-1])
    assert "of 15 bytes is over the limit of 9; less" in said
    assert "a whole table" not in said
    server.add(Step.call("dump", {"fails": True}, call_id="c2"))
    with pytest.raises(TooLargeError) as ended:
        await ask(make(dump), prompt(), Strict())
    assert ended.value is own


async def test_a_failure_that_ended_the_run_ends_it_again(
    server: ModelServer, make: Make
) -> None:
    async def broken() -> None:
        raise ZeroDivisionError("a bug")

    hook = Hook()
    made = asking("c1", name="broken")
    made["content"][0]["arguments"] = {}
    for kind in (ZeroDivisionError, ToolError):
        with pytest.raises(kind, match="a bug"):
            await ask(make(broken), prompt(made=(made,)), hook)
    assert hook.ran == ["c1"]
