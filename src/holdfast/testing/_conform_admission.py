"""Clauses about taking messages in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast.errors import (
    BadKeyError,
    IdempotencyConflictError,
    NotFoundError,
    QueueFullError,
    RejectedError,
    UnknownAgentError,
)
from holdfast.testing._conform import (
    COMMIT,
    KEY,
    admit,
    asked_for,
    clause,
    leased_now,
    opened,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store

__all__: list[str] = []  # What it has to say is in the suite already.


@clause
async def an_accepted_message_survives_its_process(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await admit(store, "remember me")
    async with opened(make) as [again]:
        found = await again.control.turn(turn.turn_id)
        assert (found.text, found.state) == ("remember me", "accepted")


@clause
async def two_racers_for_a_new_key_get_one_session(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turns = await asyncio.gather(*(admit(s) for s in (a, b) * 5))
        assert len({turn.session_id for turn in turns}) == 1
        assert len({turn.admission for turn in turns}) == 10


@clause
async def admission_numbers_only_grow(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        numbers = [(await admit(s)).admission for s in (a, b, a, b)]
        assert numbers == sorted(set(numbers))


@clause
async def an_idempotency_key_gives_one_turn(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        asks = [asked_for("same", idempotency_key="k") for _ in range(6)]
        got = await asyncio.gather(
            *(s.control.admit(ask, ()) for s, ask in zip((a, b) * 3, asks, strict=True))
        )
        assert len({each.turn.turn_id for each in got}) == 1
        assert sum(each.fresh for each in got) == 1
        error = await refused(
            IdempotencyConflictError,
            a.control.admit(asked_for("other", idempotency_key="k"), ()),
        )
        assert error.turn_id == got[0].turn.turn_id


@clause
async def an_idempotency_key_is_scoped_to_its_canonical_key(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        await store.control.make_alias("agent:main:other", KEY)
        first = await admit(store, "x", idempotency_key="k")
        by_alias = await admit(store, "x", idempotency_key="k", session_key="agent:main:other")
        elsewhere = await admit(store, "x", idempotency_key="k", session_key="agent:main:third")
        assert by_alias.turn_id == first.turn_id != elsewhere.turn_id


@clause
async def a_full_queue_refuses_and_leaves_no_row(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        for _ in range(2):
            await admit(store, queue_max=2)
        asked = asked_for(queue_max=2, idempotency_key="k")
        await refused(QueueFullError, store.control.admit(asked, ()))
        await refused(NotFoundError, store.control.turn(asked.turn_id))
        assert len(await store.control.turns()) == 2
        assert (await admit(store, queue_max=3, idempotency_key="k")).attempts == 0


@clause
async def reject_refuses_a_busy_session_only(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        first = await admit(store, policy="reject")
        await refused(RejectedError, store.control.admit(asked_for(policy="reject"), ()))
        leased = await leased_now(store)
        await refused(RejectedError, store.control.admit(asked_for(policy="reject"), ()))
        await store.control.commit(first.turn_id, leased.token, COMMIT)
        await admit(store, policy="reject")


@clause
async def an_agent_that_nobody_ever_ran_is_refused(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        asked = asked_for(session_key="agent:ops:main", agent_id="ops")
        error = await refused(UnknownAgentError, store.control.admit(asked, ()))
        assert error.known == ["main"]
        await store.control.admit(asked, ["ops"])  # The settings name it.
        await store.control.register_runner(store.owner.owner_id, ["dev"], permanent=True)
        await admit(store, session_key="agent:dev:main", agent_id="dev")


@clause
async def what_was_refused_leaves_no_session_either(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        for changes, error in (
            ({"queue_max": 0}, QueueFullError),
            ({"agent_id": "ops"}, UnknownAgentError),
        ):
            asked = asked_for(idempotency_key="k", **changes)
            await refused(error, store.control.admit(asked, ()))
            await refused(NotFoundError, store.control.session_of_key(KEY))
        assert (await store.control.counts()).sessions == 0
        assert (await store.control.admit(asked_for(idempotency_key="k"), ())).fresh


@clause
async def the_bound_of_a_queue_holds_for_racers_and_counts_who_waits(
    make: Callable[[], Store],
) -> None:
    async with opened(make, 2) as [a, b]:
        got = await asyncio.gather(
            *(s.control.admit(asked_for(queue_max=5), ()) for s in (a, b) * 10),
            return_exceptions=True,
        )
        assert sum(isinstance(each, QueueFullError) for each in got) == 15
        assert len(await a.control.turns(state="accepted")) == 5
        await leased_now(b)
        await admit(a, queue_max=5)  # The one that runs does not wait.


@clause
async def a_retry_finds_its_receipt_whatever_has_become_of_the_session(
    make: Callable[[], Store],
) -> None:
    async with opened(make) as [store]:
        control = store.control
        turn = await admit(store, "x", idempotency_key="k", queue_max=1)
        for changes in ({"queue_max": 1}, {"policy": "reject"}, {"agent_id": "ops"}):
            retried = asked_for("x", idempotency_key="k", **changes)
            again = await control.admit(retried, ())
            assert (again.turn.turn_id, again.fresh) == (turn.turn_id, False)
        leased = await leased_now(store)
        await control.commit(turn.turn_id, leased.token, COMMIT)
        again = await control.admit(asked_for("x", idempotency_key="k"), ())
        assert (again.turn.outcome, again.fresh) == ("replied", False)


@clause
async def a_turn_is_what_was_admitted(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        asked = asked_for(
            "caf\u00e9\n \U0001f980", lane="cron", source="channel", priority=7, model="m",
            idempotency_key="k", home=a.owner.owner_id, instructions="be brief",
            seed=b'[{"role": "user", "content": "before"}]',
        )  # fmt: skip
        await a.control.admit(asked, ())
        turn = await b.control.turn(asked.turn_id)
        same = (
            "turn_id", "session_key", "agent_id", "text", "lane", "source", "priority",
            "policy", "model", "idempotency_key", "home", "bound",
        )  # fmt: skip
        for name in same:
            assert getattr(turn, name) == getattr(asked, name), name
        assert (turn.state, turn.outcome, turn.attempts, turn.token) == (
            "accepted",
            None,
            0,
            None,
        )
        leased = await leased_now(a)
        assert (leased.instructions, leased.seed) == (asked.instructions, asked.seed)
        assert leased.session == await b.control.session(turn.session_id)


@clause
async def an_alias_names_the_same_conversation(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        alias, other = "agent:main:alias", "agent:main:other"
        assert await a.control.make_alias(alias, KEY) == KEY
        assert await a.control.make_alias("agent:main:again", alias) == KEY
        turns = [await admit(s, session_key=k) for s, k in ((a, KEY), (b, alias))]
        assert {turn.session_key for turn in turns} == {KEY}
        session = await b.control.session_of_key("agent:main:again")
        assert {turn.session_id for turn in turns} == {session.session_id}
        facts = await b.control.session_facts(session.session_id)
        assert facts["aliases"] == ["agent:main:again", alias]
        await admit(a, session_key=other)
        await refused(BadKeyError, a.control.make_alias(other, KEY))
        await refused(BadKeyError, a.control.make_alias(KEY, other))
        assert await a.control.make_alias(alias, other) == other  # An alias may move.
        assert (await admit(b, session_key=alias)).session_key == other
