"""Clauses about live output, being woken, and secrets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from holdfast._core import jsonl
from holdfast._core.turns import Event
from holdfast._stamps import uuid7
from holdfast.ports import Guarantees
from holdfast.testing._conform import (
    COMMIT,
    WITHIN_S,
    admit,
    asked_for,
    clause,
    leased_now,
    opened,
    promises,
)
from holdfast.types import FencingToken, TurnId

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store

__all__: list[str] = []  # What it has to say is in the suite already.

FIRST, SECOND = FencingToken(1), FencingToken(2)


def _line(token: int, number: int, **data: Any) -> bytes:
    event = {"id": f"{token}.{number}", "event": "text", "at": "2026-01-01T00:00:00.000Z"}
    return jsonl.encode([{**event, "data": data}])


@clause
async def live_output_is_read_as_it_is_written(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turn_id = TurnId(uuid7())
        assert b.live.newest([turn_id]) == {}
        tail = b.live.tail(turn_id)
        assert tail.read(0) == []
        log = a.live.open(turn_id, FIRST)
        log.write(_line(1, 1, text="one"))
        assert b.live.newest([turn_id, TurnId("x")]) == {turn_id: 1}
        [event] = tail.read(1)
        assert (event.log_id, event.kind, event.data) == ((1, 1), "text", {"text": "one"})
        assert tail.read(1) == []
        log.write(_line(1, 2, text="two"))
        log.write(_line(1, 3, text="three"))
        assert [each.log_id for each in tail.read(1)] == [(1, 2), (1, 3)]
        log.close()
        log.close()


@clause
async def a_long_log_is_read_to_its_end(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turn_id = TurnId(uuid7())
        log = a.live.open(turn_id, FIRST)
        for number in range(1, 41):
            log.write(_line(1, number, text="x" * (5_000 if number % 10 else 200_000)))
        log.close()
        tail, seen = b.live.tail(turn_id), []
        while events := tail.read(1):
            seen += [event.log_id[1] for event in events]
        assert seen == list(range(1, 41))


@clause
async def an_old_tokens_log_is_left_for_good(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turn_id = TurnId(uuid7())
        old, tail = a.live.open(turn_id, FIRST), b.live.tail(turn_id)
        old.write(_line(1, 1))
        assert len(tail.read(1)) == 1
        new = b.live.open(turn_id, SECOND)
        new.write(_line(2, 1))
        old.write(_line(1, 2))
        assert a.live.newest([turn_id]) == {turn_id: 2}
        assert [event.log_id for event in tail.read(2)] == [(2, 1)]
        assert tail.read(1) == [], "what a fenced owner still writes is never shown"
        for log in (old, new):
            log.close()


@clause
async def logs_that_nobody_needs_are_removed(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        over, open_still = TurnId(uuid7()), TurnId(uuid7())
        for turn_id, token in ((over, FIRST), (over, SECOND), (open_still, FIRST)):
            log = a.live.open(turn_id, token)
            log.write(_line(token, 1))
            log.close()
        assert b.live.turn_ids() == {over, open_still}
        tail = b.live.tail(over)
        assert b.live.remove(lambda turn_id: turn_id == over) == 2
        assert a.live.turn_ids() == {open_still}
        assert tail.read(2) == []
        assert b.live.remove(lambda _: False) == 0


@clause
async def who_watches_is_told_of_all_that_may_be_waited_for(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        if not promises(b, Guarantees.WAKES_WAITERS):
            return
        told = asyncio.Event()
        stop = b.control.watch(told.set)
        control, me = a.control, a.owner.owner_id

        async def tells(change: Any) -> Any:
            told.clear()
            done = await change
            async with asyncio.timeout(WITHIN_S):
                await told.wait()
            return done

        turn = (await tells(control.admit(asked_for(), ()))).turn
        leased = await leased_now(a)
        await tells(control.cancel(turn.turn_id))
        token = await tells(control.take_over(turn.session_id, leased.token, me))
        await tells(control.put_back(turn.turn_id, token, what=Event.REQUEUE, reason="x"))
        leased = await leased_now(a)
        await tells(control.commit(turn.turn_id, leased.token, COMMIT))
        await admit(a)
        leased = await leased_now(a)
        await tells(control.end(leased.turn.turn_id, leased.token, "failed", None, None))
        waiting = await admit(a)
        await tells(control.end_waiting(waiting.turn_id, "failed", "owner_died"))
        await tells(control.register_runner(me, ["dev"], permanent=True))
        await tells(control.make_alias("agent:main:x", "agent:main:main"))
        await tells(control.set_draining(me))
        await tells(control.leave(me))
        await tells(control.bury(me, "dead"))
        stop()


@clause
async def a_watch_hints_at_commits_and_logs_and_can_be_stopped(
    make: Callable[[], Store],
) -> None:
    """Hints may be lost, and then polling finds it; where a watch is given, it works."""
    async with opened(make, 2) as [a, b]:
        turn_id, stopped = TurnId(uuid7()), []
        rows, logs = asyncio.Event(), asyncio.Event()

        def grew(which: TurnId, token: int) -> None:
            assert (which, token) == (turn_id, 1)
            logs.set()

        stop_deaf = b.control.watch(lambda: stopped.append(1))
        stop_deaf()
        log = a.live.open(turn_id, FIRST)
        stops = [b.control.watch(rows.set), b.live.watch(grew)]
        async with asyncio.timeout(WITHIN_S):
            while not (rows.is_set() and logs.is_set()):
                await admit(a, queue_max=10_000)
                log.write(_line(1, 1))
                await asyncio.sleep(0.01)
        for stop in stops:
            stop()
        log.close()
        assert stopped == []


@clause
async def a_secret_is_one_for_all_who_ask(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        secret, made = a.secret("token")
        assert made
        assert len(secret) >= 32
        assert b.secret("token") == (secret, False)
        other, made = b.secret("another")
        assert made
        assert other != secret
