"""
Runs that do not move, or do not let go: told of, ended, fenced; and the process lives on.

Method: a model or a run that ignores what is asked of it, with bounds of tenths of a second.
Nothing here asserts how long anything took; only what came of it, and in which order.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast._core.settings import parse
from holdfast._runtime.attempt import Attempt
from holdfast._runtime.pulse import LATE_S
from holdfast._runtime.recovery import Recovery
from holdfast._runtime.runner import Runner
from holdfast.backends.memory.store import MemoryStore
from holdfast.backends.memory.world import World
from holdfast.errors import FencedError, HoldfastError
from holdfast.testing import ScriptedModel
from holdfast.testing._conform import asked_for
from holdfast.testing.scripted import Call, Say
from holdfast.types import Text, ToolCall
from support import oracle
from support.crowd import Member

KEY = "agent:main:main"
OTHER = "agent:main:other"
QUICK: dict[str, Any] = {
    "turn.lease_ms": 900, "abort.settle_ms": 200, "models.idle_timeout_ms": 100,
    "recovery.warn_ms": 100, "turn.progress_timeout_ms": 300,
}  # fmt: skip


class DeafModel:
    """
    The first answer to a text with `deaf` in it ignores every cancellation, until released;
    then it tries to show a token and to run a tool.  Everything else is answered at once.
    """

    def __init__(self) -> None:
        self.released, self.asked = asyncio.Event(), asyncio.Event()
        self.over, self.effects = asyncio.Event(), 0
        self.refused: list[BaseException] = []
        self.ignored = 0
        self._rest = ScriptedModel()

    async def respond(self, prompt: Any, hook: Any) -> AsyncGenerator[Any, None]:
        if "deaf" not in prompt.text or self.asked.is_set():
            async for event in self._rest.respond(prompt, hook):
                yield event
            return
        self.asked.set()
        yield Text("before ")
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.ignored += 1
        call = ToolCall("call_ghost", "count", {}, "never", 5.0)
        try:
            await hook(call, self._effect)
        except HoldfastError as error:
            self.refused.append(error)
        self.over.set()
        yield Text("ghost")

    async def _effect(self) -> None:
        self.effects += 1


async def shown(hf: holdfast.Holdfast, turn_id: str) -> str:
    return "".join([e.data["text"] async for e in hf.follow(turn_id) if e.kind == "text"])


async def told(hf: holdfast.Holdfast, *kinds: str) -> list[Any]:
    return await hf.store.control.events(kinds=kinds)


async def test_a_model_call_that_ignores_cancellation_costs_its_own_turn_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = DeafModel()
    async with holdfast.open(tmp_path, agent=model, settings=QUICK) as hf:
        deaf = await hf.submit(KEY, "deaf")
        await model.asked.wait()
        behind = await hf.submit(KEY, "behind it")
        beside = await hf.submit(OTHER, "beside it")
        assert (await beside.outcome(10)).text == "reply to: beside it"
        assert not model.released.is_set()
        outcome = await deaf.outcome(20)
        assert (outcome.kind, outcome.text) == ("replied", "reply to: deaf")
        assert outcome.attempts == 2, "a run without progress costs its attempt"
        assert (await behind.outcome(10)).kind == "replied"
        assert model.ignored, "it was never asked to end"
        assert not model.over.is_set(), "somebody had waited for it"
        model.released.set()  # What it still does is refused.
        async with asyncio.timeout(10):
            await model.over.wait()
        assert [type(error) for error in model.refused] == [FencedError]
        assert model.effects == 0
        assert "ghost" not in await shown(hf, deaf.turn_id)
        stuck = await told(hf, "stuck")
        assert {event.turn_id for event in stuck} == {deaf.turn_id}
        assert stuck[-1].data == {
            "class": "stalled_agent_run", "reason": "active_work_without_progress",
            "recovery": "abort",
        }  # fmt: skip
    line = next(r.getMessage() for r in caplog.records if "stalled session" in r.getMessage())
    for word in (
        f"stalled session: sessionId={outcome.session_id} sessionKey={KEY} lane=user",
        "state=processing", "queueDepth=1", "reason=active_work_without_progress",
        "classification=stalled_agent_run", "activeWorkKind=model_call",
        "lastProgress=model:stream",
    ):  # fmt: skip
        assert word in line
    for transcript in tmp_path.glob("agents/*/sessions/*.jsonl"):
        oracle.check_answers(oracle.read(transcript))


async def test_a_run_that_does_not_vacate_is_fenced_and_its_process_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only its model is deaf: what should close it hangs too."""
    hangs, real = asyncio.Event(), Attempt.let_go

    async def hang_once(attempt: Attempt) -> None:
        if not hangs.is_set():
            hangs.set()
            await asyncio.Event().wait()
        await real(attempt)

    monkeypatch.setattr(Attempt, "let_go", hang_once)
    model = DeafModel()
    async with holdfast.open(tmp_path, agent=model, settings=QUICK) as hf:
        deaf = await hf.submit(KEY, "deaf")
        outcome = await deaf.outcome(20)
        assert hangs.is_set()
        assert (outcome.kind, outcome.attempts) == ("replied", 2)
        assert (await (await hf.submit(KEY, "next")).outcome(10)).kind == "replied"
        assert [event.turn_id for event in await told(hf, "fenced")] == [deaf.turn_id]
        assert (await hf.store.control.counts()).leases == 0
        model.released.set()
    finals = oracle.finals(oracle.read(oracle.only_transcript(tmp_path)))
    assert len(finals) == 2


