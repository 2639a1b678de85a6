"""A run is found by its session's id, by its file whatever that is called, and by any key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.cli import main
from holdfast.errors import NotFoundError
from holdfast.testing import ScriptedModel
from support import oracle

KEY, ALIAS = "agent:main:main", "agent:main:chat:direct:somebody"


@asynccontextmanager
async def running(where: Path | str) -> AsyncIterator[tuple[holdfast.Holdfast, Any]]:
    """A turn that runs until it is cancelled."""
    reached = asyncio.Event()

    async def gate(prompt: Any, position: int) -> None:
        reached.set()
        await asyncio.Event().wait()

    async with holdfast.open(where, agent=ScriptedModel(gate=gate)) as hf:
        receipt = await hf.submit(KEY, "long")
        await hf.add_alias(ALIAS, KEY)
        await reached.wait()
        yield hf, receipt


async def test_by_key_alias_session_id_and_every_name_of_its_file(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as (hf, receipt):
        path = oracle.only_transcript(tmp_path / "state")
        (tmp_path / "soft").symlink_to(path)
        (tmp_path / "hard").hardlink_to(path)
        session = await hf.session(KEY)
        for ref in (
            KEY, "main", ALIAS, session.session_id, str(path), str(tmp_path / "soft"),
            str(tmp_path / "hard"), str(path.parent / ".." / "sessions" / path.name),
        ):  # fmt: skip
            assert (await hf.find_run(ref)).turn_id == receipt.turn_id, ref
        (tmp_path / "copy").write_bytes(path.read_bytes())
        for ref in ("agent:main:nobody", str(tmp_path / "copy"), "nothing", "", "a\0b"):
            with pytest.raises(NotFoundError):
                await hf.find_run(ref)
        await hf.cancel(receipt.turn_id)
        await receipt.outcome(10)
        with pytest.raises(NotFoundError):
            await hf.find_run(KEY)


async def test_in_memory_by_what_it_calls_its_transcript() -> None:
    async with running("memory:") as (hf, receipt):
        session = await hf.session(KEY)
        for ref in (KEY, session.session_id, hf.store.transcripts.path(session)):
            assert (await hf.find_run(ref)).turn_id == receipt.turn_id


@pytest.mark.parametrize("by", ["key", "file", "id"])
async def test_the_command_ends_it(
    tmp_path: Path, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    async with running(state) as (_, receipt):
        names = {
            "key": ALIAS, "file": str(oracle.only_transcript(state)), "id": receipt.turn_id,
        }  # fmt: skip
        command = ["turns", "cancel", names[by], "--store", str(state), "--json"]
        assert await asyncio.to_thread(main, command) == 0
        assert (await receipt.outcome(10)).kind == "cancelled"
    told = json.loads(capsys.readouterr().out)
    assert told == {"turn_id": receipt.turn_id, "state": "done", "outcome": "cancelled"}


async def test_the_command_says_that_nothing_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
        await (await hf.submit(KEY, "q")).outcome(10)
    command = ["turns", "cancel", "main", "--store", str(tmp_path)]
    assert await asyncio.to_thread(main, command) != 0
    assert "nothing runs" in capsys.readouterr().err
