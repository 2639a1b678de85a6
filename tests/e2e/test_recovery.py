"""
Whatever a process was doing when it died or froze: its turn is answered, once.

Method: a real process is killed (or stopped) at every named point on a turn's way; another
one, started afterwards or already there, does the rest.  The transcript is the judge.
"""

from __future__ import annotations

import asyncio
import errno
import signal
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.backends.files import fs
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Say
from support import oracle
from support.crowd import Member

KEY = "agent:main:main"
QUICK = {"turn.lease_ms": 900, "abort.settle_ms": 300}

#: (point, hit): the first append of a turn is its question, the second its final entry.
#: control.begun: 1 the owner, 2 the runner, 3 admission, 4 pick, … (roughly; all are killed).
CRASHES = [
    ("effect.loaded", 1),
    ("append.checked", 1),
    ("append.written", 1),
    ("stream.first_text", 1),
    ("append.checked", 2),
    ("append.written", 2),
    ("commit.appended", 1),
    *(("control.begun", hit) for hit in range(4, 9)),
]


@pytest.mark.parametrize(("point", "hit"), CRASHES, ids=[f"{p}-{h}" for p, h in CRASHES])
async def test_killed_anywhere_a_turn_is_answered_once(
    tmp_path: Path, point: str, hit: int
) -> None:
    with Member(state=str(tmp_path), name="a", kill_at=[point, hit]) as a:
        a.until("ready")
        a.go()
        assert await asyncio.to_thread(a.process.wait, 30) == -signal.SIGKILL
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model) as hf:
        turns = await hf.store.control.turns()
        outcomes = [await (await hf.receipt(t.turn_id)).outcome(20) for t in turns]
    assert [outcome.kind for outcome in outcomes] == ["replied"] * len(turns)
    assert len(turns) == 1 or point == "control.begun", "an accepted message is gone"
    if turns:
        entries = oracle.read(oracle.only_transcript(tmp_path))
        oracle.check_whole(entries)
        assert len(entries) == 2, "a question or a reply twice"
        assert list(oracle.check_answers(entries)) == ["a user 0"]
    if point == "commit.appended" or (point, hit) == ("append.written", 2):
        assert model.prompts == [], "a finished reply was thrown away and asked for again"
        assert outcomes[0].text == oracle.text_of(entries[1])


def test_frozen_in_mid_stream_for_longer_than_its_lease(tmp_path: Path) -> None:
    """Another process answers; what the frozen one still does afterwards is refused."""
    plan = {"state": str(tmp_path), "settings": QUICK}
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
        b.until("streaming")  # It runs a's turn: the lease has moved on.
        a.signal(signal.SIGCONT)
        assert a.until("outcome")["kind"] == "replied"
        a.until("done")
        assert (a.end(), b.end()) == (0, 0)
    entries = oracle.read(oracle.only_transcript(tmp_path))
    [final] = oracle.finals(entries)
    assert final["holdfast"]["token"] >= 3, "fence and successor each take a token"
    oracle.check_answers(entries)


async def test_a_turn_that_kills_its_processes_ends_after_its_attempts(tmp_path: Path) -> None:
    for n in range(3):
        with Member(
            state=str(tmp_path),
            name=f"m{n}",
            per_lane=int(n == 0),
            kill_at=["stream.first_text", 1],
        ) as member:
            member.until("ready")
            member.go()
            assert await asyncio.to_thread(member.process.wait, 30) == -signal.SIGKILL
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model) as hf:
        [turn] = await hf.store.control.turns()
        outcome = await (await hf.receipt(turn.turn_id)).outcome(20)
        assert (outcome.kind, outcome.reason) == ("failed", "attempts_used_up")
        assert outcome.attempts == 3
        assert model.prompts == []
        after = await (await hf.submit(KEY, "next")).outcome(10)
        assert after.kind == "replied"
    question, ended, *_ = oracle.read(oracle.only_transcript(tmp_path))
    assert ended["data"]["reason"] == "attempts_used_up"
    assert ended["parentId"] == question["id"]


