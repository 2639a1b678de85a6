"""
A transcript that lost its end after its processes had started, or whose start could not see
to it: whoever takes the write lock next makes it whole before anything is appended.

Method: as `test_restored.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast._runtime import booking
from holdfast.cli import main
from holdfast.errors import StoreError
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Say
from support import oracle
from support.crowd import Member

KEY = "agent:main:main"
UNSYNCED = {"session.durability": "os"}


async def answered(hf: holdfast.Holdfast, *texts: str) -> None:
    for text in texts:
        assert (await (await hf.submit(KEY, text)).outcome(10)).kind == "replied"


def ends_of_lines(path: Path) -> list[int]:
    return [at + 1 for at, byte in enumerate(path.read_bytes()) if byte == 10]


def questions(path: Path) -> list[str]:
    """Answered once each; a torn line stays as one that does not parse."""
    return list(
        oracle.check_answers(
            [e for e in map(parsed, path.read_bytes().splitlines()) if e is not None]
        )
    )


def parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def seen(model: ScriptedModel) -> list[str]:
    """The questions before its own that the model was shown last."""
    told = [m["content"] for m in model.prompts[-1].history if m["role"] == "user"]
    return [content[0]["text"] for content in told]


@pytest.mark.parametrize(
    "cut", [0, -7, +9], ids=["between lines", "in the last", "in the next"]
)
async def test_cut_while_its_process_serves_it_is_whole_before_the_next_turn(
    tmp_path: Path, cut: int
) -> None:
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model, settings=UNSYNCED) as hf:
        await answered(hf, "q0", "q1", "q2")
        path = oracle.only_transcript(tmp_path)
        os.truncate(path, ends_of_lines(path)[3] + cut)  # In the second turn.
        await answered(hf, "next")
        assert seen(model) == ["q0", "q1", "q2"]
        [told] = await hf.store.control.events(kinds=["restored", "rewritten"])
        assert told.kind == "restored"
    assert questions(path) == ["q0", "q1", "q2", "next"]
    async with holdfast.open(tmp_path, agent=model, settings=UNSYNCED) as hf:
        assert hf.reconciled is not None
        assert hf.reconciled.quiet, "the rows still believe that something is missing"


async def test_rewritten_while_its_process_serves_it_is_told_and_left_alone(
    tmp_path: Path,
) -> None:
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model, settings=UNSYNCED) as hf:
        await answered(hf, "q0", "q1")
        path = oracle.only_transcript(tmp_path)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*lines[:1], *lines[3:]]))  # Without the first turn.
        await answered(hf, "next")
        told = await hf.store.control.events(kinds=["restored", "rewritten"])
        assert {event.kind for event in told} == {"rewritten"}
    assert questions(path) == ["q1", "next"]


async def test_cut_while_a_turn_runs_its_reply_stands_on_the_whole_transcript(
    tmp_path: Path,
) -> None:
    """Nothing is appended to what is cut: not the reply, and not what is kept of it."""
    go, asked = asyncio.Event(), asyncio.Event()

    async def gate(prompt: Any, position: int) -> None:
        if prompt.text == "last" and not go.is_set():
            asked.set()
            await go.wait()

    model = ScriptedModel(gate=gate)
    async with holdfast.open(tmp_path, agent=model, settings=UNSYNCED) as hf:
        await answered(hf, "q0", "q1", "q2")
        path = oracle.only_transcript(tmp_path)
        ends = ends_of_lines(path)
        receipt = await hf.submit(KEY, "last")
        await asked.wait()
        os.truncate(path, ends[2])
        go.set()
        assert (await receipt.outcome(20)).kind == "replied"
    assert questions(path) == ["q0", "q1", "q2", "last"]


async def test_what_a_dead_owner_left_is_booked_on_the_whole_transcript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished reply waits in its row; the transcript is cut; the next start appends both."""
    real, model = booking.append_checked, ScriptedModel()
    model.on("long", Say(("x" * 2_000,)))

    def full(*given: Any) -> Any:
        if any(entries_of(given)):
            raise StoreError(path="it", detail="no room") from None
        return real(*given)

    def entries_of(given: Any) -> list[bool]:
        return [bool(entry["holdfast"].get("final")) for entry in given[-1]]

    async with holdfast.open(tmp_path, agent=model, settings=UNSYNCED) as hf:
        await answered(hf, "q0", "q1", "q2")
        path = oracle.only_transcript(tmp_path)
        monkeypatch.setattr(booking, "append_checked", full)
        receipt = await hf.submit(KEY, "long")
        async with asyncio.timeout(10):
            while not (turn := await hf.store.control.turn(receipt.turn_id)).reason:
                await asyncio.sleep(0)
        assert turn.outcome is None
    monkeypatch.undo()
    asked = len(model.prompts)
    os.truncate(path, ends_of_lines(path)[2])
    async with holdfast.open(tmp_path, agent=model, settings=UNSYNCED) as hf:
        outcome = await (await hf.receipt(receipt.turn_id)).outcome(10)
        assert outcome.text == "x" * 2_000
    assert len(model.prompts) == asked, "it was finished, and was run again"
    assert questions(path) == ["q0", "q1", "q2", "long"]


async def test_what_stood_between_and_is_in_no_row_leaves_a_gap_and_no_broken_branch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model still sees what stands above it."""
    hangs = asyncio.Event()

    async def gate(prompt: Any, position: int) -> None:
        if prompt.text == "hangs":
            hangs.set()
            await asyncio.Event().wait()

    model = ScriptedModel(gate=gate)
    async with holdfast.open(tmp_path, agent=model, settings=UNSYNCED) as hf:
        await answered(hf, "q0")
        path = oracle.only_transcript(tmp_path)
        size = path.stat().st_size
        receipt = await hf.submit(KEY, "hangs")
        await hangs.wait()
        await hf.cancel(receipt.turn_id)
        assert (await receipt.outcome(10)).kind == "cancelled"
        await answered(hf, "q2", "q3")
    os.truncate(path, size)
    async with holdfast.open(tmp_path, agent=model, settings=UNSYNCED) as hf:
        assert hf.reconciled is not None
        [told] = hf.reconciled.restored
        assert told.entries == 4
        await answered(hf, "next")
        assert seen(model) == ["q0", "q2", "q3"]
    gaps = [e for e in oracle.read(path) if e.get("customType") == "holdfast:gap"]
    assert len(gaps) == 1
    assert await asyncio.to_thread(main, ["sessions", "verify", str(path)]) == 0
    assert "unknown_parent" not in capsys.readouterr().out


async def test_who_could_not_see_to_it_at_the_start_does_before_a_turn_runs(
    tmp_path: Path,
) -> None:
    """A process is stopped while it puts back; another starts, and the first one dies."""
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model, settings=UNSYNCED) as hf:
        await answered(hf, "q0", "q1", "q2")
    path = oracle.only_transcript(tmp_path)
    os.truncate(path, ends_of_lines(path)[2])
    settings = {**UNSYNCED, "abort.settle_ms": 100}
    plan = {"state": str(tmp_path), "settings": settings, "stop_at_append": 1}
    with Member(name="a", **plan) as stopped:
        stopped.wait_stopped()
        async with holdfast.open(tmp_path, agent=model, settings=settings) as hf:
            assert hf.reconciled is not None
            assert len(hf.reconciled.unsure) == 1
            receipt = await hf.submit(KEY, "next")
            stopped.process.send_signal(signal.SIGKILL)
            assert (await receipt.outcome(20)).kind == "replied"
            assert seen(model) == ["q0", "q1", "q2"]
    assert questions(path) == ["q0", "q1", "q2", "next"]
