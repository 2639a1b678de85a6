"""
Our own write was called a takeover (issues #86572, #89259, #85205; the drain of PR #86067).

What happened there: three ways to trip over oneself.  Events of the session were appended by
a listener after the fence was left, or while the stream was still open.  The process's own
mirror appended while the lock was away.  And trust was kept for ever in a global map: after
any append that was not published to it, a later attempt's *own* write was "changed while the
embedded prompt lock was released".

What happens here: each window has a ledger of what it wrote, dropped with the window.
Nothing outlives an attempt, and what is posted is written before a mark is left.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.backends.files.transcript.held import HeldFile
from holdfast.errors import UnavailableError
from support.incident import appends, entries, nobody_is_blocked, said, texts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk.jsonl"


async def test_events_of_the_session_that_arrive_around_and_in_a_stream(path: Path) -> None:
    """#86572: a listener that may not wait posts; one before, one per token, one at the end."""
    async with holdfast.Attempt(path) as attempt:
        await attempt.append(said("q", "user"))

        async def tokens() -> AsyncIterator[str]:
            last = entries(path)[-1].get("customType")
            assert last == "begin", "the mark was left before what was posted was written"
            for token in ("a", "b"):
                attempt.post({"type": "custom", "customType": f"token {token}"})
                yield token
            attempt.post({"type": "custom", "customType": "end"})

        for _ in range(2):
            attempt.post({"type": "custom", "customType": "begin"})
            async with aclosing(attempt.stream(tokens())) as stream:
                assert [token async for token in stream] == ["a", "b"]
            await attempt.append(said("reply"))
        assert attempt.statistics().foreign == 0, "took itself for a stranger"
    kinds = [each.get("customType", "message") for each in entries(path)]
    assert kinds == ["message", *["begin", "token a", "token b", "end", "message"] * 2]
    await nobody_is_blocked(path)


async def test_what_an_attempt_writes_in_its_window_from_several_tasks(path: Path) -> None:
    async with holdfast.Attempt(path) as attempt:
        await attempt.append(said("q", "user"))
        async with attempt.prompt_window() as window:
            async with asyncio.TaskGroup() as group:
                for n in range(4):
                    group.create_task(attempt.append(said(f"tool {n}")))
        assert window.entries == ()
        await attempt.append(said("reply"))
    assert sorted(texts(path)[1:5]) == [f"tool {n}" for n in range(4)]
    assert texts(path)[5:] == ["reply"]


async def test_a_write_whose_new_mark_could_not_be_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails between the write and the fence: the ledger knows what was ours."""

    def fails(self: HeldFile) -> Any:
        raise UnavailableError(path=self.path, detail="Input/output error")

    async with holdfast.Attempt(path) as attempt:
        await attempt.append(said("q", "user"))
        async with attempt.prompt_window() as window:
            with monkeypatch.context() as patch:
                patch.setattr(HeldFile, "mark", fails)
                await attempt.append(said("a tool's result"))
            stranger = appends(path)
        assert [each["id"] for each in window.entries] == [stranger["id"]]
        await attempt.append(said("reply"))
    assert texts(path) == ["q", "a tool's result", "reply"]


async def test_a_mirror_in_our_own_process_writes_while_the_model_talks(path: Path) -> None:
    """Another part of the same program, with the lock and without a word to the attempt."""
    async with holdfast.Attempt(path) as attempt:
        [asked] = await attempt.append(said("q", "user"))
        async with attempt.prompt_window() as window:
            await attempt.append(said("ours"))
            mirror = {"type": "message", "id": "mirror", "parentId": asked["id"]}
            async with holdfast.WriteLock(path, timeout_s=5) as hold:
                line = json.dumps({**mirror, "message": said("mirrored")}).encode()
                hold.append(line + b"\n", sync=False)
            await attempt.append(said("ours again"))
        assert [each["id"] for each in window.entries] == ["mirror"]
        await attempt.append(said("reply"))
    assert texts(path) == ["q", "ours", "mirrored", "ours again", "reply"]


async def test_nothing_of_an_earlier_attempt_makes_the_next_one_trip(path: Path) -> None:
    """#89259: A ends; somebody appends and tells nobody; B trips over what it writes itself."""
    for n in range(3):
        async with holdfast.Attempt(path) as attempt:
            async with attempt.prompt_window():
                await attempt.append(said(f"tool {n}"))
            await attempt.append(said(f"reply {n}"))
            assert attempt.statistics().foreign == 0
        appends(path)
    assert texts(path) == [f"{what} {n}" for n in range(3) for what in ("tool", "reply")]
