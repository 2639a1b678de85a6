"""A newer Holdfast migrates a store under a process that has it open."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import holdfast
from holdfast.backends.files.control import schema
from holdfast.errors import DrainingError, NewerSchemaError
from holdfast.testing import ScriptedModel

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast import Holdfast

KEY = "agent:main:main"
WITHIN_S = 30


def migrate(state: Path) -> None:
    """As the next version will: its number goes up, and nothing of ours is gone."""
    with closing(sqlite3.connect(state / "control.db", timeout=WITHIN_S)) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")


class Slow:
    """A model that says its second token when it is let."""

    def __init__(self) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self.model = ScriptedModel(gate=self._gate)

    async def _gate(self, prompt: Any, out: int) -> None:
        self.asked.set()
        if out:
            await self.go.wait()


async def test_nothing_new_is_taken_and_what_runs_is_finished(tmp_path: Path) -> None:
    slow = Slow()
    async with holdfast.open(tmp_path, agent=slow.model) as hf:
        running = await hf.submit(KEY, "runs")
        await slow.asked.wait()
        waiting = await hf.submit(KEY, "waits")
        migrate(tmp_path)
        with pytest.raises(NewerSchemaError) as refused:
            await hf.submit(KEY, "too late")
        assert (refused.value.found, refused.value.known) == (
            schema.VERSION + 1,
            schema.VERSION,
        )
        with pytest.raises(NewerSchemaError):
            await hf.store.control.reset(KEY)
        await asyncio.wait_for(hf.outgrown.wait(), WITHIN_S)
        assert hf.draining
        with pytest.raises(DrainingError):
            await hf.submit(KEY, "later still")
        slow.go.set()
        assert (await running.outcome(WITHIN_S)).kind == "replied"
        row = await hf.store.control.turn(waiting.turn_id)
        assert (row.state, row.home) == ("accepted", None), "another may run it"
        assert [prompt.text for prompt in slow.model.prompts] == ["runs"]


async def test_an_idle_process_finds_it_by_its_beat(tmp_path: Path) -> None:
    settings = {"turn.lease_ms": 600}
    async with holdfast.open(tmp_path, agent=ScriptedModel(), settings=settings) as hf:
        migrate(tmp_path)
        await asyncio.wait_for(hf.outgrown.wait(), WITHIN_S)
        await until_drained(hf)


async def until_drained(hf: Holdfast) -> None:
    while not hf.draining:
        await hf.change()


async def test_who_starts_afterwards_is_refused_by_name(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path):
        pass
    migrate(tmp_path)
    with pytest.raises(NewerSchemaError):
        async with holdfast.open(tmp_path):
            pass