async def test_a_turn_whose_home_does_not_start_it_is_adopted(tmp_path: Path) -> None:
    """Its home lives, but its lane has no slot there; two seconds later it is anybody's."""
    idle = {"lanes.user.concurrency": 0}
    async with (
        holdfast.open(tmp_path, agent=ScriptedModel(), settings=idle) as home,
        holdfast.open(tmp_path, agent=ScriptedModel([Say(("adopted",))])) as other,
    ):
        receipt = await home.submit(KEY, "anybody")
        assert (await receipt.outcome(10)).text == "adopted"
        turn = await other.store.control.turn(receipt.turn_id)
        assert turn.home == home.store.owner.owner_id


async def test_another_process_can_cancel_a_running_turn(tmp_path: Path) -> None:
    reached, never = asyncio.Event(), asyncio.Event()

    async def gate(prompt: Any, position: int) -> None:
        if position == 1:
            reached.set()
            await never.wait()

    model = ScriptedModel([Say(("a", "b"))], gate=gate)
    async with (
        holdfast.open(tmp_path, agent=model) as runner,
        holdfast.open(tmp_path) as operator,
    ):
        receipt = await runner.submit(KEY, "long")
        await reached.wait()
        asked = await operator.cancel(receipt.turn_id)
        assert (asked.state, asked.abort_requested) == ("running", True)
        assert (await receipt.outcome(10)).kind == "cancelled"


async def test_a_cancelled_turn_that_had_started_says_so_in_the_transcript(
    tmp_path: Path,
) -> None:
    """Put back in its place, it is nobody's; its question stands, so an entry must end it."""
    with Member(state=str(tmp_path), name="a", kill_at=["stream.first_text", 1]) as a:
        a.until("ready")
        a.go()
        await asyncio.to_thread(a.process.wait, 30)
    async with holdfast.open(tmp_path) as operator:
        [turn] = await operator.store.control.turns()
        await until_waiting(operator, turn.turn_id)
        assert (await operator.cancel(turn.turn_id)).outcome == "cancelled"
    question, ended = oracle.read(oracle.only_transcript(tmp_path))
    assert ended["data"] == {
        "turn": turn.turn_id,
        "outcome": "cancelled",
        "reason": "cancelled",
    }
    assert (ended["parentId"], ended["appendMode"]) == (question["id"], "side")


async def until_waiting(hf: holdfast.Holdfast, turn_id: Any) -> None:
    changed = asyncio.Event()
    unwatch = hf.store.control.watch(changed.set)
    async with asyncio.timeout(20):
        while (await hf.store.control.turn(turn_id)).state != "accepted":
            await changed.wait()
            changed.clear()
    unwatch()


async def test_a_finished_reply_survives_a_write_lock_that_cannot_be_had(
    tmp_path: Path,
) -> None:
    """It waits in the turn's row; whoever comes next appends it instead of asking again."""
    release = asyncio.Event()

    async def gate(prompt: Any, position: int) -> None:
        if position == 1:
            await take_lock()
            await release.wait()

    held: list[Any] = []

    async def take_lock() -> None:
        path = str(oracle.only_transcript(tmp_path))
        held.append(await holdfast.WriteLock(path).acquire())

    model = ScriptedModel([Say(("a", "b"))], gate=gate)
    settings = {"abort.settle_ms": 100}
    async with holdfast.open(tmp_path, agent=model, settings=settings) as hf:
        receipt = await hf.submit(KEY, "long")
        release.set()
        async with asyncio.timeout(10):
            while (await hf.store.control.turn(receipt.turn_id)).finished is None:
                await asyncio.sleep(0)
        held[0].release()
        assert (await receipt.outcome(10)).text == "ab"
        assert (await hf.store.control.turn(receipt.turn_id)).finished is None
    assert len(model.prompts) == 1


