"""
A timeout of one run blocked all later ones (the fork's PR #6 behind #89811, #90065).

What happened there: a turn's timeout aborted the run, but giving the lock back waited for
every writer that still used it, without a bound.  One transcript write pinned behind a
provider's stream that ignores its abort held the session until the watchdog, 5 to 30 minutes;
each turn in between failed with SessionWriteLockTimeoutError.

What happens here: an abort is over within `abort.settle_ms`, whoever hangs.  A write call that
is under way ends whole; who has not begun one is told that the attempt is over, and can write
no more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import _points
from holdfast.errors import AbortedError, LockLostError, LockWaitError
from holdfast.types import Final, Prompt, Text
from support import oracle
from support.incident import KEY, nobody_is_blocked, said, texts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk.jsonl"


async def hangs(attempt: holdfast.Attempt, writing: asyncio.Event) -> object:
    """A write pinned behind a stream that ignores its abort; it wakes up much too late."""
    async with attempt.locked_write() as writer:
        writing.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return writer.append(said("a zombie's"))


@pytest.mark.parametrize("in_a_window", [False, True], ids=["held", "in its window"])
async def test_the_next_run_has_the_lock_though_a_writer_never_ends(
    path: Path, in_a_window: bool
) -> None:
    async with holdfast.Attempt(path, settle_s=0.05) as attempt:
        writing = asyncio.Event()

        async def run() -> None:
            if in_a_window:
                async with attempt.prompt_window():
                    await hangs(attempt, writing)
            else:
                await hangs(attempt, writing)

        task = asyncio.create_task(run())
        await writing.wait()
        assert await asyncio.wait_for(attempt.abort("timed out"), 30) is True
        async with holdfast.Attempt(path, timeout_s=2, queue_timeout_s=2) as following:
            async with following.prompt_window():
                pass
            await following.append(said("the next reply"))
        task.cancel()
        [done] = (await asyncio.wait({task}))[0]
        assert isinstance(done.exception(), AbortedError | LockLostError)
    assert texts(path) == ["the next reply"], "a torn write after ownership was lost"
    await nobody_is_blocked(path)


async def test_a_write_call_under_way_ends_whole_and_gives_the_lock_back(path: Path) -> None:
    """Nothing can recall it, and nobody is let in beside it; a torn line would be worse."""
    inside, go_on = threading.Event(), threading.Event()

    def stop_here() -> None:
        inside.set()
        assert go_on.wait(60)

    _points.install("append.checked", stop_here)
    try:
        async with holdfast.Attempt(path, settle_s=0.05) as attempt:

            async def writing() -> None:
                async with attempt.locked_write() as writer:
                    await asyncio.to_thread(writer.append, said("whole"))

            task = asyncio.create_task(writing())
            assert await asyncio.to_thread(inside.wait, 60)
            assert await attempt.abort("timed out") is False, "it said that nothing is held"
            with pytest.raises(LockWaitError):
                await holdfast.WriteLock(path, timeout_s=0.05).acquire()
            go_on.set()
            await asyncio.wait({task})
    finally:
        _points.install("append.checked", lambda: None)
    assert texts(path) == ["whole"]
    await nobody_is_blocked(path)


class Stalled:
    """A provider's stream that says one word and then ignores its abort."""

    def __init__(self) -> None:
        self.stalled, self.released = asyncio.Event(), asyncio.Event()
        self.asked = 0

    async def respond(self, prompt: Prompt, hook: Any) -> AsyncGenerator[Any, None]:
        self.asked += 1
        yield Text(delta="well, ")
        while self.asked == 1 and not self.released.is_set():
            self.stalled.set()
            with suppress(asyncio.CancelledError):
                await self.released.wait()
        text = f"answer to {prompt.text}"
        content = [{"type": "text", "text": text}]
        yield Final(message={"role": "assistant", "content": content}, text=text)


async def test_a_cancelled_turn_whose_provider_hangs_makes_room_for_the_next(
    tmp_path: Path,
) -> None:
    agent = Stalled()
    settings = {"abort.settle_ms": 50}
    async with holdfast.open(tmp_path, agent=agent, settings=settings) as hf:
        first = await hf.submit(KEY, "first")
        second = await hf.submit(KEY, "second")
        await agent.stalled.wait()
        await hf.cancel(first.turn_id)
        assert (await first.outcome(20)).kind == "cancelled"
        assert (await second.outcome(20)).text == "answer to second"
        before = oracle.only_transcript(tmp_path).read_bytes()
        agent.released.set()
        for _ in range(20):  # What the zombie still says is heard by nobody.
            await asyncio.sleep(0)
    assert oracle.only_transcript(tmp_path).read_bytes() == before
    assert list(oracle.check_answers(oracle.read(oracle.only_transcript(tmp_path)))) == [
        "second"
    ]
