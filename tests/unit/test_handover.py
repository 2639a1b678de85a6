"""Who is asked to let go of a session: the table, and what a process does by it."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

import holdfast
from holdfast._core import handover
from holdfast._core.handover import BUSY, LATELY_S, LET_GO, OWN_IDLE_S, Facts, decide
from holdfast.errors import LeaseLostError, NotFoundError
from holdfast.testing import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from holdfast import Holdfast

KEY = "agent:main:main"
WITHIN_S = 30
NEVER_S = 1e9

# ----------------------------------------------------------------------------- the table


@pytest.mark.parametrize(
    ("facts", "answer", "said"),
    [
        (Facts(here=False, finishing=True), LET_GO, "ended already"),
        (Facts(finishing=True, still_ms=10**9), BUSY, "being written"),
        (Facts(own=True, waits=True, still_ms=10**9), BUSY, "waits for another turn"),
        (Facts(own=True, still_ms=1_999), BUSY, "used the turn 2.0 s ago"),
        (Facts(own=True, still_ms=2_000), LET_GO, "nothing with it for 2.0 s"),
        (Facts(own=True, still_ms=2_000, begun=False), LET_GO, "nothing with it"),
        (Facts(begun=False, still_ms=0), LET_GO, "not asked its model"),
        (Facts(tool="sql", tool_ms=90_000, tool_left_ms=1, still_ms=90_000), BUSY, "tool sql"),
        (Facts(tool="sql", tool_ms=90_000, tool_left_ms=-1, still_ms=90_000), LET_GO, "moved"),
        (Facts(tool="sql", tool_ms=1, tool_left_ms=-1, still_ms=5), BUSY, "and moved"),
        (Facts(still_ms=29_999, run_ms=60_000), BUSY, "running for 60 s"),
        (Facts(still_ms=30_000), LET_GO, "nothing in it had moved for 30 s"),
    ],
)
def test_each_row(facts: Facts, answer: str, said: str) -> None:
    found = decide(facts)
    assert found.answer == answer
    assert said in found.detail


def test_nobody_who_moves_is_interrupted_and_every_answer_has_words() -> None:
    spans = (0, int(OWN_IDLE_S * 1000), int(LATELY_S * 1000))
    flags = (True, False)
    for here, own, finishing, begun, tool, left, still in itertools.product(
        flags, flags, flags, flags, (None, "t"), (-1, 1), spans
    ):
        facts = Facts(here, own, finishing, begun, tool, 1, left, still, still)
        found = decide(facts)
        assert found.detail
        if here and finishing:
            assert found.answer == BUSY
        if here and begun and still == 0:
            assert found.answer == BUSY
        if here and own and not finishing:
            assert (found.answer == LET_GO) == (still >= OWN_IDLE_S * 1000)


# --------------------------------------------------------------------- between two processes


@pytest.fixture(params=["files", "memory"])
async def two(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Opens one store several times, as several processes do."""
    where = str(tmp_path / "state") if request.param == "files" else f"memory:{tmp_path.name}"
    async with AsyncExitStack() as stack:

        async def opened(agent: Any = None) -> Holdfast:
            return await stack.enter_async_context(holdfast.open(where, agent=agent))

        yield opened


def idle_after(monkeypatch: pytest.MonkeyPatch, own_s: float, agent_s: float = NEVER_S) -> None:
    monkeypatch.setattr(handover, "OWN_IDLE_S", own_s)
    monkeypatch.setattr(handover, "LATELY_S", agent_s)