async def test_a_run_longer_than_its_bound_fails_though_it_moves(tmp_path: Path) -> None:
    async def slowly(prompt: Any, position: int) -> None:
        await asyncio.sleep(0.01)

    model = ScriptedModel([Say(("word ",) * 100_000)], gate=slowly)
    settings = {**QUICK, "turn.max_ms": 400}
    async with holdfast.open(tmp_path, agent=model, settings=settings) as hf:
        outcome = await (await hf.submit(KEY, "for ever")).outcome(20)
        assert (outcome.kind, outcome.reason) == ("failed", "max_time")
        assert "turn.max_ms" in (outcome.hint or "")
        assert (await (await hf.submit(KEY, "next")).outcome(10)).kind == "replied"


async def test_a_tool_within_its_own_bound_is_progress(tmp_path: Path) -> None:
    """It runs until the keeper has looked often, at thrice the bound of everything else."""
    looks = 0

    async def long() -> str:
        nonlocal looks
        while looks < 10:
            await asyncio.sleep(0.1)
            looks += 1
        return "done"

    model = ScriptedModel([Call("long", long, timeout_s=60), Say(("after it",))])
    async with holdfast.open(tmp_path, agent=model, settings=QUICK) as hf:
        outcome = await (await hf.submit(KEY, "use it")).outcome(20)
        assert (outcome.text, outcome.attempts) == ("after it", 1)
        assert await told(hf, "stuck") == []


async def test_a_run_that_never_moves_ends_with_its_attempts(tmp_path: Path) -> None:
    async def never(prompt: Any, position: int) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if over:
                    raise

    over: list[bool] = []
    settings = {**QUICK, "turn.max_attempts": 2, "abort.settle_ms": 50}
    async with holdfast.open(
        tmp_path, agent=ScriptedModel(gate=never), settings=settings
    ) as hf:
        outcome = await (await hf.submit(KEY, "q")).outcome(20)
        over.append(True)
    assert (outcome.kind, outcome.attempts) == ("failed", 2)
    assert outcome.reason == "no_progress"


async def test_an_owner_that_does_not_see_an_abort_is_fenced_by_another(tmp_path: Path) -> None:
    """Its process is stopped, and its lease would last an hour: the abort row is enough."""
    hour = {"turn.lease_ms": 3_600_000, "abort.settle_ms": 200}
    with Member(state=str(tmp_path), name="a", delay_s=0.05, settings=hour) as a:
        a.until("ready")
        a.go()
        a.until("streaming")
        a.signal(signal.SIGSTOP)
        async with holdfast.open(tmp_path, settings={"abort.settle_ms": 200}) as operator:
            [turn] = await operator.store.control.turns()
            asked = await operator.cancel(turn.turn_id)
            assert asked.state == "running"
            outcome = await (await operator.receipt(turn.turn_id)).outcome(20)
            assert (outcome.kind, outcome.reason) == ("cancelled", "cancelled")
            after = await operator.submit(KEY, "after it")
            a.signal(signal.SIGCONT)
            assert a.until("outcome")["kind"] == "cancelled"
            assert (await after.outcome(20)).kind == "replied", "the session is free"
        a.until("done")
        assert a.end() == 0
    entries = oracle.read(oracle.only_transcript(tmp_path))
    assert list(oracle.check_answers(entries)) == ["after it"]


