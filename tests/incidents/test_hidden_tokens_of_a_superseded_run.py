"""
A superseded run went on talking (PR #82891: "stale attempts are fenced before live output, tool
execution, transcript writes and cleanup").

What happened there: another run took over, and the old one still streamed blocks to the chat,
started tools and ran its hooks; only its transcript writes were checked in the end, so a tool
ran twice and a reader saw two answers.

What happens here: the right to act is checked before each token, each tool and each write.
After it is gone there is none of them, and a cleanup gets nothing to write with.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast._core.turns import Event
from holdfast.backends.files.store import this_process
from holdfast.errors import AbortedError, TakeoverError
from holdfast.types import FencingToken, Final, Prompt, Text, ToolCall
from support import oracle
from support.incident import KEY, entries, said, until


class Unaware:
    """Talks on, and pays, when it is let; the second prompt is answered at once."""

    def __init__(self, *, pays: bool) -> None:
        self._pays = pays
        self.first_token, self.go_on = asyncio.Event(), asyncio.Event()
        self.prompts = 0
        self.paid: list[int] = []

    async def respond(self, prompt: Prompt, hook: Any) -> AsyncGenerator[Any, None]:
        self.prompts += 1
        run = self.prompts
        if run == 1:
            yield Text(delta="early")
            self.first_token.set()
            await self.go_on.wait()
            if self._pays:
                yield Text(delta="hidden")
        if self._pays:
            await hook(ToolCall(f"c{run}", "pay", {}), lambda: self._pay(run))
        content = [{"type": "text", "text": f"by run {run}"}]
        yield Final(message={"role": "assistant", "content": content}, text=f"by run {run}")

    async def _pay(self, run: int) -> str:
        self.paid.append(run)
        return "paid"


@pytest.mark.parametrize("pays", [True, False], ids=["a token, a tool", "its reply"])
async def test_after_its_token_moved_on_it_shows_starts_and_writes_nothing(
    tmp_path: Path, pays: bool
) -> None:
    agent = Unaware(pays=pays)
    async with holdfast.open(tmp_path, agent=agent) as hf:
        receipt = await hf.submit(KEY, "act")
        await agent.first_token.wait()
        control, session = hf.store.control, receipt.session_id
        newest = control.newest_token(session)
        assert newest is not None
        reaper = this_process()  # It lives: nobody ends what it is about to end.
        await control.register(reaper)
        fenced = await control.take_over(session, FencingToken(newest[0]), reaper.owner_id)
        before = oracle.only_transcript(tmp_path).read_bytes()
        agent.go_on.set()
        name = f"turn {receipt.turn_id}"  # It goes as far as it can get.
        await until(lambda: name not in {task.get_name() for task in asyncio.all_tasks()})
        assert oracle.only_transcript(tmp_path).read_bytes() == before, "it has written"
        await control.put_back(
            receipt.turn_id, fenced, what=Event.REQUEUE, reason="owner_silent"
        )
        await control.leave(reaper.owner_id)
        outcome = await receipt.outcome(20)
    assert (outcome.kind, outcome.text) == ("replied", "by run 2")
    assert agent.paid == [2] * pays, "a tool of the superseded run has run"
    found = oracle.read(oracle.only_transcript(tmp_path))
    oracle.check_whole(found)
    assert [oracle.text_of(each) for each in oracle.finals(found)] == ["by run 2"]
    logs = "".join(log.read_text() for log in (tmp_path / "live").glob("*.ndjson"))
    assert "hidden" not in logs, "a token of the superseded run was shown"
    assert "early" in logs


async def test_a_lone_attempt_stops_between_two_tokens(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    produced: list[int] = []

    async def tokens() -> AsyncIterator[int]:
        for n in range(10):
            produced.append(n)
            yield n

    shown: list[int] = []
    async with holdfast.Attempt(path) as attempt:
        with pytest.raises(AbortedError):
            async with aclosing(attempt.stream(tokens())) as stream:
                async for token in stream:
                    shown.append(token)
                    if token == 2:
                        await attempt.abort("superseded")
        with pytest.raises(AbortedError, match="superseded"):
            attempt.check()  # What a tool's start and a hook ask.
        async with attempt.cleanup() as writer:
            assert writer is None, "a cleanup could still write"
    assert shown == [0, 1, 2]
    assert len(produced) <= 4, "the model was left running"
    assert entries(path) == []


async def test_after_a_takeover_too(tmp_path: Path) -> None:
    """Found at its own write in the window: from then on nothing is shown either."""
    path = tmp_path / "talk.jsonl"

    async def tokens() -> AsyncIterator[str]:
        yield "shown"
        yield "hidden"

    shown: list[str] = []
    async with holdfast.Attempt(path) as attempt:
        await attempt.append(said("q", "user"))
        with pytest.raises(TakeoverError):
            async with aclosing(attempt.stream(tokens())) as stream:
                async for token in stream:
                    shown.append(token)
                    path.write_text(json.dumps({"type": "session", "version": 3, "id": "s"}))
                    with suppress(TakeoverError):
                        await attempt.append(said("a tool's result"))
        async with attempt.cleanup() as writer:
            assert writer is None
    assert shown == ["shown"]
    assert "result" not in path.read_text()
