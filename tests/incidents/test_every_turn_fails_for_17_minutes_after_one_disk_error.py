"""
Every turn failed for 17 minutes after one error of the disk (PR #89811).

What happened there: giving the lock back for a prompt forgot the lock first and then read the
file's fingerprint.  One EIO, or EMFILE under load, at that read, and the lock stayed behind
with a live owner: nobody may reclaim that, so every turn ended with
SessionWriteLockTimeoutError until the watchdog came after 17 minutes.  A Discord channel was
dead from 00:08 to 00:27.

What happens here: whatever fails on the way into a window, the lock is given back at once,
the place in line too, and the error is told as what it is.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.backends.files.transcript.held import HeldFile
from holdfast.errors import UnavailableError
from holdfast.testing import ScriptedModel
from support import oracle
from support.faulty import FaultyTable, installed
from support.incident import (
    APPEND,
    KEY,
    entries,
    in_another_process,
    nobody_is_blocked,
    said,
    texts,
)

READS = {"fstat", "pread", "stat", "lstat", "statx"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk.jsonl"


async def open_a_window(path: Path, table: FaultyTable) -> BaseException | None:
    """A question, then a window over *table*.  Returns what it failed with."""
    async with holdfast.Attempt(path, timeout_s=2) as attempt:
        await attempt.append(said("q", "user"))
        window = attempt.prompt_window()
        try:
            with installed(table):
                await window.__aenter__()
        except UnavailableError as error:
            return error
        await window.__aexit__(None, None, None)
    return None


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE], ids=["EIO", "EMFILE"])
async def test_the_next_turn_is_not_kept_waiting(path: Path, code: int) -> None:
    """Each reading on the way into the window, failing once."""
    whole = FaultyTable()
    assert await open_a_window(path, whole) is None
    reads = [
        (name, whole.calls[: n + 1].count(name))
        for n, name in enumerate(whole.calls)
        if name in READS
    ]
    told = 0
    for at in reads:
        table = FaultyTable(at=at, code=code)
        failure = await open_a_window(path, table)
        assert table.fell, at
        told += failure is not None
        await nobody_is_blocked(path)
    assert told, "no reading of the fence has failed at all"
    assert len(entries(path)) == len(reads) + 1


async def test_nor_is_another_process(path: Path) -> None:
    """Ours lives on, as that gateway did: nothing but the release can free the lock."""
    failure = await open_a_window(path, FaultyTable(at=("fstat", 1), code=errno.EIO))
    assert isinstance(failure, UnavailableError)
    assert "Input/output error" in str(failure), "the error of the disk is not what is told"
    await in_another_process(APPEND, path, '{"type":"custom","id":"next"}')
    assert entries(path)[-1]["id"] == "next"


async def test_a_message_that_met_the_error_is_answered_and_so_is_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = HeldFile.mark
    failed: list[str] = []

    def mark(self: HeldFile) -> Any:
        if not failed:
            failed.append(self.path)
            raise UnavailableError(path=self.path, detail="Input/output error")
        return real(self)

    monkeypatch.setattr(HeldFile, "mark", mark)
    async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
        first = await hf.submit(KEY, "first")
        next_one = await hf.submit(KEY, "next")
        assert [(await r.outcome(20)).kind for r in (first, next_one)] == ["replied"] * 2
    assert failed
    path = oracle.only_transcript(tmp_path)
    assert texts(path) == ["first", "reply to: first", "next", "reply to: next"]
