"""Who holds the write lock for too long is reported, to whom it may concern; never robbed."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.backends.files import identity
from holdfast.backends.files.lock import line, refusal
from holdfast.backends.files.lock.standing import judged
from holdfast.backends.files.lock.write_lock import WriteLock, statistics
from holdfast.errors import LockStaleError, LockTimeoutError, LockWaitError
from support.locks import in_thread, leaving_nothing, read, stand

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ME = identity.me()
NEVER_S = 600.0  #: Longer than a test may take: who waits for it fails the test.


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    with leaving_nothing(tmp_path) as where:
        WriteLock(where).acquire_sync().release()
        yield where


@pytest.fixture
def stranger(path: str) -> Iterator[str]:
    """A live stranger's claim that promised a millisecond, long ago."""
    stand(path, pid=ME.pid, starttime=ME.start, createdAt="2020-01-01T00:00:00Z", maxHoldMs=1)
    yield path
    os.unlink(path + ".lock")


def check(error: LockStaleError, path: str, *why: str) -> None:
    assert (error.path, error.row) == (path, "@H")
    assert set(why) <= set(error.reasons)
    assert f"pid {ME.pid} on" in error.holder
    assert error.age_ms is not None


def test_at_its_deadline_a_waiter_is_told_what_is_wrong(stranger: str) -> None:
    before = read(stranger + ".lock"), statistics().timeouts
    with pytest.raises(LockStaleError) as caught:
        WriteLock(stranger, timeout_s=0.01).acquire_sync()
    check(caught.value, stranger, "hold_exceeded", "too_old")
    assert (caught.value.promised_ms, caught.value.timeout_s) == (1, 0.01)
    assert (read(stranger + ".lock"), statistics().timeouts) == (before[0], before[1] + 1)


async def test_and_so_is_a_task(stranger: str) -> None:
    with pytest.raises(LockStaleError) as caught:
        await WriteLock(stranger, timeout_s=0.01).acquire()
    check(caught.value, stranger, "hold_exceeded")


def test_with_fail_fast_it_is_told_at_once(stranger: str) -> None:
    with pytest.raises(LockStaleError) as caught:
        WriteLock(stranger, timeout_s=NEVER_S, fail_fast=True).acquire_sync()
    check(caught.value, stranger, "hold_exceeded")


async def test_and_so_is_a_task_with_fail_fast(stranger: str) -> None:
    with pytest.raises(LockStaleError) as caught:
        await WriteLock(stranger, timeout_s=NEVER_S, fail_fast=True).acquire()
    check(caught.value, stranger, "hold_exceeded")


def test_the_age_at_which_a_holder_is_reported_is_the_waiters_choice(path: str) -> None:
    stand(path, pid=ME.pid, starttime=ME.start)
    os.utime(path + ".lock", (time.time() - 100,) * 2)
    with pytest.raises(LockTimeoutError):
        WriteLock(path, timeout_s=0).acquire_sync()
    with pytest.raises(LockStaleError) as caught:
        WriteLock(path, timeout_s=0, stale_ms=90_000).acquire_sync()
    assert caught.value.reasons == ["too_old"]
    assert caught.value.promised_ms is None
    os.unlink(path + ".lock")


# ------------------------------------------------------------------- a live holder of ours


@pytest.mark.parametrize("fail_fast", [False, True])
def test_a_holder_of_ours_that_overstays_is_reported_to_who_is_in_line(
    path: str, fail_fast: bool
) -> None:
    with WriteLock(path, run_id="r7") as hold:
        time.sleep(0.01)
        waiter = WriteLock(
            path, timeout_s=NEVER_S if fail_fast else 0.05, stale_ms=1, fail_fast=fail_fast
        )
        with pytest.raises(LockStaleError) as caught:
            in_thread(waiter.acquire_sync)
        check(caught.value, path, "too_old")
        assert "run r7" in caught.value.holder
        assert sum(line.lines().values()) == 1
        hold.append(b"{}\n", sync=False)
    assert read(path) == b"{}\n"


@pytest.mark.parametrize("fail_fast", [False, True])
async def test_and_to_a_task_that_is_in_line(path: str, fail_fast: bool) -> None:
    async with WriteLock(path) as hold:
        await asyncio.sleep(0.01)
        waiter = WriteLock(
            path, timeout_s=NEVER_S if fail_fast else 0.05, stale_ms=1, fail_fast=fail_fast
        )
        with pytest.raises(LockStaleError) as caught:
            await asyncio.create_task(waiter.acquire())
        check(caught.value, path, "too_old")
        hold.append(b"{}\n", sync=False)