async def test_an_interrupt_throws_no_finished_reply_away(tmp_path: Path) -> None:
    """It waits at its place for the write lock only; what is finished is committed."""
    held: list[Any] = []

    async def gate(prompt: Any, position: int) -> None:
        if prompt.text == "long" and position == 1:
            path = str(oracle.only_transcript(tmp_path))
            held.append(await holdfast.WriteLock(path).acquire())

    model = ScriptedModel(gate=gate)
    model.on("long", Say(("a", "b")))
    settings = {"abort.settle_ms": 100, "session.write_lock.acquire_timeout_ms": 200}
    async with holdfast.open(tmp_path, agent=model, settings=settings) as hf:
        receipt = await hf.submit(KEY, "long")
        async with asyncio.timeout(10):
            while (await hf.store.control.turn(receipt.turn_id)).finished is None:
                await asyncio.sleep(0)
        await until_waiting(hf, receipt.turn_id)
        late = await hf.submit(KEY, "instead", policy="interrupt")
        held[0].release()
        outcome = await receipt.outcome(10)
        assert (outcome.kind, outcome.text) == ("replied", "ab")
        assert (await late.outcome(10)).kind == "replied"
    assert [prompt.text for prompt in model.prompts] == ["long", "instead"]


async def test_a_claim_removed_by_an_operator_costs_no_reply(tmp_path: Path) -> None:
    """`rm *.lock` under a finished turn: its append is refused, its reply waits, and lands."""
    from holdfast import _points

    removed: list[Path] = []

    def remove_the_claim_once() -> None:
        if not removed:
            [claim] = tmp_path.glob("agents/*/sessions/*.lock")
            claim.unlink()
            removed.append(claim)

    model = ScriptedModel([Say(("precious",))])
    _points.install("effect.loaded", remove_the_claim_once)
    try:
        async with holdfast.open(tmp_path, agent=model) as hf:
            outcome = await (await hf.submit(KEY, "q")).outcome(20)
    finally:
        _points.install("effect.loaded", lambda: None)
    assert (outcome.kind, outcome.text) == ("replied", "precious")
    assert removed
    assert list(oracle.check_answers(oracle.read(oracle.only_transcript(tmp_path)))) == ["q"]


async def test_a_rewritten_transcript_is_a_takeover_and_keeps_the_reply(tmp_path: Path) -> None:
    """Somebody cuts our question out while the model talks: run again, the reply kept."""

    async def gate(prompt: Any, position: int) -> None:
        if position == 1 and prompt.attempt == 1 and not rewritten:
            path = oracle.only_transcript(tmp_path)
            header = path.read_bytes().splitlines(keepends=True)[0]
            path.write_bytes(header)
            rewritten.append(path)

    rewritten: list[Path] = []
    model = ScriptedModel([Say(("first ", "try"))], [Say(("second",))], gate=gate)
    async with holdfast.open(tmp_path, agent=model) as hf:
        receipt = await hf.submit(KEY, "q")
        outcome = await receipt.outcome(20)
        turn = await hf.store.control.turn(receipt.turn_id)
    assert (outcome.kind, outcome.text, outcome.attempts) == ("replied", "second", 1)
    assert turn.reruns == 1
    assert turn.salvaged is not None
    assert b"first try" in turn.salvaged


@pytest.mark.parametrize("times", [1, 4])
async def test_a_full_disk_throws_no_finished_reply_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """
    It waits in the turn's row; once there is space it is appended, and the model not asked.
    However long that takes: a full disk spends no attempt.
    """
    real, refused = fs.table.write, 0

    def full(fd: int, data: bytes) -> int:
        nonlocal refused
        if b'"final":true' in data and refused < times:
            refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(fs.table, "write", full)
    model = ScriptedModel([Say(("precious",))])
    async with holdfast.open(tmp_path, agent=model) as hf:
        receipt = await hf.submit(KEY, "q")
        outcome = await receipt.outcome(20)
    assert refused == times
    assert (outcome.kind, outcome.text, outcome.attempts) == ("replied", "precious", 1)
    assert len(model.prompts) == 1, "a finished reply was asked for again"
