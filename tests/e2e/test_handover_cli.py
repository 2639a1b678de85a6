"""`holdfast turns handover` as a user runs it: somebody lets go, is busy, or is explained."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.door import door
from tests.support.holding import children

import holdfast
from holdfast._core import handover as decisions
from holdfast.testing import ScriptedModel

if TYPE_CHECKING:
    from pathlib import Path

KEY = "agent:main:main"
WITHIN_S = 60


def handover(store: Path, *more: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "turns", "handover", KEY, "--json", *more,
         "--store", str(store)],
        capture_output=True, text=True, timeout=WITHIN_S, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def words(store: Path, *more: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "turns", "handover", KEY, *more, "--store", str(store)],
        capture_output=True, text=True, timeout=WITHIN_S, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_process_that_sits_on_a_session_lets_go_and_it_is_free(tmp_path: Path) -> None:
    """It is busy while it has used its turn lately; asked again, it lets go."""
    with children(tmp_path, 1) as (holder,):
        held = holder.ask(do="hold", key=KEY)["turn"]
        code, told = handover(tmp_path)
        while code == 1:  # Its program has just been handed the turn.
            assert "used the turn" in told["detail"]
            code, told = handover(tmp_path)
        assert (code, told["answer"], told["turn_id"]) == (0, "let_go", held)
        code, said = words(tmp_path)
        assert (code, said) == (0, f"{KEY}: nobody holds it\n")


def test_a_frozen_process_does_not_answer_and_is_told_of(tmp_path: Path) -> None:
    with children(tmp_path, 1) as (holder,):
        held = holder.ask(do="hold", key=KEY)["turn"]
        os.kill(holder.process.pid, signal.SIGSTOP)
        try:
            code, told = handover(tmp_path, "--timeout", "0.5")
            assert (code, told["answer"], told["turn_id"]) == (4, None, held)
            assert told["holder"]["pid"] == holder.process.pid
            assert told["holder"]["life"] == "stopped"
            assert told["next"]
            code, said = words(tmp_path, "--timeout", "0.5")
            assert code == 4
            assert f"no answer from pid {holder.process.pid}" in said
            assert "(stopped)" in said
            assert f"→ continue it: kill -CONT {holder.process.pid}" in said
            assert "next: " in said
        finally:
            os.kill(holder.process.pid, signal.SIGCONT)


async def test_who_has_it_now_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn went back to its place, and nobody else is there to take it from there."""
    monkeypatch.setattr(decisions, "LATELY_S", 0)
    asked, never = asyncio.Semaphore(0), asyncio.Event()

    async def gate(_prompt: Any, _out: int) -> None:
        asked.release()
        await never.wait()

    async with (
        asyncio.timeout(WITHIN_S),
        holdfast.open(tmp_path, agent=ScriptedModel(gate=gate)) as hf,
    ):
        turn = await hf.submit(KEY, "a question")
        await asked.acquire()
        code, said = await asyncio.to_thread(words, tmp_path)
        assert code == 0
        first, now = said.splitlines()
        assert first.startswith(
            f"{KEY}: let go by turn {turn.turn_id}: nothing in it had moved"
        )
        assert now.startswith(f"  now: the user turn {turn.turn_id}, in pid {os.getpid()} on ")
        assert now.endswith(" again: no other process could take it")
        await asked.acquire()
        code, told = await asyncio.to_thread(handover, tmp_path)
        assert (code, told["answer"], told["again"]) == (0, "let_go", True)
        assert told["holder"]["pid"] == os.getpid()
        await asked.acquire()
        never.set()
        assert (await turn.outcome()).kind == "replied"


async def test_it_is_asked_for_over_http(tmp_path: Path) -> None:
    async with door(tmp_path) as opened, opened.http() as client:
        path = f"/v1/sessions/{KEY}/handover"
        assert (await client.post(path)).status_code == 404
        assert (await client.post(f"{path}?timeout=x")).status_code == 422
        async with holdfast.open(tmp_path) as hf, hf.turn(KEY, "held") as turn:
            told = (await client.post(f"{path}?timeout=30")).json()
            assert (told["answer"], told["turn_id"]) == ("busy", turn.turn_id)
            await turn.reply("done")
        told = (await client.post(path)).json()
        assert (told["answer"], told["turn_id"]) == ("let_go", None)
