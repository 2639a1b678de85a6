"""Clauses about turns that wait for turns, and owners that are asked to let go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast._core.settings import Lane
from holdfast._core.turns import Event
from holdfast.errors import DeadlockError, LeaseLostError, NotFoundError
from holdfast.testing._conform import (
    admit,
    asked_for,
    booked,
    clause,
    opened,
    pick,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store
    from holdfast.types import Leased, TurnId

__all__: list[str] = []  # What it has to say is in the suite already.

ONE = {"user": Lane(1, 100), "subagent": Lane(1, 60)}
NO_CHILD = {**ONE, "subagent": Lane(0, 60)}  #: None of that lane runs.
NONE: dict[str, Lane] = {}  #: No lane has a bound.


async def running(store: Store, name: str, **more: Any) -> Leased:
    """A turn of a session of that name, with lease and slot."""
    turn = await admit(store, name, session_key=f"agent:main:{name}", **more)
    leased = await pick(store, lanes=NONE, session_id=turn.session_id)
    assert leased is not None
    assert leased.turn.turn_id == turn.turn_id
    return leased


async def child_of(store: Store, parent: Leased, name: str, **more: Any) -> Any:
    asked = asked_for(
        session_key=f"agent:main:{name}", parent=parent.turn.turn_id, awaited=True,
        **{"lane": "subagent", "priority": 60, **more},
    )  # fmt: skip
    return await store.control.admit(asked, ())


async def awaits(store: Store, leased: Leased, child: TurnId) -> None:
    await store.control.wait_for(leased.turn.turn_id, leased.token, child)


async def regains(store: Store, leased: Leased) -> bool:
    return await store.control.regain(leased.turn.turn_id, leased.token, ONE)


# ------------------------------------------------------------------------ slot and lease


@clause
async def who_waits_for_a_child_gives_its_slot_back_and_keeps_its_lease(
    make: Callable[[], Store],
) -> None:
    async with opened(make, 2) as [a, b]:
        parent = await running(a, "parent")
        child = (await child_of(a, parent, "child")).turn
        assert child.parent == parent.turn.turn_id
        await admit(b, session_key="agent:main:next")
        await admit(b, "behind", session_key="agent:main:parent")
        assert await pick(b, lanes=NO_CHILD) is None
        await awaits(a, parent, child.turn_id)
        turn = await b.control.turn(parent.turn.turn_id)
        assert (turn.state, turn.waits_for, turn.token) == (
            "running", child.turn_id, parent.token,
        )  # fmt: skip
        following = await pick(b, lanes=NO_CHILD)
        assert following is not None
        assert following.turn.session_key == "agent:main:next", "the slot, not the session"


@clause
async def who_waited_comes_before_new_turns(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        parent = await running(a, "parent")
        child = (await child_of(a, parent, "child")).turn
        await awaits(a, parent, child.turn_id)
        other = await running(b, "other")
        await admit(b, session_key="agent:main:new")
        assert await regains(a, parent) is False
        turn = await a.control.turn(parent.turn.turn_id)
        assert (turn.slot_wanted, turn.waits_for) == (True, None)
        await booked(b, other)
        found = await pick(b, lanes=ONE)
        assert found is None or found.turn.lane != "user", "the free slot is spoken for"
        assert await regains(a, parent) is True
        assert (await a.control.turn(parent.turn.turn_id)).slot_wanted is False
        found = await pick(b, lanes=ONE)
        assert found is None or found.turn.lane != "user", "it is taken"
        await booked(a, parent)
        found = await pick(b, lanes=ONE)
        assert found is not None
        assert found.turn.session_key == "agent:main:new"


@clause
async def a_slot_that_is_had_is_regained_without_a_second(make: Callable[[], Store]) -> None:
    two = {"user": Lane(2, 100)}
    async with opened(make) as [store]:
        parent = await running(store, "parent")
        for _ in range(2):
            assert await regains(store, parent) is True
        await admit(store, session_key="agent:main:next")
        assert await pick(store, lanes=two) is not None


@clause
async def a_slot_that_was_wanted_is_counted_once(make: Callable[[], Store]) -> None:
    two = {"user": Lane(2, 100)}
    async with opened(make) as [store]:
        parent = await running(store, "parent")
        child = await admit(store, session_key="agent:main:child", lane="subagent")
        await awaits(store, parent, child.turn_id)
        other = await running(store, "other")
        assert await regains(store, parent) is False
        await booked(store, other)
        assert await regains(store, parent) is True
        following = await admit(store, session_key="agent:main:next")
        assert await pick(store, lanes=two, session_id=following.session_id) is not None


@clause
async def who_is_gone_wants_no_slot(make: Callable[[], Store]) -> None:
    for how in ("fenced", "ended", "put back"):
        async with opened(make, 2) as [a, b]:
            parent = await running(a, f"parent {how}".replace(" ", "-"))
            child = (await child_of(a, parent, f"child-{how.replace(' ', '-')}")).turn
            await awaits(a, parent, child.turn_id)
            other = await running(b, f"other-{how.replace(' ', '-')}")
            assert await regains(a, parent) is False
            turn, token = parent.turn.turn_id, parent.token
            if how == "fenced":
                token = await b.control.take_over(
                    parent.session.session_id, token, b.owner.owner_id
                )
                await refused(LeaseLostError, regains(a, parent))
                await refused(LeaseLostError, awaits(a, parent, child.turn_id))
            elif how == "ended":
                await a.control.end(turn, token, "failed", None, None)
            else:
                await a.control.put_back(
                    turn, token, what=Event.REQUEUE, reason="x", delay_ms=3_600_000
                )
            seen = await b.control.turn(turn)
            assert (seen.slot_wanted, seen.waits_for) == (False, None)
            await booked(b, other)
            last = await admit(b, session_key=f"agent:main:last-{how.replace(' ', '-')}")
            found = await pick(b, lanes=ONE, session_id=last.session_id)
            assert found is not None, f"{how}: nobody else had a claim on the slot"
            await booked(b, found)
            if how == "fenced":
                await b.control.end(turn, token, "failed", None, None)


@clause
async def a_wait_that_is_lost_changes_nothing(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        parent = await running(store, "parent")
        await refused(NotFoundError, awaits(store, parent, asked_for().turn_id))
        assert (await store.control.turn(parent.turn.turn_id)).waits_for is None
        await admit(store, session_key="agent:main:next")
        assert await pick(store, lanes=ONE) is None, "its slot is gone"


# ----------------------------------------------------------------------------- deadlocks


@clause
async def a_child_in_its_parents_own_session_is_refused(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        parent = await running(store, "parent")
        waiting = (await store.control.counts()).waiting
        for policy in ("enqueue", "collect", "steer", "interrupt", "rollback"):
            error = await refused(
                DeadlockError, child_of(store, parent, "parent", policy=policy)
            )
            assert error.cycle[0] == parent.turn.turn_id
            assert len(error.cycle) == 2
        assert (await store.control.counts()).waiting == waiting, "one was accepted"
        assert await store.control.aborts(store.owner.owner_id) == {}, "it left a trace"
        turn = (await store.control.turns())[-1]
        assert turn.turn_id == parent.turn.turn_id
        # Who will not wait may be behind whoever it likes.
        await admit(store, session_key="agent:main:parent", parent=parent.turn.turn_id)


@clause
async def a_wait_for_its_ancestor_is_refused_at_any_distance(
    make: Callable[[], Store],
) -> None:
    async with opened(make, 2) as [a, b]:
        first = await running(a, "one")
        chain = [first]
        for name in ("two", "three"):
            child = (await child_of(a, chain[-1], name)).turn
            await awaits(a, chain[-1], child.turn_id)
            leased = await pick(b, lanes=NONE, session_id=child.session_id)
            assert leased is not None
            chain.append(leased)
        asked = asked_for(
            session_key="agent:main:one", parent=chain[-1].turn.turn_id, awaited=True
        )
        error = await refused(DeadlockError, b.control.admit(asked, ()))
        names = [leased.turn.turn_id for leased in chain]
        assert error.cycle == [names[2], asked.turn_id, names[0], names[1]]
        await refused(NotFoundError, b.control.turn(asked.turn_id))
        assert (await child_of(b, chain[-1], "four")).fresh, "no wait, no cycle"


@clause
async def a_cycle_over_a_turn_that_waits_is_found_when_it_closes(
    make: Callable[[], Store],
) -> None:
    async with opened(make) as [store]:
        a, b = await running(store, "a"), await running(store, "b")
        behind_b = (await child_of(store, a, "b")).turn
        await awaits(store, a, behind_b.turn_id)
        behind_a = await admit(store, session_key="agent:main:a")
        error = await refused(DeadlockError, awaits(store, b, behind_a.turn_id))
        assert error.cycle == [
            b.turn.turn_id, behind_a.turn_id, a.turn.turn_id, behind_b.turn_id,
        ]  # fmt: skip
        seen = await store.control.turn(b.turn.turn_id)
        assert seen.waits_for is None
        assert await store.control.regain(b.turn.turn_id, b.token, NONE) is True


@clause
async def a_cycle_over_a_host_is_found(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        a, b = await running(store, "a"), await running(store, "b")
        into_b = await admit(store, session_key="agent:main:b", policy="steer")
        assert into_b.host == b.turn.turn_id
        await awaits(store, a, into_b.turn_id)
        error = await refused(DeadlockError, child_of(store, b, "a", policy="steer"))
        assert error.cycle[2:] == [a.turn.turn_id, into_b.turn_id]
        await refused(DeadlockError, awaits(store, b, b.turn.turn_id))
        first, second = [
            await admit(store, session_key="agent:main:b", policy="collect", collect_max=2)
            for _ in range(2)
        ]
        await awaits(store, a, second.turn_id)
        error = await refused(DeadlockError, child_of(store, b, "a"))
        assert error.cycle[2:] == [a.turn.turn_id, second.turn_id, first.turn_id]


@clause
async def a_cycle_names_the_burst_that_the_child_would_be_part_of(
    make: Callable[[], Store],
) -> None:
    burst: dict[str, Any] = {
        "policy": "collect", "collect_max": 9, "lane": "user", "priority": 100,
    }  # fmt: skip
    async with opened(make) as [store]:
        parent = await running(store, "a")
        host = await admit(store, session_key="agent:main:a", **burst)
        error = await refused(DeadlockError, child_of(store, parent, "a", **burst))
        assert error.cycle[0] == parent.turn.turn_id
        assert error.cycle[2:] == [host.turn_id]
        assert store.control.hosted(host.turn_id) == []


@clause
async def a_wait_that_is_over_closes_no_cycle(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        a = await running(store, "a")
        child = (await child_of(store, a, "b")).turn
        await awaits(store, a, child.turn_id)
        leased = await pick(store, lanes=NONE, session_id=child.session_id)
        assert leased is not None
        await refused(DeadlockError, child_of(store, leased, "a"))
        assert await store.control.regain(a.turn.turn_id, a.token, NONE) is True
        assert (await child_of(store, leased, "a")).fresh


# ------------------------------------------------------------------------------ handover


@clause
async def who_awaits_several_regains_its_slot_with_the_last(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        parent = await running(store, "parent")
        first = (await child_of(store, parent, "first")).turn.turn_id
        second = (await child_of(store, parent, "second")).turn.turn_id
        await awaits(store, parent, first)
        await awaits(store, parent, second)
        inside = await running(store, "second", parent=None)
        control, mine = store.control, (parent.turn.turn_id, parent.token)
        assert await control.regain(*mine, ONE, child=first)
        assert (await control.turn(mine[0])).waits_for == second
        back = asked_for(
            session_key="agent:main:parent", parent=second, awaited=True, lane="subagent"
        )
        await refused(DeadlockError, control.admit(back, ()))
        assert inside.turn.turn_id != second
        assert await control.regain(*mine, NONE, child=second)
        assert (await control.turn(mine[0])).waits_for is None


@clause
async def an_owner_is_asked_to_let_go(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [owner, other]:
        leased = await running(owner, "a")
        me, control = owner.owner.owner_id, other.control
        asked = await control.ask_handover(leased.session.session_id)
        assert asked is not None
        assert (asked.turn_id, asked.owner_id, asked.answer) == (
            leased.turn.turn_id, me, None,
        )  # fmt: skip
        assert await owner.control.handovers(me) == [asked]
        assert await control.handovers(other.owner.owner_id) == []
        await owner.control.answer_handover(asked.request_id, "busy", "a tool is running")
        answered = await control.handover(asked.request_id)
        assert (answered.answer, answered.detail) == ("busy", "a tool is running")
        assert await owner.control.handovers(me) == []
        await owner.control.answer_handover(asked.request_id, "let_go", "too late")
        assert await control.handover(asked.request_id) == answered, "the first answer stays"
        assert (await owner.control.turn(leased.turn.turn_id)).abort_requested is False


@clause
async def nobody_is_asked_for_a_session_that_is_free(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store)
        assert await store.control.ask_handover(turn.session_id) is None
        await refused(NotFoundError, store.control.handover("nothing"))
