"""
A run that was torn down kept its place, and the next one waited for ever (#86014, #86427,
#86067, #86530).

What happened there: whatever left a run past its usual end, an error after the prompt, an
abort, a dispose between giving the lock back and taking it again, left the lock or the place
in line with nobody.  The next lane's `releaseForPrompt` hung until the proof's 200 ms were
over; with `dispose` vacating first it took 3.5 ms.

What happens here: every way out gives back what is held, each once, whatever it was.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import holdfast
from holdfast.backends.files.lock.write_lock import statistics
from holdfast.errors import AbortedError, LockTimeoutError
from support.incident import nobody_is_blocked, said, texts, until

#: Takes a window, says so, and is killed in it.
IN_ITS_WINDOW = """
import asyncio, sys, holdfast
async def main():
    async with holdfast.Attempt(sys.argv[1]) as attempt:
        async with attempt.prompt_window():
            print("open", flush=True)
            await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk.jsonl"


async def test_disposed_of_in_its_window_twice_the_next_lane_does_not_hang(path: Path) -> None:
    """The thread's scenario C: no reacquire, dispose, dispose again."""
    async with holdfast.Attempt(path) as torn:
        window = torn.prompt_window()
        await window.__aenter__()
        async with holdfast.Attempt(path, timeout_s=5) as following:
            opening = following.prompt_window()
            waiting = asyncio.create_task(opening.__aenter__())
            await until(lambda: following.state == "in_line")
            await torn.dispose()
            await torn.dispose()
            await asyncio.wait_for(waiting, 20)
            await opening.__aexit__(None, None, None)
            await following.append(said("the next lane's reply"))
        with suppress(AbortedError):
            await window.__aexit__(None, None, None)
    assert texts(path) == ["the next lane's reply"]
    await nobody_is_blocked(path)


async def test_the_lock_taken_at_the_beginning_is_given_back_without_a_cleanup(
    path: Path,
) -> None:
    attempt = holdfast.Attempt(path)
    await attempt.__aenter__()
    with pytest.raises(LockTimeoutError):
        await asyncio.to_thread(holdfast.WriteLock(path, timeout_s=0).acquire_sync)
    await attempt.dispose()
    await nobody_is_blocked(path)


async def test_disposing_again_never_takes_the_next_owners_lock(path: Path) -> None:
    """Released twice, and the second time it was somebody else's."""
    first = holdfast.Attempt(path)
    await first.__aenter__()
    async with first.cleanup() as writer:
        assert writer is not None
        writer.append({"type": "custom", "customType": "cleaned up"})
    await first.dispose()
    async with holdfast.Attempt(path) as second:
        claim = Path(f"{path}.lock").read_bytes()
        await first.dispose()
        await first.abort()
        assert Path(f"{path}.lock").read_bytes() == claim
        with pytest.raises(LockTimeoutError):
            await asyncio.to_thread(holdfast.WriteLock(path, timeout_s=0).acquire_sync)
        await second.append(said("still mine"))
    await nobody_is_blocked(path)


async def test_what_was_posted_is_no_reason_to_wait_for_a_busy_lock(path: Path) -> None:
    """A cleanup takes what it needs or nothing; it does not wait out the lock's own time."""
    async with holdfast.Attempt(path, timeout_s=4, settle_s=0.02) as attempt:
        window = attempt.prompt_window()
        await window.__aenter__()
        hold = await holdfast.WriteLock(path).acquire()
        attempt.post({"type": "custom", "customType": "late"})
        before = statistics().timeouts
        await attempt.dispose()
        assert statistics().timeouts == before, "it has waited for the lock to the end"
        assert attempt.statistics().posted == 1, "what was not written is not said"
        hold.release()
        with suppress(AbortedError):
            await window.__aexit__(None, None, None)
    await nobody_is_blocked(path)


@pytest.mark.parametrize("state", ["window", "in_line"])
async def test_cancelled_wherever_it_was(path: Path, state: str) -> None:
    reached: list[holdfast.Attempt] = []

    async def run() -> None:
        async with holdfast.Attempt(path) as attempt:
            reached.append(attempt)
            async with attempt.prompt_window():
                await asyncio.Event().wait()

    async with holdfast.Attempt(path) as before:
        window = before.prompt_window()
        if state == "in_line":
            await window.__aenter__()
        else:
            await before.dispose()
        task = asyncio.create_task(run())
        await until(lambda: reached and reached[0].state == state)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        if state == "in_line":
            await window.__aexit__(None, None, None)
    await nobody_is_blocked(path)


async def test_killed_in_its_window_it_is_passed_over(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", IN_ITS_WINDOW, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert await asyncio.to_thread(process.stdout.readline) == "open\n"
        async with holdfast.Attempt(path) as attempt:
            window = attempt.prompt_window()
            opening = asyncio.create_task(window.__aenter__())
            await until(lambda: attempt.state == "in_line")
            os.kill(process.pid, signal.SIGKILL)
            await asyncio.wait_for(opening, 30)
            await window.__aexit__(None, None, None)
            await attempt.append(said("answered"))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert texts(path) == ["answered"]
