"""Who cannot say that it is there loses its leases; who is only not served loses nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Say
from support import oracle
from support.crowd import Member

KEY = "agent:main:main"
CHILD = Path(__file__).parent / "_held_child.py"
QUICK = {"turn.lease_ms": 900, "abort.settle_ms": 200}


async def said(child: subprocess.Popen[str], event: str) -> dict[str, Any]:
    assert child.stdout is not None
    while True:
        line = await asyncio.to_thread(child.stdout.readline)
        assert line, "the child ended early"
        told: dict[str, Any] = json.loads(line)
        if told["event"] == event:
            return told


@pytest.mark.parametrize("held", ["interpreter", "loop"])
async def test_code_that_holds_the_interpreter_loses_the_lease_and_finds_every_door_closed(
    tmp_path: Path, held: str
) -> None:
    """
    No token, no tool, no write, no delivery: it tries each before its loop can be told.

    Code that holds the loop alone is no better: the keeper's thread could renew, and must not.
    """
    with subprocess.Popen(
        [sys.executable, str(CHILD), str(tmp_path), held],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdin is not None
        try:
            await said(child, "streaming")
            heir = ScriptedModel([Say(("the heir's",))])
            async with holdfast.open(tmp_path, agent=heir, settings=QUICK) as hf:
                [turn] = await hf.store.control.turns()
                outcome = await (await hf.receipt(turn.turn_id)).outcome(30)
                assert (outcome.kind, outcome.text) == ("replied", "the heir's")
                [end] = await hf.store.control.events(kinds=["fenced"])
                async with asyncio.timeout(10):  # Its grave stands: nothing is delivered by it.
                    while not await hf.store.control.events(kinds=["buried"]):
                        await asyncio.sleep(0.02)
                child.stdin.write("w")
                child.stdin.flush()
                woke = await said(child, "woke")
                assert woke == {
                    "event": "woke", "effects": 0, "refused": "FencedError", "took": False,
                }  # fmt: skip
                told = await said(child, "outcome")
                assert told["text"] == "the heir's"
                log = hf.store.live.tail(turn.turn_id)
                shown = [
                    e.data["text"] for e in log.read(end.data["token"]) if e.kind == "text"
                ]
                assert shown == ["before"]
                [owed] = await hf.store.control.deliveries(turn_id=turn.turn_id)
                assert (owed.state, owed.attempts) == ("pending", 0)
        finally:
            child.stdin.close()
            assert await asyncio.to_thread(child.wait, 30) == 0
    path = oracle.only_transcript(tmp_path)
    assert "the held one's" not in path.read_text()
    assert len(oracle.finals(oracle.read(path))) == 1


async def test_a_renewal_that_fails_because_the_store_is_blocked_closes_no_door(
    tmp_path: Path,
) -> None:
    """
    Somebody is stopped inside a control transaction, for several of our leases: we stream
    on, are shown, and reply with the token that we had.
    """
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def gate(prompt: Any, position: int) -> None:
        if position == 1:
            reached.set()
            await go_on.wait()

    model = ScriptedModel([Say(("one ", "two ", "three"))], gate=gate)
    async with holdfast.open(tmp_path, agent=model, settings=QUICK) as hf:
        me = hf.store.owner.owner_id
        receipt = await hf.submit(KEY, "q")
        await reached.wait()
        plan = {"state": str(tmp_path), "per_lane": 0}
        with Member(name="a", stop_at=["control.begun", 1, None], **plan) as member:
            await asyncio.to_thread(member.wait_stopped)
            before = await beats(hf, me)
            await asyncio.sleep(3 * QUICK["turn.lease_ms"] / 1000)
            assert await beats(hf, me) <= before + 1, "it was not blocked"
            go_on.set()
            while "two " not in await shown(hf, receipt.turn_id):
                await asyncio.sleep(0.02)
            member.signal(signal.SIGCONT)
            member.until("ready")
            outcome = await receipt.outcome(20)
            member.go()
            member.until("done")
        assert (outcome.text, outcome.attempts) == ("one two three", 1)
        kinds = [
            e.kind for e in await hf.store.control.events(kinds=["fenced", "buried", "lease"])
        ]
        assert kinds == ["lease"]
    [final] = oracle.finals(oracle.read(oracle.only_transcript(tmp_path)))
    assert final["holdfast"]["token"] == 1


async def beats(hf: holdfast.Holdfast, owner_id: str) -> int:
    look = await hf.store.control.look(hf.store.owner.owner_id)
    return next(beat for owner, beat in look.owners if owner.owner_id == owner_id)


async def shown(hf: holdfast.Holdfast, turn_id: str) -> str:
    tail = hf.store.live.tail(turn_id)  # type: ignore[arg-type]
    return "".join(e.data["text"] for e in tail.read(1) if e.kind == "text")
