"""The embedded default answers with the question, always the same way, and says what it is."""

from __future__ import annotations

import time

from holdfast.agents.demo import DemoAgent
from holdfast.ports import Agent
from holdfast.types import AgentEvent, Final, Prompt, Text


def prompt(text: str, *history: dict[str, object]) -> Prompt:
    return Prompt(
        turn_id="t1",
        session_id="s1",
        session_key="agent:main:main",
        agent_id="main",
        lane="main",
        source="test",
        text=text,
        history=history,
        attempt=1,
    )


async def no_tools(call: object, run: object) -> None:
    raise AssertionError("the demo agent has no tools")


async def ask(agent: DemoAgent, asked: Prompt) -> list[AgentEvent]:
    return [event async for event in agent.respond(asked, no_tools)]


def test_it_is_an_agent() -> None:
    assert isinstance(DemoAgent(), Agent)


async def test_the_reply_holds_the_question_and_streams_word_by_word() -> None:
    *texts, final = await ask(DemoAgent(delay_s=0), prompt("two  words\nand a line "))
    assert isinstance(final, Final)
    assert "two  words\nand a line " in final.text
    assert all(isinstance(each, Text) for each in texts)
    assert len(texts) > 10
    assert "".join(each.delta for each in texts) == final.text


async def test_the_message_is_a_transcript_message() -> None:
    before_ms = time.time_ns() // 1_000_000
    *_, final = await ask(DemoAgent(delay_s=0), prompt("hello"))
    message = dict(final.message)
    assert before_ms <= message.pop("timestamp") <= time.time_ns() // 1_000_000
    words = len(final.text.split())
    assert message == {
        "role": "assistant",
        "content": [{"type": "text", "text": final.text}],
        "provider": "holdfast",
        "model": "demo",
        "usage": {
            "input": 1,
            "output": words,
            "cacheRead": 0,
            "cacheWrite": 0,
            "totalTokens": 1 + words,
        },
        "stopReason": "stop",
    }


async def test_only_the_first_reply_says_how_to_name_a_model() -> None:
    agent = DemoAgent(delay_s=0, hint="set agents.main.model")
    *_, first = await ask(agent, prompt("hello"))
    assert "built-in demo model" in first.text
    assert "set agents.main.model" in first.text
    history = ({"role": "user", "content": "hello"}, dict(first.message))
    *_, second = await ask(agent, prompt("again", *history))
    assert second.text == "You said: again"


async def test_the_same_prompt_gives_the_same_reply() -> None:
    *_, one = await ask(DemoAgent(delay_s=0), prompt("hello"))
    *_, two = await ask(DemoAgent(delay_s=0), prompt("hello"))
    assert one.text == two.text


async def test_an_empty_question_is_answered() -> None:
    *_, final = await ask(DemoAgent(delay_s=0), prompt(""))
    assert final.text.startswith("You said: ")
