"""
A slow but living owner lost its lock, and two wrote at once (PR #88658 and its follow-up).

What happened there: a lock older than `staleMs`, or than its own `maxHoldMs`, was unlinked by
whoever wanted it, its owner alive and writing.  Then it was reported instead, but at once and
every time, also when the claim had vanished, been replaced, or was only just being written.
An owner whose command line was not the founding program's (an embedder's own script), or that
another user ran (EPERM), counted as dead: its live lock was deleted.

What happens here: age removes nothing.  A waiter waits its time out and is then told who
overstays and since when (`LockStaleError`); the claim stays as it is and its owner goes on.
Only what is proven dead is replaced.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.backends.files import identity
from holdfast.backends.files.lock import refusal, standing, witness
from holdfast.errors import CoordinationError, LockStaleError, LockTimeoutError
from support.incident import entries, nobody_is_blocked, said, texts
from support.locks import stand

ME = identity.me()

#: An embedder's own program, as the founding format has it; it promises a millisecond.
OWNER = """
import json, os, sys
start = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])
about = {"pid": os.getpid(), "createdAt": "2020-01-01T00:00:00Z", "maxHoldMs": 1,
         "starttime": start}
fd = os.open(sys.argv[1] + ".lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
os.write(fd, (json.dumps(about, indent=2) + "\\n").encode())
print("held", flush=True)
sys.stdin.readline()
with open(sys.argv[1], "ab") as file:
    file.write(b'{"type":"custom","id":"slow"}\\n')
os.unlink(sys.argv[1] + ".lock")
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    where = tmp_path / "talk.jsonl"
    where.write_bytes(b'{"type":"session","version":3,"id":"s"}\n')
    return where


@pytest.fixture
def owner(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program that lives, and holds the lock of *path* much longer than promised."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()


@pytest.mark.parametrize("fail_fast", [False, True], ids=["at its deadline", "fail_fast"])
def test_it_is_reported_and_its_lock_stays(
    path: Path, owner: subprocess.Popen[str], fail_fast: bool
) -> None:
    before = (path.parent / "talk.jsonl.lock").read_bytes()
    timeout_s = 600 if fail_fast else 0.05
    lock = holdfast.WriteLock(path, timeout_s=timeout_s, stale_ms=1, fail_fast=fail_fast)
    for _ in range(2):  # Told every time, and never grown impatient.
        with pytest.raises(LockStaleError) as caught:
            lock.acquire_sync()
        assert isinstance(caught.value, CoordinationError)
        assert f"pid {owner.pid} " in caught.value.holder
        assert caught.value.promised_ms == 1
        assert {"hold_exceeded", "too_old"} <= set(caught.value.reasons)
        assert (path.parent / "talk.jsonl.lock").read_bytes() == before
    assert owner.stdin is not None
    owner.stdin.write("go\n")
    owner.stdin.flush()
    assert owner.wait(30) == 0
    with holdfast.WriteLock(path, timeout_s=5):
        pass
    assert [each["id"] for each in entries(path)] == ["slow"]


async def test_a_run_of_our_own_process_keeps_its_lock_too(path: Path) -> None:
    async with holdfast.Attempt(path, lane="cron", run_id="r7") as slow:
        claim = Path(f"{path}.lock").read_bytes()
        impatient = holdfast.WriteLock(path, timeout_s=0.05, stale_ms=1)
        with pytest.raises(LockStaleError, match="r7") as caught:
            await asyncio.create_task(impatient.acquire())
        assert "too_old" in caught.value.reasons
        assert Path(f"{path}.lock").read_bytes() == claim
        await slow.append(said("slow, and whole"))
    assert texts(path) == ["slow, and whole"]
    await nobody_is_blocked(path)


async def test_a_reply_that_meets_it_after_the_stream_is_not_lost(path: Path) -> None:
    """The founding attempt was poisoned for good by this, and fell to the next model."""
    async with holdfast.Attempt(path, timeout_s=0.05) as attempt:
        with pytest.raises(LockStaleError):
            async with attempt.prompt_window():
                stand(
                    str(path), pid=ME.pid, starttime=ME.start,
                    createdAt="2020-01-01T00:00:00Z", maxHoldMs=1,
                )  # fmt: skip
        assert attempt.state == "adrift"
        os.unlink(f"{path}.lock")
        await attempt.append(said("the reply"))
    assert texts(path) == ["the reply"]
    await nobody_is_blocked(path)


@pytest.mark.parametrize("now", ["vanished", "replaced", "being written"])
def test_a_claim_that_changed_while_it_was_judged_is_not_reported(
    path: Path, now: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The follow-up: each of them was thrown at the caller instead of being looked at anew."""
    real, looked = standing.judged, list[Any]()

    def judged(*args: Any, **more: Any) -> Any:
        found = real(*args, **more)
        looked.append(found)
        if len(looked) == 1:
            os.unlink(f"{path}.lock")
            if now == "replaced":
                stand(str(path), pid=ME.pid, starttime=ME.start, maxHoldMs=600_000)
            elif now == "being written":
                Path(f"{path}.lock").touch()
        return found

    stand(str(path), pid=ME.pid, starttime=ME.start, createdAt="2020-01-01T00:00:00Z")
    monkeypatch.setattr(refusal, "judged", judged)
    timeout_s = 10 if now == "vanished" else 0.2
    lock = holdfast.WriteLock(path, timeout_s=timeout_s, fail_fast=True)
    if now == "vanished":
        lock.acquire_sync().release()
    else:
        with pytest.raises(LockTimeoutError):  # Waited for, not reported.
            lock.acquire_sync()
        os.unlink(f"{path}.lock")
    assert looked[0].verdict == "report"


def test_what_names_nobody_is_waited_for_until_its_grace_is_over(path: Path) -> None:
    claim = Path(f"{path}.lock")
    claim.touch()
    with pytest.raises(LockTimeoutError):
        holdfast.WriteLock(path, timeout_s=0.02).acquire_sync()
    os.utime(claim, (time.time() - 6,) * 2)
    with pytest.raises(LockStaleError):
        holdfast.WriteLock(path, timeout_s=0.02).acquire_sync()
    assert claim.exists(), "removed by age"


@pytest.mark.skipif(
    not witness.sees_everybody(),
    reason="not in the initial pid namespace, or /proc hides processes: no death is proven",
)
async def test_a_dead_owners_lock_is_replaced_and_so_is_a_recycled_pids(
    path: Path, owner: subprocess.Popen[str]
) -> None:
    owner.send_signal(signal.SIGKILL)
    assert await asyncio.to_thread(owner.wait, 30) == -signal.SIGKILL
    assert json.loads(Path(f"{path}.lock").read_bytes())["pid"] == owner.pid
    await nobody_is_blocked(path)
    stand(str(path), pid=ME.pid, starttime=1, createdAt="2020-01-01T00:00:00Z")
    await nobody_is_blocked(path)
