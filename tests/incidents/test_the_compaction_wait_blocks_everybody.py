"""
The wait for a compaction blocked everybody (PR #86067).

What happened there: after a prompt the attempt waits for compaction, up to 180 s (once 900 s),
with the lock given back by the same call that a prompt uses.  With a line of prompts per file
that wait would have taken a place in it, and every lane of the session stood behind a wait
that prompts nobody; `releaseForSessionIdleWait` was split off for that.

What happens here: `idle_wait` gives the lock back and stands in no line.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import holdfast
from support.incident import appends, entries, nobody_is_blocked, said, texts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk.jsonl"


async def test_other_lanes_prompt_while_one_waits(path: Path) -> None:
    """One that waits before it ever prompted, and three that prompt meanwhile."""
    async with holdfast.Attempt(path) as waiting:
        async with waiting.idle_wait():
            for n in range(3):
                async with holdfast.Attempt(path, timeout_s=2, queue_timeout_s=2) as lane:
                    async with lane.prompt_window():
                        pass
                    await lane.append(said(f"reply {n}"))
        await waiting.append({"type": "custom", "customType": "compacted"})
    assert texts(path) == [f"reply {n}" for n in range(3)]
    assert entries(path)[-1]["customType"] == "compacted"
    await nobody_is_blocked(path)


async def test_who_waits_for_a_compaction_waits_for_no_prompt(path: Path) -> None:
    """The other way round: somebody's model talks for ever, and the wait begins and ends."""
    async with holdfast.Attempt(path) as talking, talking.prompt_window():
        async with holdfast.Attempt(path, timeout_s=2, queue_timeout_s=2) as waiting:
            async with waiting.idle_wait():
                pass
            await waiting.append(said("from the one that waited"))
    assert texts(path) == ["from the one that waited"]


async def test_the_compaction_that_was_waited_for_is_no_takeover(path: Path) -> None:
    async with holdfast.Attempt(path) as attempt:
        async with attempt.prompt_window():
            pass
        [reply] = await attempt.append(said("the reply"))
        async with attempt.idle_wait():
            appends(path, type="compaction", summary="s", firstKeptEntryId=reply["id"])
        [after] = await attempt.append(said("after it"))
    assert after["parentId"] == entries(path)[-2]["id"]
    assert entries(path)[-2]["type"] == "compaction"


async def test_a_wait_that_is_given_up_leaves_nothing(path: Path) -> None:
    waiting = asyncio.Event()

    async def wait() -> None:
        async with holdfast.Attempt(path) as attempt, attempt.idle_wait():
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await waiting.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    await nobody_is_blocked(path)
