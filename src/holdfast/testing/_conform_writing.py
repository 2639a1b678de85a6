"""Clauses about the write lock: one writer, first come, first served, bounded, never leaked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from holdfast.errors import DeadlockError, LockLostError, LockTimeoutError
from holdfast.testing._conform import (
    WITHIN_S,
    admit,
    clause,
    entry,
    hold,
    leased_now,
    opened,
    refused,
    session_now,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store

__all__: list[str] = []  # What it has to say is in the suite already.

STEPS = 20  #: Turns of the loop that a task gets to stand in line.


async def _in_line(call: Any) -> asyncio.Task[Any]:
    """*call*, begun: it waits where it has to."""
    task: asyncio.Task[Any] = asyncio.ensure_future(call)
    for _ in range(STEPS):
        await asyncio.sleep(0)
    return task


@clause
async def a_transcript_has_one_writer(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)
        held = await hold(a, session)
        try:
            rival = asyncio.create_task(hold(b, session, timeout_s=0.05))
            error = await refused(LockTimeoutError, rival)
            assert error.timeout_s == 0.05
            rival = asyncio.create_task(hold(a, session, timeout_s=0.05))
            await refused(LockTimeoutError, rival)
        finally:
            held.release()
        (await hold(b, session)).release()


@clause
async def many_writers_leave_one_unbroken_chain(make: Callable[[], Store]) -> None:
    """Load, think, append: if two held it at once, two entries would have one parent."""
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)

        async def work(store: Store, name: str) -> None:
            for n in range(10):
                held = await hold(store, session, timeout_s=WITHIN_S)
                try:
                    leaf = held.load().leaf
                    await asyncio.sleep(0)
                    held.append([entry(f"{name}-{n}", leaf)], final=False)
                finally:
                    held.release()

        await asyncio.gather(*(work((a, b)[n % 2], f"w{n}") for n in range(6)))
        tree = b.transcripts.read(session)
        assert len(tree.entries) == 60
        assert len(tree.path()) == 60, "somebody wrote on what he had not seen"


@clause
async def who_came_first_writes_first(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)
        held, order = await hold(a, session), []

        async def work(store: Store, number: int) -> None:
            mine = await hold(store, session, timeout_s=WITHIN_S)
            order.append(number)
            mine.release()

        tasks = [await _in_line(work((a, b)[n % 2], n)) for n in range(6)]
        held.release()
        tasks.append(asyncio.create_task(work(a, 6)))  # Not before those who wait.
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4, 5, 6]


@clause
async def who_gives_up_leaves_the_line_to_the_others(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)
        held = await hold(a, session)
        impatient = await _in_line(hold(b, session, timeout_s=0.05))
        cancelled = await _in_line(hold(a, session))
        patient = await _in_line(hold(b, session, timeout_s=WITHIN_S))
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert cancelled.cancelled()
        await refused(LockTimeoutError, impatient)
        held.release()
        (await patient).release()
        (await hold(a, session)).release()


@clause
async def who_is_cancelled_as_it_is_handed_the_lock_hands_it_on(
    make: Callable[[], Store],
) -> None:
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)
        for turns in range(4):  # Of the loop, between the hand-over and the cancellation.
            held = await hold(a, session)
            first = await _in_line(hold(b, session, timeout_s=WITHIN_S))
            second = await _in_line(hold(a, session, timeout_s=WITHIN_S))
            held.release()
            for _ in range(turns):
                await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait({first})
            if not first.cancelled():
                first.result().release()  # It was too late to cancel.
            (await second).release()


@clause
async def an_append_after_the_release_is_refused(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)
        old = await hold(a, session)
        old.release()
        for rival in (None, b):  # The lock is free; and somebody else's.
            new = None if rival is None else await hold(rival, session)
            try:
                old.append([entry("e1", None)], final=True)
            except LockLostError:
                pass
            else:
                raise AssertionError("who had let go of the lock wrote all the same")
            finally:
                old.release()  # Again, and it is not ours: nothing.
            if new is not None:
                second = asyncio.create_task(hold(a, session, timeout_s=0.05))
                await refused(LockTimeoutError, second)
                new.append([entry("e2", None)], final=True)
                new.release()
        assert list(a.transcripts.read(session).entries) == ["e2"]


@clause
async def who_holds_the_lock_and_asks_again_is_told(make: Callable[[], Store]) -> None:
    """It would wait for itself."""
    async with opened(make) as [store]:
        session = await session_now(store)
        held = await hold(store, session)
        try:
            async with asyncio.timeout(WITHIN_S):
                await refused(DeadlockError, hold(store, session, timeout_s=2 * WITHIN_S))
        finally:
            held.release()
        (await hold(store, session)).release()


@clause
async def another_thread_with_its_own_loop_can_write_too(make: Callable[[], Store]) -> None:
    """The reaper has a thread and an event loop of its own."""
    async with opened(make) as [store]:
        session = await session_now(store)
        held = await hold(store, session)
        loop, there = asyncio.get_running_loop(), asyncio.Event()

        async def elsewhere() -> None:
            turn = await admit(store, "from another loop")
            loop.call_soon_threadsafe(there.set)
            mine = await hold(store, session, timeout_s=WITHIN_S)
            mine.append([entry(turn.turn_id, mine.load().leaf)], final=True)
            mine.release()

        working = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
        async with asyncio.timeout(WITHIN_S):
            await there.wait()
        held.append([entry("e1", None)], final=True)
        held.release()
        async with asyncio.timeout(WITHIN_S):
            await working
        assert len(store.transcripts.read(session).path()) == 2


@clause
async def under_the_lock_the_newest_token_is_known(make: Callable[[], Store]) -> None:
    """
    Who was fenced before it got the lock sees it there: it appends before the new owner
    loads, or not at all.
    """
    async with opened(make, 2) as [old, reaper]:
        turn = await admit(old)
        leased = await leased_now(old)
        session, me = leased.session, reaper.owner.owner_id
        theirs = await hold(reaper, session)
        waiting = await _in_line(hold(old, session, timeout_s=WITHIN_S))
        newer = await reaper.control.take_over(turn.session_id, leased.token, me)
        theirs.append([entry("ended", None)], final=True)
        theirs.release()
        held = await waiting
        try:
            assert old.control.newest_token(turn.session_id) == (newer, me)
            assert list(held.load().entries) == ["ended"]
        finally:
            held.release()


@clause
async def holds_are_counted(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)
        before = b.hold_statistics()
        held = await hold(b, session)
        waiting = await _in_line(hold(b, session, timeout_s=WITHIN_S))
        await refused(LockTimeoutError, asyncio.create_task(hold(b, session, timeout_s=0.05)))
        held.release()
        (await waiting).release()
        after = b.hold_statistics()
        assert after.acquired - before.acquired == 2
        assert after.contended - before.contended == 1
        assert after.timeouts - before.timeouts == 1
