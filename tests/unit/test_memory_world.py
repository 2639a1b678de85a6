"""What only a memory store can show: several owners in one process, killed one by one."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from holdfast._core.settings import LANES, Lane, Settings
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
        what=Event.GIVE_BACK, reason="write_lock", delay_ms=1_000,
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


async def test_the_stores_clock_never_goes_back_and_reads_the_wall_clock_once() -> None:
    wall_ms, clock_s = [1_000_000_000_000], [50.0]
    world = World(now_ms=lambda: wall_ms[0], monotonic=lambda: clock_s[0])
    store = await opened(world)

    async def accepted_ms() -> int:
        asked = Admission(
            TurnId(uuid7()), KEY, "main", "x", "user", "test", 1, "enqueue", queue_max=10
        )
        return (await store.control.admit(asked, ())).turn.accepted_ms

    assert await accepted_ms() == 1_000_000_000_000
    wall_ms[0] -= 3_600_000  # Somebody sets it back.
    clock_s[0] += 1.5
    assert await accepted_ms() == 1_000_000_001_500
    clock_s[0] -= 1.0  # A process whose clock lags behind.
    assert await accepted_ms() == 1_000_000_001_500
    wall_ms[0] += 7_200_000
    clock_s[0] += 2.0
    assert await accepted_ms() == 1_000_000_002_500


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


async def test_a_reset_moves_one_key_and_leaves_the_others_where_they_are() -> None:
    world = World()
    store = await opened(world)
    session = await session_of(store)
    other = "agent:main:other"  # Two keys of one session, as an older store may have them.
    world.keys[other] = session.session_id
    world.rooms[session.session_id].keys.append(other)
    assert await session_of_key(store, other) == session
    reset = await store.control.reset(KEY)
    assert [(await store.control.turn(each)).session_key for each in reset.moved] == [KEY]
    [left] = await store.control.turns(session_id=session.session_id)
    assert left.session_key == other
    assert await store.control.session_of_key(other) == session


def numbers(world: World) -> dict[str, Any]:
    """What the rows say, to be compared with what is kept beside them for speed."""
    waiting = [turn for turn in world.turns.values() if turn.state == "accepted"]
    queues: dict[tuple[str, str], list[tuple[int, str]]] = {}
    guests: dict[str, list[tuple[int, str]]] = {}
    for turn in waiting:
        at = (turn.admission, turn.turn_id)
        if turn.host is None:
            queues.setdefault((turn.session_id, turn.lane), []).append(at)
        else:
            guests.setdefault(turn.host, []).append(at)
    return {
        "waiting": {turn.turn_id for turn in waiting},
        "running": {turn.turn_id for turn in world.turns.values() if turn.state == "running"},
        "queues": {name: sorted(queue) for name, queue in queues.items()},
        "guests": {host: sorted(queue) for host, queue in guests.items()},
        "lined": {session_id for session_id, _ in queues},
        "wanted": {turn.turn_id for turn in world.turns.values() if turn.slot_wanted},
    }


def kept(world: World) -> dict[str, Any]:
    rooms = world.rooms.items()
    return {
        "waiting": {turn_id for _, room in rooms for turn_id in room.waiting},
        "running": set(world.running),
        "queues": {
            (session_id, lane): queue
            for session_id, room in rooms
            for lane, queue in room.queues.items()
        },
        "guests": dict(world.guests),
        "lined": set(world.lined),
        "wanted": set(world.wanted),
    }


async def test_what_is_kept_for_speed_is_what_the_rows_say() -> None:
    """Over whatever happens to turns: see `tests/property/test_stores_agree.py`, too."""
    world = World()
    store = await opened(world)
    control, me, count = store.control, store.owner.owner_id, 0

    async def admit(policy: str = "enqueue", lane: str = "user", key: str = KEY) -> TurnId:
        nonlocal count
        count += 1
        asked = Admission(
            TurnId(f"turn-{count}"), key, "main", "x", lane, "test", 50, policy,
            queue_max=100, collect_max=5,
        )  # fmt: skip
        turn = (await control.admit(asked, ())).turn
        assert kept(world) == numbers(world)
        return turn.turn_id

    async def step(call: Any) -> Any:
        done = await call
        assert kept(world) == numbers(world)
        return done

    for lane in ("user", "cron", "user"):
        await admit(lane=lane)
    for _ in range(3):
        await admit("collect")
    leased = await step(control.pick(me, ["main"], LANES))
    turn, token = leased.turn.turn_id, leased.token
    into = [await admit("steer") for _ in range(3)]
    await step(control.take(turn, token, {into[0]: "e"}))
    await step(control.wait_for(turn, token, await admit(key="agent:main:child")))
    await step(control.regain(turn, token, {"user": Lane(0, 1)}))
    await step(control.put_back(turn, token, what=Event.REQUEUE, reason="x"))
    leased = await step(control.pick(me, ["main"], LANES))
    await step(control.cancel(into[1]))
    await step(control.reset(KEY))
    token = await step(control.take_over(leased.session.session_id, leased.token, me))
    await step(control.end(turn, token, "failed", "x", None))
    while (leased := await step(control.pick(me, ["main"], LANES))) is not None:
        await step(control.end(leased.turn.turn_id, leased.token, "silent", None, None))
    assert numbers(world) == {
        "waiting": set(), "running": set(), "queues": {}, "guests": {}, "lined": set(),
        "wanted": set(),
    }  # fmt: skip
