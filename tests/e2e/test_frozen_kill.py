"""A stopped process that keeps others waiting: ended where it may be, and never a stranger."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast._core.frozen import What
from holdfast.backends.files import identity
from holdfast.backends.files.control.store import GATE
from holdfast.backends.files.lock.gate import Gate
from holdfast.backends.files.look import frozen
from holdfast.testing import ScriptedModel
from holdfast.types import FrozenHolder, Owner
from support import oracle
from support.crowd import Member
from support.serving import Served

KEY = "agent:main:main"
WITHIN_S = 30.0
LOCK_CHILD = Path(__file__).parent / "_lock_child.py"
SOON = {"HOLDFAST_RECOVERY__FROZEN_KILL_MS": "1000"}
KILL = {"recovery.frozen_holder": "kill", "recovery.frozen_kill_ms": 1000}

#: In a transaction of a turn under way; in the write lock, before its last byte.
STOPS = [["control.begun", 1, "effect.left"], ["append.checked", 1, "effect.left"]]


def until(true: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.02)


@contextmanager
def stopped(state: Path, stop_at: list[Any]) -> Iterator[Member]:
    """A runner that stops itself on the way of its own turn."""
    with Member(state=str(state), name="a", stop_at=stop_at) as member:
        member.until("ready")
        member.go()
        member.wait_stopped()
        yield member


@pytest.mark.parametrize("stop_at", STOPS, ids=["transaction", "write-lock"])
def test_serve_ends_a_stopped_owner_and_answers_its_turn(
    tmp_path: Path, stop_at: list[Any]
) -> None:
    state = tmp_path / "state"
    with Served(state, env=SOON) as served, stopped(state, stop_at) as member:
        assert member.process.wait(WITHIN_S) == -signal.SIGKILL
        until(lambda: "it was killed (recovery.frozen_holder)" in served.log.read_text())
        assert f"pid {member.pid} is stopped and holds" in served.log.read_text()
        path = oracle.only_transcript(state)
        until(lambda: len(oracle.finals(oracle.read(path))) == 1)
        with served.client() as http:
            said = http.post(
                "/v1/sessions/main/messages", params={"wait": 20}, json={"text": "next"}
            )
        assert said.json()["outcome"] == "replied"
        assert served.stop()[0] == 0
    assert list(oracle.check_answers(oracle.read(path))) == ["a user 0", "next"]


@pytest.mark.parametrize("stop_at", STOPS, ids=["transaction", "write-lock"])
async def test_it_is_seen_by_what_it_holds_and_ended_only_by_the_setting(
    tmp_path: Path, stop_at: list[Any]
) -> None:
    """An explicit `report` wins; and each row that forbids it, with a real stopped process."""
    with stopped(tmp_path, stop_at) as member:
        async with _looking(tmp_path, {}) as (store, owners):
            [seen] = store.frozen(owners)
            assert seen.pid == member.pid
            assert seen.owner is not None
            path = seen.path and Path(seen.path)
            assert path == (None if stop_at[0] == "control.begun" else only(tmp_path))
            assert store.end_frozen(seen, owners, 10**9).what is What.REPORT
        async with _looking(tmp_path, KILL) as (store, owners):
            [seen] = store.frozen(owners)
            end = store.end_frozen
            assert end(seen, owners, 999).what is What.WAIT
            assert end(seen, (), 10**9).reason == "stranger"
            other = replace(seen, start_time=(seen.start_time or 0) - 1)
            assert end(other, owners, 10**9).reason == "another_process"
            elsewhere = replace(seen.owner or owners[0], pid_namespace=1)
            assert end(seen, (elsewhere,), 10**9).reason == "stranger"
            wrong = replace(seen, path=str(tmp_path / "other.jsonl"))
            assert end(wrong, owners, 10**9).reason == "holds_nothing"
            assert member.process.poll() is None
            member.signal(signal.SIGCONT)
            until(lambda: end(seen, owners, 10**9).reason == "runs")
            assert store.frozen(owners) == []
        member.until("done")
        assert member.end() == 0


async def test_what_has_permission_is_killed_by_its_descriptor(tmp_path: Path) -> None:
    with stopped(tmp_path, STOPS[1]) as member:
        async with _looking(tmp_path, KILL) as (store, owners):
            [seen] = store.frozen(owners)
            assert store.end_frozen(seen, owners, 1000).what is What.KILL
            assert member.process.wait(WITHIN_S) == -signal.SIGKILL
            assert store.end_frozen(seen, owners, 1000).what is What.NOTHING


async def test_a_stopped_owner_that_holds_nothing_is_left_alone(tmp_path: Path) -> None:
    """Ctrl-Z in a chat: nobody waits for it."""
    hour = {"turn.lease_ms": 3_600_000}  # After its first beat it writes nothing any more.
    with Member(state=str(tmp_path), name="a", per_lane=0, settings=hour) as member:
        member.until("ready")
        async with _looking(tmp_path, KILL) as (store, owners):
            while not await beaten(store, owners[0]):
                await asyncio.sleep(0.01)
            while inside(tmp_path) is not None:  # On its way out.
                await asyncio.sleep(0.01)
            member.signal(signal.SIGSTOP)
            os.waitpid(member.pid, os.WUNTRACED)
            assert store.frozen(owners) == []
        member.signal(signal.SIGCONT)
        assert member.end() == 0


async def test_a_strangers_claim_holder_is_never_killed(tmp_path: Path) -> None:
    """It has the write lock of our transcript, it is stopped, others wait: it is told of."""
    async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
        await (await hf.submit(KEY, "first")).outcome(10)
    path = only(tmp_path)
    settings = {**KILL, "abort.settle_ms": 100}
    with subprocess.Popen(
        [sys.executable, str(LOCK_CHILD), "hold", str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "held\n"
        child.send_signal(signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        try:
            async with holdfast.open(tmp_path, agent=ScriptedModel(), settings=settings) as hf:
                receipt = await hf.submit(KEY, "second")
                look = await hf.store.control.look(hf.store.owner.owner_id)
                owners = tuple(owner for owner, _ in look.owners)
                assert hf.store.frozen(owners) == []
                start = identity.start_of(child.pid)
                forged = FrozenHolder(child.pid, start, str(path), None, "forged")
                verdict = hf.store.end_frozen(forged, owners, 10**9)
                assert (verdict.what, verdict.reason) == (What.REPORT, "stranger")
                with pytest.raises(TimeoutError):
                    await receipt.outcome(2.5)  # Longer than it takes to kill one of ours.
                assert child.poll() is None
                child.send_signal(signal.SIGCONT)
                child.stdin.write("go\n")
                child.stdin.flush()
                assert (await receipt.outcome(20)).kind == "replied"
        finally:
            child.kill()


async def beaten(store: Any, owner: Owner) -> bool:
    look = await store.control.look(store.owner.owner_id)
    return any(each == owner and beat for each, beat in look.owners)


def inside(state: Path) -> object:
    return frozen.inside(Gate(str(state / GATE)))


def only(state: Path) -> Path:
    return oracle.only_transcript(state).resolve()


class _looking:
    """A store as an observer opens it: no runtime, and no transaction of its own."""

    def __init__(self, state: Path, settings: dict[str, Any]) -> None:
        self._state, self._settings = state, settings

    async def __aenter__(self) -> tuple[Any, tuple[Owner, ...]]:
        from holdfast._core.settings import parse
        from holdfast.backends.files.store import FilesStore

        self._store = FilesStore(str(self._state), parse(self._settings))
        look = await self._store.control.look(self._store.owner.owner_id)
        return self._store, tuple(owner for owner, _ in look.owners)

    async def __aexit__(self, *_: object) -> None:
        await self._store.close()