async def test_a_successor_starts_when_its_fenced_predecessor_has_had_its_settle_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The predecessor lives, and streams on: its process only fails to say so in time.  What it
    says after it was fenced is refused, to the last word.
    """
    go_on, fenced = asyncio.Event(), asyncio.Event()
    after: list[str] = []

    async def gate(prompt: Any, position: int) -> None:
        if position == 1:
            await fenced.wait()
        if position > 1:
            after.append("word")
        if position == 4:
            go_on.set()

    async def believed(*_: Any) -> bool:
        return True

    monkeypatch.setattr(Runner, "fenced", lambda _: None)  # Nobody tells it, either.
    streaming = ScriptedModel([Say(("one ", "two ", "three ", "four ", "five"))], gate=gate)
    settings = {"turn.lease_ms": 900, "abort.settle_ms": 1_500}
    async with holdfast.open(tmp_path, agent=streaming, settings=settings) as first:
        receipt = await first.submit(KEY, "q")
        while not streaming.prompts:
            await asyncio.sleep(0)
        monkeypatch.setattr(first.store.control, "beat", believed)
        heir = ScriptedModel([Say(("the heir's",))])
        async with holdfast.open(tmp_path, agent=heir, settings=settings) as second:
            async with asyncio.timeout(20):
                while not await told(second, "fenced"):
                    await asyncio.sleep(0.02)
            fenced.set()
            await go_on.wait()  # It streams on, within its settle bound and after it.
            outcome = await (await second.receipt(receipt.turn_id)).outcome(20)
            assert outcome.text == "the heir's"
            assert len(heir.prompts) == 1
            [end] = await told(second, "fenced")
            leases = [e for e in await told(second, "lease") if e.turn_id == receipt.turn_id]
            began, heirs = leases
            settled_s = at(heirs) - at(end)
            assert settled_s >= 1.5, "it started while its predecessor might still write"
            assert began.event_id < end.event_id < heirs.event_id
            assert after, "the predecessor had ended by itself"
            assert "the heir's" in await shown(second, receipt.turn_id)
            log = second.store.live.tail(receipt.turn_id)  # type: ignore[arg-type]
            first_token = end.data["token"]
            seen = [event.data for event in log.read(first_token) if event.kind == "text"]
            assert [event["text"] for event in seen] == ["one "], "a fenced owner was shown"
    [final] = oracle.finals(oracle.read(oracle.only_transcript(tmp_path)))
    assert final["holdfast"]["token"] > end.data["newer"]


async def test_a_late_loop_is_measured_and_told(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path, agent=ScriptedModel(), settings=QUICK) as hf:
        assert hf.loop_delay.max_s < LATE_S
        async with asyncio.timeout(20):
            while not (found := await told(hf, "loop_delay")):
                time.sleep(1.5 * LATE_S)
                await asyncio.sleep(0.1)
        assert found[0].owner_id == hf.store.owner.owner_id
        assert found[0].data["max_ms"] >= LATE_S * 1000
        assert hf.loop_delay.max_s >= LATE_S


async def test_a_reaper_that_died_while_it_settled_left_the_settling_to_the_next() -> None:
    """It had fenced a living owner, and was gone before that one had its settle bound."""
    world, settings = World(), parse({"abort.settle_ms": 1_000})
    owner, reaper, heir = (MemoryStore(world, settings) for _ in range(3))
    for store in (owner, reaper, heir):
        await store.control.register(store.owner)
        await store.control.register_runner(store.owner.owner_id, ["main"], permanent=True)
    asked = asked_for(session_key=KEY)
    await owner.control.admit(asked, ())
    leased = await owner.control.pick(owner.owner.owner_id, ["main"], settings.lanes)
    assert leased is not None
    session_id, me = leased.session.session_id, reaper.owner.owner_id
    await reaper.control.take_over(session_id, leased.token, me)
    world.kill(me)
    ended: list[Any] = []
    recovery = Recovery(heir, settings, ended.append)
    [lease] = (await heir.control.look(heir.owner.owner_id)).leases
    assert lease.recovering
    await recovery.end_attempt(lease, "owner_died")
    events = await heir.control.events(kinds=["fenced", "requeue"])
    assert [event.kind for event in events] == ["fenced", "fenced", "requeue"]
    assert at(events[2]) - at(events[1]) >= 1.0
    for store in (owner, heir):
        await store.close()


def at(event: Any) -> float:
    return datetime.fromisoformat(event.at).timestamp()
