"""Clauses about taking messages in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast.errors import (
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
async def an_agent_that_nobody_ever_ran_isrefused(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        asked = asked_for(session_key="agent:ops:main", agent_id="ops")
        error = await refused(UnknownAgentError, store.control.admit(asked, ()))
        assert error.known == ["main"]
        await store.control.admit(asked, ["ops"])  # The settings name it.
        await store.control.register_runner(store.owner.owner_id, ["dev"], permanent=True)
        await admit(store, session_key="agent:dev:main", agent_id="dev")