def test_fail_fast_waits_for_a_holder_that_keeps_its_promise(path: str) -> None:
    hold, got = WriteLock(path).acquire_sync(), []

    def take() -> None:
        with WriteLock(path, timeout_s=60, fail_fast=True):
            got.append(1)

    thread = threading.Thread(target=take)
    thread.start()
    while sum(line.lines().values()) < 2:
        pass
    assert not got
    hold.release()
    thread.join()
    assert got == [1]


async def test_a_task_with_fail_fast_waits_for_it_too(path: str) -> None:
    hold = await WriteLock(path).acquire()
    task = asyncio.create_task(WriteLock(path, timeout_s=60, fail_fast=True).acquire())
    while sum(line.lines().values()) < 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    hold.release()
    (await task).release()


async def test_cancelled_in_line_with_fail_fast_it_leaves_nothing(path: str) -> None:
    async with WriteLock(path):
        task = asyncio.create_task(WriteLock(path, fail_fast=True).acquire())
        while sum(line.lines().values()) < 2:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert sum(line.lines().values()) == 1


# ------------------------------------------------------------- what changes while we look


def request(path: str) -> Any:
    return WriteLock(path, timeout_s=0, stale_ms=1000)._request(0.0)


@pytest.mark.parametrize("then", ["vanished", "replaced", "renewed"])
def test_a_claim_that_changes_while_it_is_judged_is_not_reported(
    path: str, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"pid": ME.pid, "starttime": ME.start, "createdAt": "2020-01-01T00:00:00Z"}
    stand(path, **old)
    looks = []

    def looking(*args: Any, **named: Any) -> Any:
        found = judged(*args, **named)
        looks.append(found)
        os.unlink(path + ".lock")
        if then == "replaced":  # By another that overstays as well: each time another one.
            stand(path, **old, number=len(looks))
        if then == "renewed" and len(looks) == 1:
            stand(path, pid=ME.pid, starttime=ME.start)
        if then != "replaced":
            monkeypatch.setattr(refusal, "judged", judged)
        return found

    monkeypatch.setattr(refusal, "judged", looking)
    assert refusal.stale_error(request(path), latched=True, busy=False) is None
    assert looks[0].verdict == "report"
    assert len(looks) == (refusal.LOOKS_MAX + 1 if then == "replaced" else 1)
    if then != "vanished":
        os.unlink(path + ".lock")


def test_at_the_deadline_a_claim_that_vanished_is_a_timeout(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looking(*args: Any, **named: Any) -> Any:
        found = judged(*args, **named)
        if os.path.exists(path + ".lock"):
            os.unlink(path + ".lock")
        return found

    stand(path, pid=ME.pid, starttime=ME.start, createdAt="2020-01-01T00:00:00Z")
    monkeypatch.setattr(refusal, "judged", looking)
    error = refusal.refused(request(path), latched=True, busy=False)
    assert isinstance(error, LockTimeoutError)
    assert error.holder == "unknown"


@pytest.mark.parametrize("fail_fast", [False, True])
def test_a_claim_that_is_being_written_is_waited_for(path: str, fail_fast: bool) -> None:
    """Created and not written yet: a stranger is between the two."""
    with open(path + ".lock", "xb"):
        pass
    got: list[Any] = []

    def take() -> None:
        with WriteLock(path, timeout_s=60, fail_fast=fail_fast):
            got.append(json.loads(read(path + ".lock"))["pid"])

    thread = threading.Thread(target=take)
    thread.start()
    while sum(line.lines().values()) < 1:
        pass
    with pytest.raises(LockTimeoutError, match="unreadable"):
        WriteLock(path, timeout_s=0.05).acquire_sync()
    stand(path, pid=ME.pid, starttime=ME.start)
    assert not got
    os.unlink(path + ".lock")
    thread.join()
    assert got == [ME.pid]


@pytest.mark.parametrize(
    ("timeout_s", "age_s", "error"),
    [
        (0.0, 4, LockTimeoutError),
        (0.0, 6, LockStaleError),
        (29.9, 6, LockStaleError),
        (30.0, 29, LockTimeoutError),
        (30.0, 31, LockStaleError),
    ],
)
def test_the_grace_is_shorter_for_who_cannot_wait_long(
    path: str, timeout_s: float, age_s: float, error: type[LockWaitError]
) -> None:
    stand(path)
    os.utime(path + ".lock", (time.time() - age_s,) * 2)
    asked = WriteLock(path, timeout_s=timeout_s)._request(0.0)
    found = refusal.refused(asked, latched=True, busy=False)
    assert type(found) is error
    os.unlink(path + ".lock")


def test_who_cannot_be_looked_at_is_a_timeout_all_the_same(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(*_: Any, **__: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(refusal, "judged", blind)
    error = refusal.refused(request(path), latched=True, busy=False)
    assert isinstance(error, LockTimeoutError)
    assert error.holder == "unknown"
