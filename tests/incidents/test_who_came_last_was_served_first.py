"""
Who came last was served first (the file owner of #87159, which replaced PR #86067).

What happened there: giving the file up woke all who waited, and they raced; somebody who came
in the same tick won over all of them: served "late, 1, 2, 3".  The time-out began anew with
each lost race, so one of 100 ms had not fired after 382 ms.

What happens here: one line, first in, first out; it moves before anybody is woken, and who
gives up waiting is out of it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import holdfast
from holdfast.backends.files.lock import line
from holdfast.errors import LockTimeoutError, OwnerWaitError
from support.incident import nobody_is_blocked, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk.jsonl"


async def test_a_newcomer_in_the_very_tick_of_the_release_waits_behind_all(path: Path) -> None:
    served: list[str] = []

    async def take(name: str) -> None:
        async with holdfast.WriteLock(path, timeout_s=30):
            served.append(name)

    hold = await holdfast.WriteLock(path).acquire()
    waiting = []
    for name in "123":
        waiting.append(asyncio.create_task(take(name)))
        await until(lambda: sum(line.lines().values()) == len(waiting) + 1)
    hold.release()
    await take("late")  # Without a single await in between.
    await asyncio.gather(*waiting)
    assert served == ["1", "2", "3", "late"]


async def test_prompts_are_in_the_order_in_which_they_were_asked_for(path: Path) -> None:
    served: list[int] = []
    attempts: list[holdfast.Attempt] = []

    async def lane(n: int) -> None:
        async with holdfast.Attempt(path, timeout_s=30) as attempt:
            attempts.append(attempt)
            async with attempt.prompt_window():
                served.append(n)

    async with holdfast.Attempt(path) as first:
        window = first.prompt_window()
        await window.__aenter__()
        lanes = []
        for n in range(4):
            lanes.append(asyncio.create_task(lane(n)))
            await until(lambda: [a.state for a in attempts] == ["in_line"] * len(lanes))
        await window.__aexit__(None, None, None)
        await first.dispose()
    await asyncio.gather(*lanes)
    assert served == [0, 1, 2, 3]
    await nobody_is_blocked(path)


async def test_who_gives_up_is_out_of_the_line(path: Path) -> None:
    hold = await holdfast.WriteLock(path).acquire()
    with pytest.raises(LockTimeoutError):
        await asyncio.create_task(holdfast.WriteLock(path, timeout_s=0.02).acquire())
    cancelled = asyncio.create_task(holdfast.WriteLock(path).acquire())
    await until(lambda: sum(line.lines().values()) == 2)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    assert sum(line.lines().values()) == 1
    following = asyncio.create_task(holdfast.WriteLock(path, timeout_s=30).acquire())
    await until(lambda: sum(line.lines().values()) == 2)
    hold.release()
    (await following).release()
    await nobody_is_blocked(path)


async def test_nor_does_who_gave_up_its_prompt_hold_anybody_up(path: Path) -> None:
    async def impatient() -> None:
        async with holdfast.Attempt(path, queue_timeout_s=0.02) as second:
            async with second.prompt_window():
                pytest.fail("a second window of one file was opened")

    async with holdfast.Attempt(path) as first, first.prompt_window():
        with pytest.raises(OwnerWaitError):
            await asyncio.create_task(impatient())
    await nobody_is_blocked(path)
