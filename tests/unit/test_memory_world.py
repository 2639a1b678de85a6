"""What only a memory store can show: several owners in one process, killed one by one."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from holdfast._core.settings import LANES, Settings
from holdfast._core.turns import Event
from holdfast._stamps import uuid7
from holdfast.backends.memory import MemoryStore, World
from holdfast.errors import ForkedError, LockLostError, StoreError, UnavailableError
from holdfast.types import Admission, FencingToken, Session, TurnId

KEY = "agent:main:main"


async def opened(world: World) -> MemoryStore:
    store = MemoryStore(world, Settings())
    await store.control.register(store.owner)
    return store


async def session_of(store: MemoryStore) -> Session:
    asked = Admission(
        TurnId(uuid7()), KEY, "main", "hello", "user", "test", 100, "enqueue", queue_max=10
    )
    turn = (await store.control.admit(asked, ())).turn
    return await store.control.session(turn.session_id)


def hold(store: MemoryStore, session: Session, timeout_s: float = 20.0) -> Any:
    return store.transcripts.acquire(
        session, timeout_s=timeout_s, token=None, run_id=None, lane=None
    )


async def in_line(call: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.ensure_future(call)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def test_a_killed_holder_writes_no_more_and_the_next_one_goes_on_at_once() -> None:
    world = World()
    dead, other = await opened(world), await opened(world)
    session = await session_of(dead)
    held = await hold(dead, session)
    waiting = await in_line(hold(other, session))
    world.kill(dead.owner.owner_id)
    with pytest.raises(LockLostError):
        held.append([{"type": "custom", "id": "e1", "parentId": None}], final=True)
    theirs = await asyncio.wait_for(waiting, 20)
    held.release()  # Frees nothing that is not its own.
    with pytest.raises(StoreError, match="written yet"):
        other.transcripts.read(await session_of_key(other, "agent:main:empty"))
    theirs.append([{"type": "custom", "id": "e2", "parentId": None}], final=True)
    theirs.release()
    assert list(other.transcripts.read(session).entries) == ["e2"]
    assert other.is_dead(dead.owner)
    assert not other.is_dead(other.owner)


async def session_of_key(store: MemoryStore, key: str) -> Session:
    asked = Admission(TurnId(uuid7()), key, "main", "x", "user", "test", 1, "enqueue", 10)
    turn = (await store.control.admit(asked, ())).turn
    return await store.control.session(turn.session_id)


async def test_a_killed_waiter_is_told_at_once_and_keeps_nobody_waiting() -> None:
    world = World()
    dead, other = await opened(world), await opened(world)
    session = await session_of(dead)
    held = await hold(other, session)
    killed = await in_line(hold(dead, session, timeout_s=3600))
    behind = await in_line(hold(other, session))
    world.kill(dead.owner.owner_id)
    with pytest.raises(UnavailableError):
        await asyncio.wait_for(killed, 20)
    held.release()
    (await asyncio.wait_for(behind, 20)).release()


async def test_a_killed_owner_does_nothing_any_more_and_its_lease_stands_for_the_reaper() -> (
    None
):
    world = World()
    dead, other = await opened(world), await opened(world)
    await session_of(dead)
    leased = await dead.control.pick(dead.owner.owner_id, ["main"], LANES)
    assert leased is not None
    log = dead.live.open(leased.turn.turn_id, leased.token)
    world.kill(dead.owner.owner_id)
    control = dead.control
    for call in (
        control.beat(dead.owner.owner_id),
        control.leave(dead.owner.owner_id),
        control.put_back(leased.turn.turn_id, leased.token, what=Event.REQUEUE, reason="x"),
        control.turn(leased.turn.turn_id),
    ):
        with pytest.raises(UnavailableError):
            await call
    with pytest.raises(UnavailableError):
        control.newest_token(leased.session.session_id)
    log.write(b'{"id": "1.1", "event": "text", "at": "", "data": {}}\n')
    assert other.live.tail(leased.turn.turn_id).read(leased.token) == []
    [lease] = (await other.control.look(other.owner.owner_id)).leases
    assert lease.owner_id == dead.owner.owner_id


async def test_a_waiter_whose_loop_is_closed_does_not_break_the_line() -> None:
    world = World()
    store = await opened(world)
    session = await session_of(store)
    held = await hold(store, session)
    kept: list[Any] = []

    def abandon() -> None:
        """Stand in line, then end loop and thread without a word."""
        loop = asyncio.new_event_loop()
        task = loop.create_task(hold(store, session, timeout_s=3600))
        loop.run_until_complete(asyncio.sleep(0))
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        kept.append(task)

    await asyncio.to_thread(abandon)
    behind = await in_line(hold(store, session))
    held.release()
    (await asyncio.wait_for(behind, 20)).release()


async def test_time_is_what_the_world_is_given() -> None:
    now = [1_000_000_000_000]
    world = World(now_ms=lambda: now[0], monotonic=lambda: now[0] / 1000)
    store = await opened(world)
    session = await session_of(store)
    me = store.owner.owner_id
    leased = await store.control.pick(me, ["main"], LANES)
    assert leased is not None
    assert leased.turn.accepted_at == leased.turn.started_at == "2001-09-09T01:46:40.000Z"
    await store.control.put_back(
        leased.turn.turn_id, leased.token,
        what=Event.GIVE_BACK, reason="write_lock", not_before_ms=now[0] + 1_000,
    )  # fmt: skip
    assert await store.control.pick(me, ["main"], LANES) is None
    now[0] += 1_000
    assert await store.control.pick(me, ["main"], LANES) is not None
    held = await hold(store, session)
    now[0] += 2_500
    held.release()
    statistics = store.hold_statistics()
    assert (statistics.acquired, statistics.long_holds, statistics.held_s) == (1, 1, 2.5)
    assert statistics.hold_max_ms == 2_500


async def test_a_forked_child_holds_nothing_and_is_told_so() -> None:
    store = await opened(World())
    session = await session_of(store)
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            store.control.newest_token(session.session_id)
        except ForkedError:
            os.write(tell, b"forked")
        finally:
            os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    assert os.read(told, 100) == b"forked"
    os.close(told)
    assert store.control.newest_token(session.session_id) is None


async def test_many_threads_lose_no_entry_and_no_token() -> None:
    world = World()
    store = await opened(world)
    session = await session_of(store)

    async def work(name: str) -> None:
        mine = await opened(world)
        for n in range(25):
            held = await hold(mine, session)
            leaf = held.load().leaf
            held.append(
                [{"type": "custom", "id": f"{name}-{n}", "parentId": leaf}], final=False
            )
            held.release()
        await mine.close()

    await asyncio.gather(
        *(asyncio.to_thread(asyncio.run, work(f"t{number}")) for number in range(4))
    )
    tree = store.transcripts.read(session)
    assert len(tree.path()) == len(tree.entries) == 100


async def test_a_token_that_never_was_is_refused_as_an_old_one() -> None:
    store = await opened(World())
    session = await session_of(store)
    [turn] = await store.control.turns()
    assert session.session_id == turn.session_id
    with pytest.raises(Exception, match="no longer holds"):
        await store.control.make_effective(turn.turn_id, FencingToken(7))