async def test_a_program_that_does_nothing_with_its_turn_lets_go(
    two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, other = await two(), await two()
    idle_after(monkeypatch, 0)
    async with holder.turn(KEY, "held") as turn:
        aborted = asyncio.create_task(turn.wait_aborted())
        await asyncio.sleep(0)
        done = await other.handover(KEY, timeout_s=WITHIN_S)
        assert (done.answer, done.turn_id) == (LET_GO, turn.turn_id)
        async with other.turn(KEY, "next") as mine:  # The session is free while we are inside.
            await mine.reply("mine")
        assert await aborted == "handed_over"
        for used in (
            lambda: turn.text, lambda: turn.token, turn.history, lambda: turn.abort_requested,
        ):  # fmt: skip
            with pytest.raises(LeaseLostError):
                used()
        for awaited in (turn.reply("late"), turn.steered(), turn.wait_aborted()):
            with pytest.raises(LeaseLostError):
                await awaited
    row = await other.store.control.turn(done.turn_id)
    assert (row.outcome, row.reason) == ("cancelled", "handed_over")
    said = [
        e["message"]["role"]
        for e in (await other.transcript(KEY)).path()
        if e["type"] == "message"
    ]
    assert said == ["user", "user", "assistant"], "nothing of it came after it had let go"


async def test_a_program_that_uses_its_turn_keeps_it(
    two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, other = await two(), await two()
    idle_after(monkeypatch, NEVER_S)
    async with holder.turn(KEY, "held") as turn:
        done = await other.handover(KEY, timeout_s=WITHIN_S)
        assert done.answer == BUSY
        assert "used the turn" in done.detail
        await turn.reply("answered")
    row = await other.store.control.turn(done.turn_id)
    assert row.outcome == "replied"


@pytest.mark.parametrize("how", ["ask", "turn"])
async def test_a_program_that_waits_for_another_turn_keeps_its_own(
    two: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    hanging = Hanging()
    holder, other = await two(hanging.model), await two()
    idle_after(monkeypatch, 0)
    async with asyncio.timeout(WITHIN_S), holder.turn(KEY, "held") as turn:
        if how == "turn":
            async with holder.turn("agent:main:child", "asked") as child:
                done = await other.handover(KEY, timeout_s=WITHIN_S)
                await child.reply("said")
        else:
            child = asyncio.create_task(holder.ask("agent:main:child", "asked"))
            await hanging.asked.wait()
            done = await other.handover(KEY, timeout_s=WITHIN_S)
            hanging.go.set()
            await child
        assert (done.answer, done.turn_id) == (BUSY, turn.turn_id)
        assert "waits for another turn" in done.detail
        await turn.reply("answered")


class Hanging:
    """A model that says one token and then nothing, until it is let."""

    def __init__(self) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self.model = ScriptedModel(gate=self._gate)

    async def _gate(self, prompt: Any, out: int) -> None:
        if out == 0:
            self.asked.set()
        else:
            await self.go.wait()


async def test_an_agents_turn_that_moves_keeps_its_session_and_says_so(
    two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging()
    await two(hanging.model)
    other = await two()
    idle_after(monkeypatch, 0, NEVER_S)
    receipt = await other.submit(KEY, "a question")
    await hanging.asked.wait()
    done = await other.handover(KEY, timeout_s=WITHIN_S)
    assert (done.answer, done.turn_id) == (BUSY, receipt.turn_id)
    assert "running for" in done.detail
    hanging.go.set()
    outcome = await receipt.outcome(WITHIN_S)
    assert (outcome.kind, outcome.attempts) == ("replied", 1)


async def test_an_agents_turn_in_which_nothing_moves_goes_back_to_its_place(
    two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging()
    await two(hanging.model)
    other = await two()
    idle_after(monkeypatch, 0, 0)
    receipt = await other.submit(KEY, "a question")
    behind = await other.submit(KEY, "behind it")
    await hanging.asked.wait()
    done = await other.handover(KEY, timeout_s=WITHIN_S)
    assert (done.answer, done.turn_id) == (LET_GO, receipt.turn_id)
    assert done.again, "nobody else can run it, and who asks is told so"
    hanging.go.set()
    outcome = await receipt.outcome(WITHIN_S)
    assert (outcome.kind, outcome.attempts) == ("replied", 1), "no attempt was spent"
    assert (await behind.outcome(WITHIN_S)).kind == "replied"
    asked = [prompt.text for prompt in hanging.model.prompts]
    assert asked == ["a question", "a question", "behind it"], "at its place, not behind"


async def test_what_was_let_go_of_goes_to_another_process_that_can_run_it(
    two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, able = Hanging(), ScriptedModel()
    holder, asker = await two(hanging.model), await two()
    idle_after(monkeypatch, 0, 0)
    receipt = await holder.submit(KEY, "a question")
    await hanging.asked.wait()
    await two(able)
    done = await asker.handover(KEY, timeout_s=WITHIN_S)
    assert (done.answer, done.turn_id, done.again) == (LET_GO, receipt.turn_id, False)
    outcome = await receipt.outcome(WITHIN_S)
    assert (outcome.kind, outcome.attempts) == ("replied", 1), "no attempt was spent"
    assert [len(each.prompts) for each in (hanging.model, able)] == [1, 1]


async def test_a_session_that_nobody_holds_is_free(two: Any) -> None:
    hf = await two(ScriptedModel())
    with pytest.raises(NotFoundError):
        await hf.handover(KEY)
    await (await hf.submit(KEY, "one")).outcome(WITHIN_S)
    done = await hf.handover(KEY)
    assert (done.answer, done.turn_id) == (LET_GO, None)


async def test_a_request_to_somebody_who_is_gone_is_not_answered(
    two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, other = await two(), await two()

    async def deaf() -> None: ...

    async with holder.turn(KEY, "held") as turn:
        monkeypatch.setattr(holder.handing, "look", deaf)
        done = await other.handover(KEY, timeout_s=0)
        assert (done.answer, done.turn_id) == (None, turn.turn_id)


async def test_a_programs_own_loop_sees_that_its_end_is_asked_for(two: Any) -> None:
    holder, other = await two(), await two()
    with pytest.raises(asyncio.CancelledError):
        async with holder.turn(KEY, "held") as turn:
            assert turn.abort_requested is None
            await other.cancel(turn.turn_id)
            assert await turn.wait_aborted() == "cancelled"
            assert turn.abort_requested == "cancelled"
            raise asyncio.CancelledError
    row = await other.store.control.turn(turn.turn_id)
    assert row.outcome == "cancelled"
