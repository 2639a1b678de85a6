"""
The lock was taken away and its holder wrote on (issues #44510, #113019; the self-help of all
those who were stuck: `rm *.jsonl.lock`).

What happened there: the watchdog unlinked an over-held lock, wrote a line to stderr and told
nobody; a six-minute tool call was enough.  The holder kept its handle and wrote beside the
next one.  Operators who removed lock files by hand did the same to it.

What happens here: who loses the lock can write no more and is told so; nobody of ours gets in
because a file was removed; and the reply that was being written is written after all.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import holdfast
from holdfast import _points
from holdfast.errors import LockLostError, LockTimeoutError
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Say
from support import oracle
from support.incident import APPEND, KEY, entries, in_another_process, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    where = tmp_path / "talk.jsonl"
    where.write_bytes(b'{"type":"session","version":3,"id":"s"}\n')
    return where


async def test_who_overstays_is_told_and_the_next_one_writes_alone(path: Path) -> None:
    hold = await holdfast.WriteLock(path, max_hold_ms=20, run_id="r7").acquire()
    await until(lambda: hold.aborted)
    await in_another_process(APPEND, path, '{"type":"custom","id":"next"}')
    with pytest.raises(LockLostError, match="max_hold_ms"):
        hold.append(b'{"type":"custom","id":"late"}\n', sync=False)
    hold.release()
    assert [each["id"] for each in entries(path)] == ["next"]


async def test_removing_the_lock_file_lets_nobody_of_ours_in(path: Path) -> None:
    hold = await holdfast.WriteLock(path).acquire()
    os.unlink(f"{path}.lock")
    with pytest.raises(LockTimeoutError):
        await asyncio.to_thread(holdfast.WriteLock(path, timeout_s=0.05).acquire_sync)
    with pytest.raises(LockLostError):
        hold.append(b'{"type":"custom","id":"late"}\n', sync=False)
    hold.release()
    assert entries(path) == []


async def test_a_reply_whose_lock_file_was_removed_is_written_after_all(tmp_path: Path) -> None:
    removed: list[str] = []

    def remove() -> None:  # Between the check of its token and its append, twice.
        for claim in tmp_path.glob("agents/*/sessions/*.lock"):
            if len(removed) < 2 and oracle.read(oracle.only_transcript(tmp_path)):
                claim.unlink()
                removed.append(claim.name)

    model = ScriptedModel([Say(("the ", "reply"))])
    _points.install("token.checked", remove)
    try:
        async with holdfast.open(tmp_path, agent=model) as hf:
            outcome = await (await hf.submit(KEY, "hello")).outcome(30)
    finally:
        _points.install("token.checked", lambda: None)
    assert len(removed) == 2
    assert (outcome.kind, outcome.text, outcome.attempts) == ("replied", "the reply", 1)
    assert len(model.prompts) == 1
