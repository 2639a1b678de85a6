"""Clauses about processes: who is there, who can run what, who is gone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast._core.settings import LANES
from holdfast.errors import UnavailableError
from holdfast.ports import Guarantees
from holdfast.testing._conform import (
    admit,
    asked_for,
    clause,
    leased_now,
    opened,
    pick,
    promises,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store

__all__: list[str] = []  # What it has to say is in the suite already.


@clause
async def every_opening_is_an_owner_of_its_own(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        assert a.owner.owner_id != b.owner.owner_id
        look = await a.control.look(a.owner.owner_id)
        assert {owner for owner, _ in look.owners} == {a.owner, b.owner}
        await a.control.register(a.owner)
        assert len((await b.control.look(b.owner.owner_id)).owners) == 2, "registered twice"


@clause
async def a_buried_owner_learns_it_from_its_beat(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        assert await a.control.beat(a.owner.owner_id) is True
        assert await b.control.bury(a.owner.owner_id, "silent") is True
        assert await a.control.beat(a.owner.owner_id) is False
        assert await b.control.bury(a.owner.owner_id, "silent") is False
        await admit(b)
        assert await pick(a) is None, "a buried owner took a turn"
        await a.control.register(a.owner)  # Dead it was not: it comes back.
        assert await a.control.beat(a.owner.owner_id) is True
        assert await pick(a) is not None


@clause
async def beats_are_seen_by_the_others(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:

        async def seen() -> int:
            look = await b.control.look(b.owner.owner_id)
            return dict(look.owners)[a.owner]

        before = await seen()
        assert await seen() == before, "a look is not a beat"
        await a.control.beat(a.owner.owner_id)
        once = await seen()
        await a.control.beat(a.owner.owner_id)
        assert len({before, once, await seen()}) == 3


@clause
async def what_a_buried_owner_left_is_everybodys(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [gone, other]:
        turn = await admit(gone, home=gone.owner.owner_id)
        assert await pick(other) is None
        await other.control.bury(gone.owner.owner_id, "dead")
        assert (await other.control.turn(turn.turn_id)).home is None
        assert await pick(other) is not None
        assert await other.control.known_agents() == {"main"}, "what was known stays known"


@clause
async def a_look_shows_what_is_held_and_by_whom(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        me, other = a.owner.owner_id, b.owner.owner_id
        running = await admit(a, session_key="agent:main:a")
        leased = await leased_now(a)
        bound = await admit(b, session_key="agent:main:b", home=other, bound=True)
        head = await admit(b, session_key="agent:main:c", home=other)
        await admit(b, session_key="agent:main:c", home=other)  # Not a head.
        await admit(b, session_key="agent:main:d")  # Nobody's in particular.
        look = await a.control.look(me)
        [held] = look.leases
        assert (held.session_id, held.turn_id, held.token, held.owner_id, held.recovering) == (
            running.session_id, running.turn_id, leased.token, me, False,
        )  # fmt: skip
        assert look.orphans == ((bound.turn_id, other),)
        assert look.foreign_heads == (head.turn_id,)
        assert (await b.control.look(other)).foreign_heads == ()
        newer = await b.control.take_over(running.session_id, leased.token, other)
        [held] = (await a.control.look(me)).leases
        assert (held.token, held.owner_id, held.recovering) == (newer, other, True)


@clause
async def permanent_runners_are_told_from_embedded_ones(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        me = b.owner.owner_id
        await b.control.register_runner(me, ["main", "dev"], permanent=False)
        assert await a.control.permanent_runners("main") == [a.owner]
        assert await a.control.permanent_runners("dev") == []
        assert await a.control.known_agents() == {"main", "dev"}
        await b.control.register_runner(me, ["dev"], permanent=True)
        assert await a.control.permanent_runners("dev") == [b.owner]
        await b.control.set_draining(me)
        assert await a.control.permanent_runners("dev") == []


@clause
async def a_turn_that_nobody_can_run_says_so(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        await a.control.register_runner(a.owner.owner_id, ["dev"], permanent=False)
        turn = await admit(b, agent_id="dev", session_key="agent:dev:main")

        async def waits_for() -> str | None:
            return (await b.control.place(turn.turn_id, LANES)).waiting_for

        assert await waits_for() is None
        await a.control.set_draining(a.owner.owner_id)
        assert await waits_for() == "no_runner"


@clause
async def a_living_owner_is_never_called_dead(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        for store in (a, b):
            assert not store.is_dead(a.owner)
            assert not store.is_dead(b.owner)
        # Our pid, but a process that began before us: its pid was given to us.
        before = replace(a.owner, start_time=a.owner.start_time - 1)
        assert b.is_dead(before) is promises(b, Guarantees.PROVES_DEATH)


@clause
async def a_closed_store_takes_nothing_in(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [closed, other]:
        await closed.close()
        asked = asked_for()
        error = await refused(UnavailableError, closed.control.admit(asked, ()))
        assert error.landed is False
        assert (await other.control.counts()).waiting == 0
        await closed.close()  # Once more does nothing.


@clause
async def events_are_trimmed_from_the_oldest(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        for _ in range(4):
            await admit(store)
        assert await store.control.trim_events(1_000_000) == 0
        assert await store.control.trim_events(1) >= 3
        assert await store.control.trim_events(1) == 0
        await admit(store)
        assert await store.control.trim_events(1) == 1
