"""
A lone attempt torn off anywhere: cancelled at each step of the loop, each call of its file
failing or hanging, disposed of by somebody else meanwhile.  Nothing is ever left held.

The file is made up; what is explored is the controller, all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from holdfast._core.fence import Ledger
from holdfast._core.tree import Tree
from holdfast._runtime.controller import Attempt
from holdfast.errors import CoordinationError, HoldfastError, LockTimeoutError, UnavailableError
from holdfast.types import Appended, Change, Entry, Mark

STEPS_MAX = 400
CALLS = ("acquire", "advance", "mark", "append", "leaf", "join", "wait")


class MadeUpFile:
    """A transcript in memory; its lock, and its line of windows."""

    path = "made-up.jsonl"

    def __init__(self, *, busy: bool = False) -> None:
        self.busy = busy  #: Somebody else's window is before ours.
        self.locked = self.in_line = False
        self.locked_max = 0
        self.written: list[Entry] = []
        self.calls: list[str] = []
        self.fail_at: int | None = None
        self.failure: HoldfastError | None = None  #: None: the call hangs.

    def called(self, name: str) -> bool:
        """Whether this call is the one to fail.  Raises the failure, if there is one."""
        self.calls.append(name)
        failing = len(self.calls) - 1 == self.fail_at
        if failing and self.failure is not None:
            raise self.failure
        return failing

    async def slowly(self, name: str) -> None:
        await asyncio.sleep(0)
        if self.called(name):
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    async def acquire(self, timeout_s: float) -> MadeUpHold:
        del timeout_s
        await self.slowly("acquire")
        while self.locked:
            await asyncio.sleep(0)
        self.locked = True
        return MadeUpHold(self)

    def join(self) -> bool:
        assert not self.in_line, "in line twice"
        self.called("join")
        self.in_line = True
        return not self.busy

    async def wait(self, timeout_s: float) -> None:
        del timeout_s
        assert not self.locked, "stands in line with the lock held"
        await self.slowly("wait")

    def vacate(self) -> None:
        assert not self.locked, "vacated before the lock was given back"
        self.in_line = False

    def set_aside(self, entries: Sequence[Any]) -> str:
        raise AssertionError(f"nobody salvages here: {entries}")


class MadeUpHold:
    def __init__(self, file: MadeUpFile) -> None:
        self._file, self._held = file, True
        self.path = file.path

    def load(self) -> Tree:
        return Tree()

    def size(self) -> int:
        return len(self._file.written)

    def leaf(self) -> str | None:
        self._file.called("leaf")
        return self._file.written[-1]["id"] if self._file.written else None

    def mark(self) -> Mark:
        self._file.called("mark")
        return Mark(0, 0, len(self._file.written), None)

    async def advance(self, mark: Mark, own: Ledger | None = None) -> Change:
        assert self._held
        await self._file.slowly("advance")
        strange = [
            e for e in self._file.written[mark.size :] if own is None or e["id"] not in own.ids
        ]
        assert not strange, "its own write is a stranger's to it"
        return Change("same", (), None)

    def append(self, entries: Sequence[Any], *, final: bool) -> Appended:
        del final
        assert self._held, "wrote without the lock"
        self._file.called("append")
        self._file.written += entries
        return Appended(b"", 0, 0, synced=False)

    def release(self) -> None:
        if self._held:
            self._held = self._file.locked = False

    def abort(self, reason: str) -> bool:
        del reason
        self.release()
        return True


def attempt_on(file: MadeUpFile) -> Attempt:
    return Attempt(file, timeout_s=60, queue_timeout_s=60, settle_s=0.005)


async def whole_life(attempt: Attempt) -> None:
    """Everything an attempt can do, once."""
    async with attempt:
        await attempt.append({"role": "user", "content": "q"})
        attempt.post({"type": "custom"})
        async with attempt.prompt_window():
            await asyncio.sleep(0)
            await attempt.append({"role": "assistant", "content": "tool"})
            attempt.post({"type": "custom"})
            await asyncio.sleep(0)
        await attempt.append({"role": "assistant", "content": "a"})
        async with attempt.idle_wait():
            async with attempt.locked_write() as writer:
                writer.append({"type": "compaction"})
            await asyncio.sleep(0)
        async with attempt.prompt_window():
            await asyncio.sleep(0)
        await attempt.append({"role": "assistant", "content": "b"})


async def settled(task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(20):
        await asyncio.wait({task})


def free(file: MadeUpFile) -> bool:
    return not file.locked and not file.in_line


@pytest.mark.parametrize("busy", [False, True])
async def test_nothing_goes_wrong_when_nothing_fails(busy: bool) -> None:
    file = MadeUpFile(busy=busy)
    await whole_life(attempt_on(file))
    assert free(file)
    assert len(file.written) == 7
    assert set(file.calls) == set(CALLS) - (set() if busy else {"wait"})


@pytest.mark.parametrize("busy", [False, True])
async def test_cancelled_at_any_step_it_holds_nothing(busy: bool) -> None:
    """And no cancellation is swallowed."""
    steps = 0
    while steps < STEPS_MAX:
        file = MadeUpFile(busy=busy)
        task = asyncio.create_task(whole_life(attempt_on(file)))
        for _ in range(steps):
            await asyncio.sleep(0)
        if task.done():
            break
        task.cancel()
        await settled(task)
        assert task.cancelled(), f"swallowed at step {steps}"
        assert free(file), f"left something held at step {steps}"
        steps += 1
    assert 20 < steps < STEPS_MAX


@pytest.mark.parametrize("busy", [False, True])
async def test_disposed_of_by_somebody_else_at_any_step(busy: bool) -> None:
    steps = 0
    while steps < STEPS_MAX:
        file = MadeUpFile(busy=busy)
        attempt = attempt_on(file)
        task = asyncio.create_task(whole_life(attempt))
        for _ in range(steps):
            await asyncio.sleep(0)
        if task.done():
            break
        if attempt.state != "new":
            await attempt.abort("somebody else's wish")
            assert free(file), f"left something held at step {steps}: {attempt.state}"
            await settled(task)
            error = task.exception()
            assert error is None or isinstance(error, CoordinationError), repr(error)
        else:
            await settled(task)
        assert free(file)
        steps += 1
    assert 20 < steps < STEPS_MAX


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("how", ["late", "broken"])
async def test_whichever_call_fails_it_is_told_and_nothing_is_held(
    busy: bool, how: str
) -> None:
    at = 0
    while True:
        file = MadeUpFile(busy=busy)
        file.fail_at = at
        file.failure = (
            LockTimeoutError(path="p", timeout_s=1, holder="x")
            if how == "late"
            else UnavailableError(path="p", detail="EIO")
        )
        task = asyncio.create_task(whole_life(attempt_on(file)))
        await settled(task)
        if len(file.calls) <= at:
            break
        error = task.exception()
        if error is None:
            # What was written stands, and is known by the ledger: nobody need be told.
            assert file.calls[at - 1 : at + 1] == ["append", "mark"]
            assert len(file.written) == 7
        else:
            assert error is file.failure, f"{file.calls[at]}: {error!r}"
        assert free(file), f"left something held: {file.calls[at]}, call {at}"
        at += 1
    assert at > 20


@pytest.mark.parametrize("busy", [False, True])
async def test_whichever_call_hangs_it_can_be_aborted(busy: bool) -> None:
    at, hung = 0, set()
    while True:
        file = MadeUpFile(busy=busy)
        file.fail_at = at
        attempt = attempt_on(file)
        task = asyncio.create_task(whole_life(attempt))
        while not task.done() and len(file.calls) <= at:
            await asyncio.sleep(0)
        if task.done():
            break
        if file.calls[at] in {"acquire", "advance", "wait"} and attempt.state != "entering":
            hung.add(file.calls[at])
            await attempt.abort("hung")
            assert free(file)
        else:
            task.cancel()
        await settled(task)
        assert free(file)
        at += 1
    assert hung >= {"acquire", "advance"}
