"""
The runtime over memory: what is promised on files holds there too.

Several openings over one `World` stand for several processes; `World.kill` is their SIGKILL.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

import holdfast
from holdfast._core.settings import Settings
from holdfast.backends.memory import MemoryStore, World
from holdfast.errors import BadSettingError, NotFoundError, UnavailableError
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Say
from holdfast.types import Prompt
from support import oracle

KEY = "agent:main:main"
LANES = ["user", "subagent", "cron", "maintenance"]  # Heartbeats give way to people.


@asynccontextmanager
async def opened(world: World, agent: Any) -> AsyncIterator[holdfast.Holdfast]:
    """One process on *world*."""
    store = MemoryStore(world, Settings())
    async with holdfast.Holdfast(store, Settings(), {"main": agent}) as hf:
        yield hf
        await hf.close(finish_s=0)


def kill(hf: holdfast.Holdfast) -> None:
    """SIGKILL: nothing it holds is given back, nothing it does takes effect any more."""
    assert isinstance(hf.store, MemoryStore)
    hf.store.world.kill(hf.store.owner.owner_id)


def entries_of(world: World) -> list[list[oracle.Entry]]:
    """Each transcript of *world*, its header left out."""
    found = [
        [json.loads(line) for line in room.lines.view().joined().split(b"\n")[:-1]]
        for room in world.rooms.values()
    ]
    assert all(entries[0]["type"] == "session" for entries in found)
    return [entries[1:] for entries in found]


# ------------------------------------------------------------------ as the README shows it


async def test_a_message_is_answered_and_its_entries_are_there() -> None:
    async with holdfast.open("memory:", agent=ScriptedModel()) as hf:
        receipt = await hf.submit(KEY, "hello", idempotency_key="m-1")
        outcome = await receipt.outcome(20)
        assert (outcome.kind, outcome.text) == ("replied", "reply to: hello")
        again = await hf.submit(KEY, "hello", idempotency_key="m-1")
        assert again.turn_id == receipt.turn_id
        assert [m["role"] for m in (await hf.transcript(KEY)).history()] == [
            "user",
            "assistant",
        ]
        page = await hf.entries(KEY, last=1)
        assert page.entries[0][1]["holdfast"]["final"] is True


async def test_a_turn_can_be_followed_live_to_its_outcome() -> None:
    model = ScriptedModel([Say(("one ", "two"))])
    async with holdfast.open("memory:", agent=model) as hf:
        receipt = await hf.submit(KEY, "count")
        async with asyncio.timeout(20):
            events = [event async for event in hf.follow(receipt.turn_id)]
    kinds = [event.kind for event in events]
    assert kinds[-1] == "outcome"
    assert kinds.index("started") < kinds.index("text") < kinds.index("outcome")
    assert "".join(e.data["text"] for e in events if e.kind == "text") == "one two"


async def test_you_can_bring_your_own_loop() -> None:
    async with holdfast.open("memory:") as hf:
        for text in ("first", "second"):
            async with hf.turn(KEY, text) as turn:
                seen = len(turn.history())
                await turn.reply(f"{text} after {seen}")
        assert [t.reply for t in await hf.store.control.turns()] == [
            "first after 0",
            "second after 2",
        ]


async def test_a_named_store_is_shared_while_somebody_has_it_open_and_then_forgotten() -> None:
    async with holdfast.open("memory:shared") as asks:
        async with holdfast.open("memory:shared", agent=ScriptedModel()):
            outcome = await (await asks.submit(KEY, "hello")).outcome(20)
            assert outcome.kind == "replied"
        assert len(await asks.store.control.turns()) == 1
    async with holdfast.open("memory:shared") as later:
        assert await later.store.control.turns() == []


async def test_a_store_without_a_name_is_nobody_elses() -> None:
    async with holdfast.open("memory:") as a, holdfast.open("memory:") as b:
        await a.submit(KEY, "hello")
        with pytest.raises(NotFoundError):
            await b.session(KEY)


async def test_after_closing_nothing_is_accepted_in_silence() -> None:
    async with holdfast.open("memory:") as hf:
        receipt = await hf.submit(KEY, "hello")
    with pytest.raises(UnavailableError):
        await hf.store.control.turn(receipt.turn_id)


def test_who_only_reads_is_told_that_a_memory_store_is_inside_one_program() -> None:
    from holdfast._assemble_reading import open_reading

    for name in ("memory:", "memory:shared"):
        with pytest.raises(BadSettingError, match="inside one program"):
            open_reading(name)


# -------------------------------------------------------------------- several "processes"


async def test_a_process_killed_while_its_model_talks_leaves_its_turn_to_another() -> None:
    talking = asyncio.Event()

    async def stall(_: Prompt, position: int) -> None:
        if position == 1:
            talking.set()
            await asyncio.Event().wait()

    world = World()
    async with AsyncExitStack() as stack:
        dead = await stack.enter_async_context(opened(world, ScriptedModel(gate=stall)))
        receipt = await dead.submit(KEY, "survive me")
        waiting = await dead.submit(KEY, "and me")
        await asyncio.wait_for(talking.wait(), 20)
        other = await stack.enter_async_context(opened(world, ScriptedModel()))
        kill(dead)
        for turn_id, text in ((receipt.turn_id, "survive me"), (waiting.turn_id, "and me")):
            outcome = await (await other.receipt(turn_id)).outcome(20)
            assert (outcome.kind, outcome.text) == ("replied", f"reply to: {text}")
        assert (await other.store.control.turn(receipt.turn_id)).attempts == 2
    [entries] = entries_of(world)
    oracle.check_whole(entries)
    assert list(oracle.check_answers(entries)) == ["survive me", "and me"]


async def test_a_transcript_that_is_restored_under_a_turn_gets_its_reply_all_the_same() -> None:
    world, talking, go_on = World(), asyncio.Event(), asyncio.Event()

    async def wait_once(prompt: Prompt, position: int) -> None:
        if prompt.text == "again" and position == 1 and not go_on.is_set():
            talking.set()
            await go_on.wait()

    async with opened(world, ScriptedModel(gate=wait_once)) as hf:
        assert (await (await hf.submit(KEY, "before")).outcome(20)).kind == "replied"
        session = await hf.session(KEY)
        view = world.rooms[session.session_id].lines.view()
        receipt = await hf.submit(KEY, "again")
        await asyncio.wait_for(talking.wait(), 20)
        world.rewrite(
            session.session_id, lambda _: [view.joined()]
        )  # Our question is gone from it.
        go_on.set()
        assert (await receipt.outcome(20)).kind == "replied"
        turn = await hf.store.control.turn(receipt.turn_id)
        assert turn.reruns == 1
    [entries] = entries_of(world)
    oracle.check_whole(entries)
    assert oracle.check_answers(entries) == {
        "before": "reply to: before",
        "again": "reply to: again",
    }


async def test_two_hundred_messages_in_four_lanes_are_all_answered_though_one_dies() -> None:
    world = World()
    started = asyncio.Event()

    async def note(prompt: Prompt, _: int) -> None:
        if prompt.text.startswith("n100 "):
            started.set()
        await asyncio.sleep(0)

    async with AsyncExitStack() as stack:
        hfs = [
            await stack.enter_async_context(opened(world, ScriptedModel(gate=note)))
            for _ in range(3)
        ]
        receipts = []
        for n in range(200):
            lane, session = LANES[n % 4], n % 7
            receipts.append(
                await hfs[n % 3].submit(f"agent:main:s{session}", f"n{n} {lane}", lane=lane)
            )
        await asyncio.wait_for(started.wait(), 60)
        kill(hfs[0])
        async with asyncio.timeout(90):
            outcomes = [
                await (await hfs[1].receipt(receipt.turn_id)).outcome(90)
                for receipt in receipts
            ]
        assert [outcome.kind for outcome in outcomes] == ["replied"] * 200
        counts = await hfs[1].store.control.counts()
        assert (counts.waiting, counts.running, counts.leases) == (0, 0, 0)
        assert not world.slots, "a slot leaked"
    asked: dict[str, str] = {}
    replied: dict[str, str] = {}
    for entries in entries_of(world):
        oracle.check_whole(entries)
        finals = oracle.finals(entries)
        messages = [entry for entry in entries if entry["type"] == "message"]
        assert len(messages) == 2 * len(finals), "a question or a reply twice"
        replied |= {e["holdfast"]["turn"]: oracle.text_of(e) for e in finals}
        # By the stamp: after a death a turn of higher priority may stand before the reply.
        asked |= {
            e["holdfast"]["turn"]: oracle.text_of(e)
            for e in messages
            if e["message"]["role"] == "user"
        }
    assert sorted(asked.values()) == sorted(f"n{n} {LANES[n % 4]}" for n in range(200))
    assert replied == {turn: f"reply to: {text}" for turn, text in asked.items()}
