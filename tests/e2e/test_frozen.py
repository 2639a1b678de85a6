"""Processes that stop (SIGSTOP) while they hold something: seen, said, and waited for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import holdfast
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.backends.files.look import frozen
from holdfast.cli import main
from support.crowd import Member
from support.serving import Served

WITHIN_S = 30.0
LOCK_CHILD = Path(__file__).parent / "_lock_child.py"


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "_told", {})


@pytest.fixture
async def state(tmp_path: Path) -> Path:
    """A store that exists, so that who opens it next creates nothing."""
    where = tmp_path / "state"
    async with holdfast.open(where):
        pass
    return where


@contextmanager
def stopped_inside(state: Path) -> Iterator[Member]:
    """A process that is stopped inside a control transaction, as its first deed."""
    with Member(state=str(state), stop_at=["control.begun", 1, None]) as member:
        member.wait_stopped()
        yield member


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the write lock of *path*; it lets go when it is told `go`."""
    with subprocess.Popen(
        [sys.executable, str(LOCK_CHILD), "hold", str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        try:
            yield child
        finally:
            child.kill()


def stop(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.send_signal(signal.SIGCONT)
    child.stdin.write("go\n")
    child.stdin.flush()


async def until(true: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < deadline_s, "it never came"
        await asyncio.sleep(0.02)


def told(caplog: pytest.LogCaptureFixture, pid: int) -> list[str]:
    said = [record.getMessage() for record in caplog.records]
    return [line for line in said if f"pid {pid} is stopped" in line]


async def test_who_waits_for_the_store_says_who_is_stopped_in_it(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with stopped_inside(state) as member:

        async def come_and_go() -> None:
            async with holdfast.open(state):
                pass

        waiting = asyncio.create_task(come_and_go())
        await until(lambda: told(caplog, member.pid))
        assert not waiting.done()
        member.signal(signal.SIGCONT)
        await asyncio.wait_for(waiting, WITHIN_S)
        member.until("ready")
        (said,) = told(caplog, member.pid)
        assert f"holds the write transaction of {state} since 2" in said


async def test_a_runner_says_who_is_stopped_in_the_store_though_nobody_waits(
    state: Path,
) -> None:
    # Its own beats are as rare as its lease is long: it has nothing to wait for.
    with Served(state, env={"HOLDFAST_TURN__LEASE_MS": "3600000"}) as served:
        with stopped_inside(state) as member:
            await until(lambda: f"pid {member.pid} is stopped" in served.log.read_text())
            member.signal(signal.SIGCONT)
            member.until("ready")
            with served.client() as http:
                said = http.post(
                    "/v1/sessions/main/messages", params={"wait": 20}, json={"text": "hello"}
                )
            assert said.json()["outcome"] == "replied"


async def test_who_waits_for_a_write_lock_says_who_is_stopped_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.jsonl"
    with holding(path) as child:
        stop(child)
        waiting = asyncio.create_task(WriteLock(path, timeout_s=WITHIN_S).acquire())
        await until(lambda: told(caplog, child.pid))
        go(child)
        (await waiting).release()
        (said,) = told(caplog, child.pid)
        assert f"holds the write lock of {path} since 2" in said


async def test_a_lock_without_its_claim_names_its_stopped_holder_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator's `rm *.lock` hides nobody: the kernel still knows."""
    path = tmp_path / "s.jsonl"
    with holding(path) as child:
        stop(child)
        (tmp_path / "s.jsonl.lock").unlink()
        waiting = asyncio.create_task(WriteLock(path, timeout_s=WITHIN_S).acquire())
        await until(lambda: told(caplog, child.pid))
        go(child)
        (await waiting).release()


async def test_a_holder_that_runs_is_not_called_stopped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.jsonl"
    with holding(path) as child:
        with pytest.raises(holdfast.errors.LockTimeoutError):
            await WriteLock(path, timeout_s=2.0).acquire()
        assert told(caplog, child.pid) == []


def test_locks_and_doctor_name_a_stopped_holder(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = state / "agents" / "main" / "sessions" / "s.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with holding(path) as child:
        stop(child)
        assert main(["locks", "show", str(path), "--json"]) == 0
        (lock,) = json.loads(capsys.readouterr().out)["locks"]
        assert lock["holder"]["pid"] == child.pid
        assert lock["holder"]["stopped"] is True
        assert main(["doctor", "--store", str(state), "--json"]) == 1
        found = json.loads(capsys.readouterr().out)["findings"]
        (frozen_one,) = [each for each in found if each["code"] == "frozen_holder"]
        assert str(child.pid) in frozen_one["detail"]
        child.send_signal(signal.SIGCONT)


def test_doctor_names_who_is_stopped_inside_the_store(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with stopped_inside(state) as member:
        assert main(["doctor", "--store", str(state), "--json"]) == 1
        told = json.loads(capsys.readouterr().out)
        (found,) = [each for each in told["findings"] if each["code"] == "frozen_holder"]
        assert (found["pid"], found["confirmed"]) == (member.pid, True)
        assert told["control"]["writer"] == member.pid
        member.signal(signal.SIGCONT)
        member.until("ready")
        assert main(["doctor", "--store", str(state)]) == 0
