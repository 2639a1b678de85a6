"""Clauses about what can be read of turns and sessions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast._core.settings import LANES, Lane
from holdfast._stamps import uuid7
from holdfast.errors import NotFoundError
from holdfast.testing._conform import COMMIT, KEY, admit, clause, leased_now, opened, refused
from holdfast.types import SessionId, TurnId

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store

__all__: list[str] = []  # What it has to say is in the suite already.

MANY = 1_050  #: More than a page of any store that we know.


@clause
async def a_place_says_what_is_waited_for(make: Callable[[], Store]) -> None:
    lanes = {"user": Lane(1, 100)}
    async with opened(make, 2) as [a, b]:
        urgent = await admit(a, "urgent")
        turns = [await admit(a, str(n)) for n in range(3)]
        elsewhere = await admit(a, session_key="agent:main:b")

        async def places() -> list[tuple[int, str | None]]:
            found = [
                await b.control.place(turn.turn_id, lanes)
                for turn in (urgent, *turns, elsewhere)
            ]
            return [(place.position, place.waiting_for) for place in found]

        assert await places() == [
            (0, None), (1, "queue"), (2, "queue"), (3, "queue"), (0, None),
        ]  # fmt: skip
        leased = await leased_now(a)
        assert leased.turn.turn_id == urgent.turn_id
        assert await places() == [
            (0, None), (1, "turn"), (2, "queue"), (3, "queue"), (0, "slot"),
        ]  # fmt: skip
        await a.control.commit(urgent.turn_id, leased.token, COMMIT)
        assert (await places())[:2] == [(0, None), (0, None)]


@clause
async def many_turns_are_looked_at_at_once(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        first, second = await admit(a), await admit(a)
        leased = await leased_now(a)
        ids = [first.turn_id, second.turn_id, TurnId(uuid7())]
        states = await b.control.turn_states(ids, LANES)
        assert states.keys() == set(ids[:2]), "one that is not there is left out"
        assert [states[each].state for each in ids[:2]] == ["running", "accepted"]
        place = states[second.turn_id].place
        assert (place.position, place.waiting_for) == (1, "turn")
        assert await b.control.ended(ids) == []
        await a.control.commit(first.turn_id, leased.token, COMMIT)
        assert [turn.turn_id for turn in await b.control.ended(ids)] == [first.turn_id]
        assert (await b.control.turn_states(ids, LANES))[first.turn_id].outcome == "replied"


@clause
async def what_goes_on_in_a_session_is_told(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turn = await admit(a)
        await admit(a)
        sid, nobody = turn.session_id, SessionId(uuid7())
        leased = await leased_now(a)
        pulses = await b.control.pulses([sid, nobody])
        assert pulses.keys() == {sid}
        pulse, session = pulses[sid], await b.control.session(sid)
        assert (pulse.running, pulse.waiting) == (turn.turn_id, 1)
        assert pulse.generation == session.generation
        counts = await b.control.counts()
        assert (counts.waiting, counts.running, counts.leases, counts.sessions) == (1, 1, 1, 1)
        facts = await b.control.session_facts(sid)
        assert facts == {
            "keys": [KEY], "aliases": [], "turns": 2, "waiting": 1, "running": turn.turn_id,
        }  # fmt: skip
        await a.control.commit(turn.turn_id, leased.token, COMMIT)
        assert (await b.control.pulses([sid]))[sid].running is None
        facts = await b.control.session_facts(sid)
        assert (facts["turns"], facts["waiting"], facts["running"]) == (2, 1, None)


@clause
async def what_is_not_there_is_not_found(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        control = store.control
        await refused(NotFoundError, control.turn(TurnId(uuid7())))
        await refused(NotFoundError, control.cancel(TurnId(uuid7())))
        await refused(NotFoundError, control.place(TurnId(uuid7()), LANES))
        await refused(NotFoundError, control.session(SessionId(uuid7())))
        await refused(NotFoundError, control.session_of_key("agent:main:nobody"))
        assert await control.turns(session_id=SessionId(uuid7())) == []
        assert not await control.is_head(TurnId(uuid7()))


@clause
async def turns_are_listed_by_session_and_by_state(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        here = [await admit(a) for _ in range(3)]
        there = await admit(b, session_key="agent:main:b")
        leased = await leased_now(a)
        control = b.control

        def ids(turns: object) -> list[TurnId]:
            assert isinstance(turns, list)
            return [turn.turn_id for turn in turns]

        of_here = await control.turns(session_id=here[0].session_id)
        assert ids(of_here) == ids(here)
        assert ids(await control.turns()) == [*ids(here), there.turn_id]
        assert ids(await control.turns(state="running")) == [leased.turn.turn_id]
        waiting = await control.turns(session_id=here[0].session_id, state="accepted")
        assert ids(waiting) == ids(here[1:])
        assert ids(await control.turns(after=here[1].admission)) == [
            here[2].turn_id,
            there.turn_id,
        ]


@clause
async def pages_leave_nothing_out_and_show_nothing_twice(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        control = store.control
        turns = await asyncio.gather(
            *(admit(store, session_key=f"agent:main:s{n}") for n in range(MANY))
        )
        admissions, after = [], 0
        while page := await control.turns(after=after):
            admissions += [turn.admission for turn in page]
            after = admissions[-1]
        assert admissions == sorted(turn.admission for turn in turns)
        for newest_first in (False, True):
            seen: list[str] = []
            while found := await control.sessions(
                seen[-1] if seen else "", newest_first=newest_first
            ):
                seen += [session.session_id for session, _ in found]
            expected = sorted(turn.session_id for turn in turns)
            assert seen == (expected[::-1] if newest_first else expected)


@clause
async def a_session_is_listed_with_its_counts(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turn = await admit(a)
        await admit(a)
        await leased_now(a)
        [(session, facts)] = await b.control.sessions()
        assert session == await b.control.session(turn.session_id)
        assert (facts["turns"], facts["waiting"], facts["running"]) == (2, 1, turn.turn_id)
        assert KEY in facts["keys"]
