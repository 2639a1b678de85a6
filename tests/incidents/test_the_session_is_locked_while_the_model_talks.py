"""
The session was locked while the model talked (PR #82891, issue #13744).

What happened there: an embedded run took the write lock when it began and gave it back when
it had cleaned up; 68.8 to 180.3 s on the testbed, over the model's 44.8 s.  Another writer in
the same process timed out in 26 ms of 25 allowed.  After the fix the window covered no more
than the creation of the stream: it was locked again before the first token, and stayed so
while tokens streamed and tools ran.

What happens here: from before the model is called until its reply is finished nothing is
held, over the whole stream and every tool; only writing takes the lock.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import holdfast
from holdfast.backends.files.lock.write_lock import statistics
from holdfast.testing import ModelServer, ScriptedModel, Step
from holdfast.testing.scripted import Act, Call, Say
from support import oracle
from support.incident import APPEND, KEY, in_another_process


def pydantic_agent(server: ModelServer) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return Agent(
        OpenAIChatModel("m", provider=OpenAIProvider(base_url=server.base_url, api_key="x"))
    )


async def test_others_write_between_two_tokens_of_a_real_stream(tmp_path: Path) -> None:
    """Over HTTP, one token out and the next one held back: in this process and in another."""
    step = Step.reply("one ", "two").held(after=1)
    assert step.reached is not None
    assert step.gate is not None
    with ModelServer([step]) as server:
        async with holdfast.open(tmp_path, agent=pydantic_agent(server)) as hf:
            receipt = await hf.submit(KEY, "count")
            assert await asyncio.to_thread(step.reached.wait, 30)
            path = oracle.only_transcript(tmp_path)
            [question] = oracle.read(path)
            assert not os.path.lexists(f"{path}.lock"), "a claim stands while it streams"
            note = {"type": "custom", "id": "here", "parentId": question["id"]}
            async with holdfast.WriteLock(path, timeout_s=5) as hold:
                hold.append(json.dumps(note).encode() + b"\n", sync=False)
            other = {"type": "custom", "id": "there", "parentId": "here"}
            await in_another_process(APPEND, path, json.dumps(other))
            assert not step.gate.is_set()
            step.gate.set()
            assert (await receipt.outcome(30)).text == "one two"
    found = oracle.read(path)
    assert [each["id"] for each in found[1:3]] == ["here", "there"]
    assert found[3]["parentId"] == "there"


async def test_it_is_free_while_a_tool_runs_and_between_two_model_calls(tmp_path: Path) -> None:
    claims: list[bool] = []

    async def tool() -> str:
        path = oracle.only_transcript(tmp_path)
        claims.append(os.path.lexists(f"{path}.lock"))
        async with holdfast.WriteLock(path, timeout_s=5):
            return "done"

    acts: list[Act] = [Call("a", tool), Call("b", tool, call_id="call_2"), Say(("ok",))]
    async with holdfast.open(tmp_path, agent=ScriptedModel(acts)) as hf:
        assert (await (await hf.submit(KEY, "go")).outcome(20)).kind == "replied"
    assert claims == [False, False]


async def test_a_turn_takes_the_lock_for_its_writing_only(tmp_path: Path) -> None:
    """However long the model talks: once for the question, once for the reply."""
    tokens = tuple("abcdefghij")
    async with holdfast.open(tmp_path, agent=ScriptedModel([Say(tokens)])) as hf:
        before = statistics().acquired
        assert (await (await hf.submit(KEY, "go")).outcome(20)).kind == "replied"
        assert statistics().acquired == before + 2
