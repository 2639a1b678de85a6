"""
Stuck-session recovery started a second run beside the first (issue #85913, part B).

What happened there: recovery took a long run for a stuck one, aborted it and started another
on the same file at once, while the first went on unwinding.  Both then took turns in
invalidating each other's fence: "the most reproducible contender", 32 takeovers on one
session.  Runs of 22 minutes were exactly those that it stomped on.

What happens here: a run whose process beats is not stuck, however long it takes.  A silent
one is fenced first; recovery never starts a run, it only lets the queue proceed, and what the
first still does is refused.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import holdfast
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Say
from support import oracle
from support.crowd import Member
from support.incident import KEY, Gate

QUICK = {"turn.lease_ms": 900, "abort.settle_ms": 100}


async def test_a_run_that_lasts_longer_than_its_lease_is_not_stuck(tmp_path: Path) -> None:
    """Another gateway looks on for more than two leases, by the first one's own beats."""
    gate = Gate()
    slow = ScriptedModel([Say(("at ", "last"))], gate=gate)
    idle = ScriptedModel()
    settings = {**QUICK, "turn.lease_ms": 1200}
    async with (
        holdfast.open(tmp_path, agent=slow, settings=settings) as one,
        holdfast.open(tmp_path, agent=idle, settings=settings) as two,
    ):
        receipt = await one.submit(KEY, "take your time")
        await gate.reached.wait()
        running = await two.store.control.turn(receipt.turn_id)
        me = one.store.owner.owner_id

        async def beat() -> int:
            look = await two.store.control.look(two.store.owner.owner_id)
            return next(beat for owner, beat in look.owners if owner.owner_id == me)

        until_beat = await beat() + 14  # Six beats a lease.
        async with asyncio.timeout(60):
            while await beat() < until_beat:
                await asyncio.sleep(0.01)
        now = await two.store.control.turn(receipt.turn_id)
        assert (now.token, now.attempts) == (running.token, running.attempts)
        gate.opened.set()
        outcome = await receipt.outcome(20)
    assert (outcome.text, outcome.attempts) == ("at last", 1)
    assert (len(slow.prompts), len(idle.prompts)) == (1, 0)


def test_a_silent_run_is_fenced_before_another_begins_and_adds_nothing(tmp_path: Path) -> None:
    """Two real processes; the first is stopped in mid-stream, and goes on when all is over."""
    plan: dict[str, Any] = {"state": str(tmp_path), "settings": QUICK}
    with (
        Member(name="a", delay_s=0.02, **plan) as a,
        Member(name="b", per_lane=0, **plan) as b,
    ):
        a.until("ready")
        b.until("ready")
        a.go()
        b.go()
        a.until("streaming")
        a.signal(signal.SIGSTOP)
        try:
            b.until("streaming")
        finally:
            a.signal(signal.SIGCONT)
        assert a.until("outcome")["kind"] == "replied"
        a.until("done")
        assert (a.end(), b.end()) == (0, 0)
    entries = oracle.read(oracle.only_transcript(tmp_path))
    oracle.check_whole(entries)
    assert len(entries) == 2, "a question or a reply twice"
    [final] = oracle.finals(entries)
    question = entries[0]["holdfast"]["token"]
    assert final["holdfast"]["token"] >= question + 2, "fence and successor take a token each"


async def test_a_dead_run_goes_back_to_its_place_and_the_queue_decides(tmp_path: Path) -> None:
    """Recovery with nobody who could run it: the turn waits, in its place, and loses nothing."""
    with Member(
        state=str(tmp_path), name="a", kill_at=["stream.first_text", 1], delay_s=0.002
    ) as a:
        a.until("ready")
        a.go()
        assert await asyncio.to_thread(a.process.wait, 60) == -signal.SIGKILL
    async with holdfast.open(tmp_path, settings=QUICK) as reaper:
        async with asyncio.timeout(60):
            while (turn := (await reaper.store.control.turns())[0]).state != "accepted":
                await asyncio.sleep(0.01)
        look = await reaper.store.control.look(reaper.store.owner.owner_id)
        assert look.leases == ()
        model = ScriptedModel()
        async with holdfast.open(tmp_path, agent=model) as hf:
            outcome = await (await hf.receipt(turn.turn_id)).outcome(20)
    assert outcome.kind == "replied"
    assert len(model.prompts) == 1
    assert len(oracle.read(oracle.only_transcript(tmp_path))) == 2
