"""
Many processes, one session, every message answered.

Method: real processes, real files, real signals, a real HTTP model server behind pydantic-ai.
The judge is the transcript, read without our code; and the control store's rows, because a
killed sender cannot tell what it was answered.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.testing import ModelServer
from support import oracle
from support.crowd import Member
from support.rows import every_turn

LANES = ["user", "subagent", "cron", "heartbeat"]
SETTINGS = {"turn.queue_max": 400, "turn.heartbeats_yield": False}  # All are answered.


def test_320_messages_from_23_processes_are_all_answered(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with ModelServer(token_delay_s=0.001) as server, ExitStack() as stack:
        plan = {"state": str(state), "base_url": server.base_url, "settings": SETTINGS}
        members = [
            stack.enter_context(Member(name=f"m{n}", lanes=LANES, per_lane=25, **plan))
            for n in range(3)
        ]
        for member in members:
            member.until("ready")
        for member in members:
            member.go()
        sends = [stack.enter_context(send(state, f"cli {n}")) for n in range(20)]
        for member in members:
            member.until("done")
        replies = [finished(process) for process in sends]
        assert [member.end() for member in members] == [0, 0, 0]
    outcomes = [event for member in members for event in member.outcomes()]
    assert [event["kind"] for event in outcomes] == ["replied"] * 300
    assert replies == [f"reply to: cli {n}" for n in range(20)]

    entries = oracle.read(oracle.only_transcript(state))
    oracle.check_whole(entries)
    answers = oracle.check_answers(entries)
    asked = {event["text"]: event["reply"] for event in outcomes}
    asked |= {f"cli {n}": f"reply to: cli {n}" for n in range(20)}
    assert answers == asked
    assert len(answers) == 320
    assert all(reply == f"reply to: {text}" for text, reply in answers.items())


@contextmanager
def send(state: Path, text: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "holdfast", "send", "main", text, "--store", str(state)],
        env={**os.environ, "HOLDFAST_TURN__QUEUE_MAX": "400"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def finished(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return out.strip()


def test_a_killed_and_a_frozen_process_lose_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with ModelServer(token_delay_s=0.02) as server, ExitStack() as stack:
        plan = {"state": str(state), "base_url": server.base_url, "settings": SETTINGS}
        members = [
            stack.enter_context(Member(name=f"m{n}", lanes=LANES, per_lane=6, **plan))
            for n in range(3)
        ]
        for member in members:
            member.until("ready")
        for member in members:
            member.go()
        killed, frozen, steady = members
        killed.until("streaming")
        killed.signal(signal.SIGKILL)  # In mid-stream: its lease, slot and turn stand.
        killed.process.wait()
        frozen.until("streaming")
        frozen.signal(signal.SIGSTOP)  # In mid-turn.
        time.sleep(5)  # Not synchronisation: how long it stays frozen is the scenario.
        frozen.signal(signal.SIGCONT)
        for member in (frozen, steady):
            member.until("done")
        turns = every_turn(state)  # The killed one's too: runners are still there.
        assert [member.end() for member in (frozen, steady)] == [0, 0]
        assert {event["kind"] for event in frozen.outcomes() + steady.outcomes()} == {"replied"}
    assert len(turns) >= 48
    assert {turn.outcome for turn in turns} == {"replied"}
    entries = oracle.read(oracle.only_transcript(state))
    oracle.check_whole(entries)
    answers = oracle.check_answers(entries)
    assert sorted(answers) == sorted(turn.text for turn in turns)
    assert len(oracle.finals(entries)) == len(turns), "exactly one final entry each"
    assert max(turn.attempts for turn in turns) >= 2, "nobody was in fact interrupted"


FROZEN = {
    "turn.lease_ms": 900,  # The lease moves on while the process is stopped.
    "abort.settle_ms": 1500,
}


def freeze_between_check_and_append(state: Path, **successor: Any) -> list[oracle.Entry]:
    """
    A stops itself between its token check and the append of its final entry; B's reaper
    moves the lease on; then A goes on.  Returns the transcript.
    """
    with ExitStack() as stack:
        plan = {"state": str(state), "settings": FROZEN}
        a = stack.enter_context(Member(name="a", stop_at_append=2, **plan))
        a.until("ready")
        a.go()
        a.wait_stopped()
        b = stack.enter_context(Member(name="b", per_lane=0, **plan, **successor))
        b.until("ready")
        b.go()
        b.until("done")
        if successor:
            b.until("waiting")
        else:
            await_newer_token(state)
        a.signal(signal.SIGCONT)
        [turn] = every_turn(state)
        assert turn.outcome == "replied"
        a.until("done")
        assert a.end() == 0
        assert b.end() == 0
    return oracle.read(oracle.only_transcript(state))


def await_newer_token(state: Path) -> None:
    import asyncio

    async def look() -> None:
        async with holdfast.open(state) as hf:
            moved = asyncio.Event()
            unwatch = hf.store.control.watch(moved.set)
            [turn] = await hf.store.control.turns()
            while (newest := hf.store.control.newest_token(turn.session_id)) is None or newest[
                0
            ] < 2:
                moved.clear()
                async with asyncio.timeout(30):
                    await moved.wait()
            unwatch()

    asyncio.run(look())


def test_a_process_frozen_between_check_and_append_gives_one_reply(tmp_path: Path) -> None:
    entries = freeze_between_check_and_append(tmp_path / "state")
    assert len(oracle.finals(entries)) == 1
    oracle.check_answers(entries)


def test_the_oracle_can_fail_when_history_is_loaded_outside_the_lock(tmp_path: Path) -> None:
    """The same schedule with that one guarantee taken out: two replies to one turn."""
    entries = freeze_between_check_and_append(
        tmp_path / "state", loads_history_outside_the_lock=True
    )
    assert len(oracle.finals(entries)) == 2
    with pytest.raises(AssertionError, match="answered twice"):
        oracle.check_answers(entries)
