"""Waiting for the write lock in one process, and being cancelled meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.backends.files import identity
from holdfast.backends.files.lock import line
from holdfast.backends.files.lock.climb import Climb
from holdfast.backends.files.lock.write_lock import Hold, WriteLock, statistics
from holdfast.errors import (
    DeadlockError,
    LockTimeoutError,
)
from support.locks import in_thread, leaving_nothing, read, stand

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    with leaving_nothing(tmp_path) as where:
        yield where


# ---------------------------------------------------------------- waiting, in one process


def test_the_thread_that_holds_it_is_told_at_once(path: str) -> None:
    with WriteLock(path), pytest.raises(DeadlockError):
        WriteLock(path).acquire_sync()


async def test_the_task_that_holds_it_is_told_at_once(path: str) -> None:
    async with WriteLock(path):
        with pytest.raises(DeadlockError):
            await WriteLock(path).acquire()
        with pytest.raises(DeadlockError):
            WriteLock(path).acquire_sync()


async def test_blocking_the_loop_of_the_holder_is_a_deadlock_too(path: str) -> None:
    held, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with WriteLock(path):
            held.set()
            await go_on.wait()

    task = asyncio.create_task(hold())
    await held.wait()
    with pytest.raises(DeadlockError):
        WriteLock(path).acquire_sync()
    go_on.set()
    await task


async def test_tasks_and_threads_get_it_in_the_order_in_which_they_came(path: str) -> None:
    order: list[int] = []
    hold = await WriteLock(path).acquire()
    tasks = []

    async def by_task(number: int) -> None:
        async with WriteLock(path):
            order.append(number)

    def by_thread(number: int) -> None:
        with WriteLock(path):
            order.append(number)

    for number in range(10):
        start = by_task(number) if number % 2 else asyncio.to_thread(by_thread, number)
        tasks.append(asyncio.create_task(start))
        while line.lines()[path] < number + 2:
            await asyncio.sleep(0)
    hold.release()
    await asyncio.gather(*tasks)
    assert order == list(range(10))


async def test_a_hundred_tasks_lose_nothing(path: str) -> None:
    lock = WriteLock(path)

    async def write(number: int) -> None:
        async with lock as hold:
            hold.append(b"%d\n" % number, sync=False)

    await asyncio.gather(*[write(number) for number in range(100)])
    assert read(path).split() == [b"%d" % number for number in range(100)]


def test_loops_in_several_threads_share_one_line(path: str) -> None:
    def run(number: int) -> None:
        async def work() -> None:
            for _ in range(10):
                async with WriteLock(path) as hold:
                    hold.append(b"%d\n" % number, sync=False)

        asyncio.run(work())

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read(path).split()) == sorted(b"%d" % n for n in range(4) for _ in range(10))


async def test_a_timeout_in_line_names_the_holder_and_leaves_the_line(path: str) -> None:
    before = statistics().timeouts
    async with WriteLock(path, lane="cron", run_id="r9"):
        task = asyncio.create_task(WriteLock(path, timeout_s=0.01).acquire())
        with pytest.raises(LockTimeoutError) as caught:
            await task
        with pytest.raises(LockTimeoutError) as caught_too:
            await asyncio.to_thread(WriteLock(path, timeout_s=0.01).acquire_sync)
        assert line.lines() == {path: 1}
    for error in (caught.value, caught_too.value):
        assert f"pid {os.getpid()} on {identity.me().host} (alive)" in error.holder
        assert "lane cron, run r9" in error.holder
    assert statistics().timeouts == before + 2


async def test_a_timeout_at_the_gate_names_the_holder(path: str) -> None:
    """The lock is held under another name, so this process's line does not see it."""
    WriteLock(path).acquire_sync().release()
    os.link(path, path + "2")
    async with WriteLock(path + "2", lane="cron"):
        os.link(path + "2.lock", path + ".lock")  # As a holder elsewhere would have it.
        task = asyncio.create_task(WriteLock(path, timeout_s=0.02).acquire())
        with pytest.raises(LockTimeoutError, match="lane cron"):
            await task
        os.unlink(path + ".lock")


