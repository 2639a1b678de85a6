"""
`hf.turn`: a block of the caller's own code is bounded like any run.

Method: blocks that hang, look, wait or ask, with bounds of tenths of a second; what came of
it, never how long it took.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.errors import FencedError, UnavailableError
from holdfast.testing import ScriptedModel
from support import oracle

KEY = "agent:main:main"
CHILD = "agent:main:direct:child"
QUICK: dict[str, Any] = {
    "turn.lease_ms": 900, "abort.settle_ms": 200, "recovery.warn_ms": 100,
    "turn.progress_timeout_ms": 600,
}  # fmt: skip


@pytest.fixture
def where(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    yield str(tmp_path) if request.param == "files" else "memory:"


both = pytest.mark.parametrize("where", ["files", "memory"], indirect=True)


async def row(hf: holdfast.Holdfast, turn_id: str) -> tuple[Any, ...]:
    turn = await hf.store.control.turn(turn_id)  # type: ignore[arg-type]
    return turn.state, turn.outcome, turn.reason


async def asked_to_end(turn: Any) -> str:
    async with asyncio.timeout(20):
        return str(await turn.wait_aborted())


@both
async def test_a_block_that_hangs_is_fenced_and_its_session_goes_on(where: str) -> None:
    entered, released = asyncio.Event(), asyncio.Event()
    found = list[str]()

    async def block(hf: holdfast.Holdfast) -> None:
        async with hf.turn(KEY, "hangs") as turn:
            found.append(turn.turn_id)
            entered.set()
            await released.wait()
            await turn.reply("too late")

    async with holdfast.open(where, agent=ScriptedModel(), settings=QUICK) as hf:
        hung = asyncio.create_task(block(hf))
        await entered.wait()
        behind = await hf.submit(KEY, "behind it")
        assert (await behind.outcome(20)).kind == "replied"
        assert not hung.done()
        assert await row(hf, found[0]) == ("done", "failed", "no_progress")
        stuck = await hf.store.control.events(kinds=["stuck"])
        assert {event.turn_id for event in stuck} == {found[0]}
        assert stuck[-1].data["recovery"] == "abort"
        [asked] = await hf.store.control.events(kinds=["abort_requested"])
        assert (asked.turn_id, asked.data["reason"]) == (found[0], "no_progress")
        released.set()
        with pytest.raises(FencedError):
            await hung
        assert await row(hf, found[0]) == ("done", "failed", "no_progress")


@both
async def test_a_block_that_is_asked_to_end_and_leaves_ends_by_what_was_asked(
    where: str,
) -> None:
    async with holdfast.open(where, agent=ScriptedModel(), settings=QUICK) as hf:
        async with hf.turn(KEY, "obeys") as turn:
            assert await asked_to_end(turn) == "no_progress"
        assert await row(hf, turn.turn_id) == ("done", "failed", "no_progress")
        assert (await hf.store.control.events(kinds=["fenced"])) == []


@both
async def test_what_it_has_finished_when_it_is_asked_is_still_committed(where: str) -> None:
    async with holdfast.open(where, agent=ScriptedModel(), settings=QUICK) as hf:
        async with hf.turn(KEY, "finishes") as turn:
            await asked_to_end(turn)
            await turn.reply("just in time")
        assert await row(hf, turn.turn_id) == ("done", "replied", None)


@both
async def test_a_block_that_looks_at_its_turn_moves_until_max_ms_is_over(where: str) -> None:
    """Warned of nothing, however long it takes, and then asked for its own reason."""
    settings = {**QUICK, "turn.progress_timeout_ms": 300, "turn.max_ms": 1_500}
    async with holdfast.open(where, agent=ScriptedModel(), settings=settings) as hf:
        async with hf.turn(KEY, "looks") as turn:
            async with asyncio.timeout(20):
                while turn.abort_requested is None:
                    await asyncio.sleep(0)
            assert turn.abort_requested == "max_time"
        assert await row(hf, turn.turn_id) == ("done", "failed", "max_time")
        reasons = {e.data["reason"] for e in await hf.store.control.events(kinds=["stuck"])}
        assert reasons == {"max_time"}


@both
async def test_a_block_that_waits_for_a_child_is_not_judged(where: str) -> None:
    """Its child answers once the block has done nothing for thrice its bound."""

    async def gate(prompt: Any, position: int) -> None:
        [run] = hf.handing.runs_now()
        while run.progress.to_json()["age_ms"] < 3 * QUICK["turn.progress_timeout_ms"]:
            await asyncio.sleep(0.01)

    settings = {**QUICK, "models.idle_timeout_ms": 100_000}
    async with holdfast.open(where, agent=ScriptedModel(gate=gate), settings=settings) as hf:
        async with hf.turn(KEY, "asks") as turn:
            assert (await hf.ask(CHILD, "slow")).kind == "replied"
            assert turn.abort_requested is None
            await turn.reply("with it")
        assert await row(hf, turn.turn_id) == ("done", "replied", None)


async def test_an_own_turn_that_is_rolled_back_leaves_the_branch(tmp_path: Path) -> None:
    """However its block takes it: here it just leaves."""
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model) as hf:
        async with hf.turn(KEY, "never mind") as turn:
            receipt = await hf.submit(KEY, "instead", policy="rollback")
            assert await asked_to_end(turn) == "rolled_back"
        assert await row(hf, turn.turn_id) == ("done", "cancelled", "rolled_back")
        assert (await receipt.outcome(10)).kind == "replied"
    assert model.prompts[-1].history == ()
    assert list(oracle.check_answers(oracle.read(oracle.only_transcript(tmp_path)))) == [
        "instead"
    ]


@both
@pytest.mark.parametrize(("says", "fails"), [("done", "commit"), (None, "end")])
async def test_what_stands_in_the_transcript_is_booked_though_the_row_could_not_be_moved(
    where: str, says: str | None, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its program is told that the store failed; its outcome is what was written down."""

    async def once(*_: Any, **__: Any) -> Any:
        monkeypatch.undo()
        raise UnavailableError(path=where, detail="for this test", landed=False)

    async with holdfast.open(where, agent=ScriptedModel(), settings=QUICK) as hf:
        with pytest.raises(UnavailableError):
            async with hf.turn(KEY, "question") as turn:
                monkeypatch.setattr(hf.store.control, fails, once)
                if says is not None:
                    await turn.reply(says)
        outcome = await (await hf.receipt(turn.turn_id)).outcome(20)
        found = (outcome.kind, outcome.text)
        assert found == (("silent", None) if says is None else ("replied", says))
