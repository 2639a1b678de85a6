"""User code that only the type checker runs: the public surface is typed as it is told."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, assert_type

import holdfast
from holdfast.ports import Agent, ToolHook
from holdfast.types import AgentEvent, Final, Prompt, Text


class Echo:
    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        yield Text(prompt.text)
        yield Final({"role": "assistant", "content": prompt.text}, prompt.text)


@holdfast.tool(replay="safe", timeout_s=5)
def weather(city: str) -> str:
    return city


async def main() -> None:
    agent: Agent = Echo()
    async with holdfast.open("./state", agent=agent, settings={"turn.queue_max": 5}) as hf:
        assert_type(hf, holdfast.Holdfast)
        receipt = await hf.submit("main", "hello", lane="user", idempotency_key="m-1")
        assert_type(receipt, holdfast.Receipt)
        outcome = await receipt.outcome(timeout_s=30)
        assert_type(outcome, holdfast.Outcome)
        assert_type(outcome.text, str | None)
        async with hf.turn("main", "hello") as turn:
            assert_type(turn, holdfast.OwnTurn)
            await turn.reply(turn.text)
    async with holdfast.WriteLock("./notes.jsonl", timeout_s=10) as claim:
        assert_type(claim.append(b"{}\n", sync=False), int)
    with holdfast.WriteLock(Path("./notes.jsonl")) as claim:
        claim.check()
    async with holdfast.Attempt(Path("./notes.jsonl"), queue_timeout_s=60) as attempt:
        async with attempt.prompt_window() as window:
            assert_type(attempt.state, str)
        assert_type(window.entries, tuple[dict[str, Any], ...])
        async with attempt.locked_write() as writer:
            assert_type(writer.head, str | None)
        assert_type(await attempt.append({"role": "assistant"}), list[dict[str, Any]])
        assert_type(attempt.statistics().windows, int)
        assert_type(await attempt.abort("enough"), bool)
    async with holdfast.open("memory:") as other:
        assert_type(other.store.guarantees, holdfast.ports.Guarantees)
    assert_type(weather("Oslo"), str)
    try:
        await hf.submit("nonsense", "")
    except holdfast.errors.HoldfastError as error:
        assert_type(error.code, str)