async def test_the_loop_runs_on_while_a_task_waits(path: str) -> None:
    stranger = path + ".lock"
    with open(stranger, "w") as file:
        file.write("{}")
    task = asyncio.create_task(WriteLock(path).acquire())
    for _ in range(1000):
        await asyncio.sleep(0)
    assert not task.done()
    os.unlink(stranger)
    (await task).release()


# --------------------------------------------------------------------------- cancellation


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("after", range(12))
@pytest.mark.parametrize("meets", ["nobody", "a_task", "a_stranger", "no_file"])
async def test_cancelled_at_any_step_it_leaves_nothing(
    path: str, after: int, meets: str
) -> None:
    if meets != "no_file":
        (await WriteLock(path).acquire()).release()
    first = await WriteLock(path).acquire() if meets == "a_task" else None
    if meets == "a_stranger":
        stand(path, pid=1)
    task = asyncio.create_task(use(path))
    await steps(after // 2)
    if after % 2:  # What it waits for comes, and the cancellation right behind it.
        if first is not None:
            first.release()
        if meets == "a_stranger":
            os.unlink(path + ".lock")
        await steps(1)
    task.cancel()
    await asyncio.wait([task])
    if first is not None:
        first.release()
    if meets == "a_stranger" and os.path.exists(path + ".lock") and not after % 2:
        os.unlink(path + ".lock")
    async with WriteLock(path, timeout_s=5) as hold:
        hold.append(b"{}\n", sync=False)


async def use(path: str) -> None:
    async with WriteLock(path) as hold:
        hold.append(b"{}\n", sync=False)
        await asyncio.sleep(0)


async def test_cancelled_while_a_stranger_holds_it_leaves_the_line_at_once(path: str) -> None:
    stand(path, pid=1)
    task = asyncio.create_task(WriteLock(path).acquire())
    await steps(2)
    assert line.lines() == {path: 1}
    task.cancel()
    async with asyncio.timeout(5):
        while line.lines():
            await asyncio.sleep(0)
    assert task.cancelled()
    os.unlink(path + ".lock")


async def test_cancelled_in_the_very_step_that_succeeds_it_gives_back(
    path: str, monkeypatch: Any
) -> None:
    stand(path, pid=1)
    succeeded, cancelled, real = threading.Event(), threading.Event(), Climb.step

    def step(climb: Climb, *, may_block: bool) -> float | None:
        wait_s = real(climb, may_block=may_block)
        if may_block and wait_s is None:
            succeeded.set()
            assert cancelled.wait(10)
        return wait_s

    monkeypatch.setattr(Climb, "step", step)
    task = asyncio.create_task(WriteLock(path).acquire())
    await steps(2)
    os.unlink(path + ".lock")
    assert succeeded.wait(10)  # The loop stands still meanwhile.
    task.cancel()
    await steps(3)
    assert task.cancelled()
    cancelled.set()
    async with asyncio.timeout(5):
        while line.lines():
            await asyncio.sleep(0)
    assert not os.path.exists(path + ".lock")


async def test_a_cancelled_waiter_lets_the_one_behind_it_through(path: str) -> None:
    first = await WriteLock(path).acquire()
    tasks = [asyncio.create_task(use(path)) for _ in range(3)]
    await steps(2)
    assert line.lines() == {path: 4}
    tasks[0].cancel()
    await steps(2)
    assert line.lines() == {path: 3}
    first.release()
    tasks[1].cancel()  # Granted already, and not awake yet.
    await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [True, True, False]


def test_a_waiter_whose_loop_is_gone_does_not_break_the_chain(path: str) -> None:
    hold = WriteLock(path).acquire_sync()
    loop = asyncio.new_event_loop()
    dead = line.Place(blocking=False, key=line.key_of(line.inode_of(path)))

    def wake() -> None:
        loop.call_soon_threadsafe(print)

    dead.wake = wake
    assert not in_thread(lambda: line.join(path, dead))
    loop.close()
    got: list[Hold] = []
    behind = threading.Thread(target=lambda: got.append(WriteLock(path).acquire_sync()))
    behind.start()
    while line.lines()[path] < 3:
        pass
    hold.release()
    behind.join()
    got[0].release()


def test_statistics_count_what_happened(path: str) -> None:
    before = statistics()
    with WriteLock(path):
        pass
    after = statistics()
    assert after.acquired == before.acquired + 1
    assert after.hold_max_ms > 0
