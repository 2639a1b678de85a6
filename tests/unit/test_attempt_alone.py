"""`holdfast.Attempt` on a path: what its caller may rely on."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.backends.files import fs
from holdfast.backends.files.lock import line
from holdfast.errors import (
    AbortedError,
    BadRequestError,
    DeadlockError,
    LockLostError,
    LockTimeoutError,
    LockWaitError,
    OwnerWaitError,
    TakeoverError,
    UnavailableError,
)

BOUND_S = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk.jsonl"


def said(text: str, role: str = "assistant") -> dict[str, Any]:
    return {"role": role, "content": text}


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(each) for each in path.read_bytes().splitlines()][1:]


def texts(path: Path) -> list[str]:
    return [e["message"]["content"] for e in entries(path) if e["type"] == "message"]


def strange(path: Path, **fields: Any) -> dict[str, Any]:
    """An entry of somebody who knows nothing of us."""
    entry = {"type": "custom", "customType": "other", "id": os.urandom(4).hex(), **fields}
    with path.open("ab") as file:
        file.write(json.dumps(entry).encode() + b"\n")
    return entry


async def nothing_is_held(path: Path) -> None:
    """The lock and the line of windows are free, at once."""
    async with holdfast.Attempt(path, timeout_s=1, queue_timeout_s=1) as probe:
        async with probe.prompt_window():
            pass
    assert not os.path.lexists(f"{path}.lock")
    assert line.lines() == {}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.001)


# --------------------------------------------------------------------------- the promise


async def test_the_lock_is_free_while_the_model_talks(path: Path) -> None:
    async with holdfast.Attempt(path) as attempt:
        with pytest.raises(LockTimeoutError):
            await asyncio.to_thread(holdfast.WriteLock(path, timeout_s=0).acquire_sync)
        async with attempt.prompt_window():
            async with holdfast.WriteLock(path, timeout_s=1):
                pass
        [reply] = await attempt.append(said("hello"))
    assert texts(path) == ["hello"]
    assert reply["parentId"] is None
    await nothing_is_held(path)


async def test_somebody_appends_between_two_tokens_of_one_stream(path: Path) -> None:
    async def tokens() -> AsyncIterator[str]:
        yield "a"
        async with holdfast.WriteLock(path, timeout_s=1) as hold:
            hold.append(json.dumps({"type": "label", "id": "l"}).encode() + b"\n", sync=False)
        yield "b"

    async with holdfast.Attempt(path) as attempt:
        async with aclosing(attempt.stream(tokens())) as stream:
            assert [token async for token in stream] == ["a", "b"]
        await attempt.append(said("ab"))
    assert [e["type"] for e in entries(path)] == ["label", "message"]


async def test_a_reply_goes_after_whatever_came_in_between(path: Path) -> None:
    async with holdfast.Attempt(path) as attempt:
        [asked] = await attempt.append(said("q", "user"))
        async with attempt.prompt_window() as window:
            other = strange(path, parentId=asked["id"])
            session = strange(path, type="session_info", name="n", parentId=other["id"])
        assert [e["id"] for e in window.entries] == [other["id"], session["id"]]
        # Built on the question, as any client would; moved onto the new head.
        [reply] = await attempt.append({"type": "message", "message": said("r"),
                                        "parentId": asked["id"]})  # fmt: skip
    assert reply["parentId"] == session["id"]
    assert attempt.statistics().foreign == 2


async def test_our_own_writes_in_a_window_are_nobodys_takeover(path: Path) -> None:
    async with holdfast.Attempt(path) as attempt:
        async with attempt.prompt_window() as window:
            await attempt.append(said("tool call"))
            strange(path)
            async with attempt.locked_write() as writer:
                assert len(writer.load().entries) == 2
                writer.append(said("tool result"), final=False)
        assert [e["type"] for e in window.entries] == ["custom"]
        await attempt.append(said("reply"))
    assert texts(path) == ["tool call", "tool result", "reply"]


async def test_what_is_posted_is_written_before_a_mark_and_after_a_stream(path: Path) -> None:
    async with holdfast.Attempt(path) as attempt:
        attempt.post(said("before"))
        async with attempt.prompt_window() as window:
            assert texts(path) == ["before"]
            attempt.post(said("during"))
            assert texts(path) == ["before"]
        assert texts(path) == ["before", "during"]
        assert window.entries == ()
        await attempt.append(said("reply"))
        with pytest.raises(AbortedError):
            async with attempt.prompt_window():
                attempt.post(said("last"))
                await attempt.dispose()
    assert texts(path) == ["before", "during", "reply", "last"]


# --------------------------------------------------------------------- lines of windows


async def test_windows_of_one_file_stand_in_line_first_in_first_out(path: Path) -> None:
    order: list[str] = []

    async def run(n: int) -> None:
        async with holdfast.Attempt(path) as attempt:
            await attempt.append(said(f"q{n}", "user"))
            async with attempt.prompt_window():
                order.append(f"open {n}")
                await asyncio.sleep(0)
                order.append(f"close {n}")
            await attempt.append(said(f"r{n}"))

    async with asyncio.TaskGroup() as group:
        for n in range(5):
            group.create_task(run(n))
    assert order == [f"{what} {n}" for n in range(5) for what in ("open", "close")]
    assert [t for t in texts(path) if t[0] == "r"] == [f"r{n}" for n in range(5)]
    await nothing_is_held(path)


async def test_who_stood_in_line_is_told_what_it_has_missed(path: Path) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with holdfast.Attempt(path) as attempt:
            async with attempt.prompt_window():
                inside.set()
                await go_on.wait()
            await attempt.append(said("the first reply"))

    task = asyncio.create_task(first())
    await inside.wait()
    async with holdfast.Attempt(path) as second:
        assert await second.history() == ()
        window = second.prompt_window()
        opening = asyncio.create_task(window.__aenter__())
        await until(lambda: second.state == "in_line")
        go_on.set()
        view = await opening
        assert [e["message"]["content"] for e in view.before] == ["the first reply"]
        await task
        await window.__aexit__(None, None, None)


async def test_other_files_do_not_wait(path: Path, tmp_path: Path) -> None:
    async with holdfast.Attempt(path) as one, holdfast.Attempt(tmp_path / "b.jsonl") as other:
        async with one.prompt_window(), other.prompt_window():
            pass


async def test_an_idle_wait_queues_nobody(path: Path) -> None:
    """#86067: the wait for a compaction is no prompt."""
    async with holdfast.Attempt(path, queue_timeout_s=0.01) as idle:
        async with idle.idle_wait():
            async with holdfast.Attempt(path, queue_timeout_s=1, timeout_s=1) as prompting:
                async with prompting.prompt_window():
                    await idle.append(said("written while both are open"))
            # Nor does it wait for anybody.
        async with idle.idle_wait():
            async with holdfast.Attempt(path, timeout_s=1) as prompting:
                async with prompting.prompt_window():
                    async with idle.locked_write():
                        pass


async def test_the_line_has_a_bound_and_says_so(path: Path) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        async with holdfast.Attempt(path) as attempt, attempt.prompt_window():
            inside.set()
            await go_on.wait()

    task = asyncio.create_task(slow())
    await inside.wait()
    async with holdfast.Attempt(path, queue_timeout_s=0.05) as attempt:
        with pytest.raises(OwnerWaitError) as caught:
            async with attempt.prompt_window():
                pytest.fail("a second window was opened")
        assert caught.value.timeout_s == 0.05
        assert attempt.state == "gone"
    go_on.set()
    await task
    await nothing_is_held(path)


async def test_two_windows_of_one_task_are_a_deadlock_told_at_once(path: Path) -> None:
    async with holdfast.Attempt(path) as outer, outer.prompt_window():
        async with holdfast.Attempt(path, timeout_s=1) as inner:
            with pytest.raises(DeadlockError, match="the prompt window of"):
                async with inner.prompt_window():
                    pass
            await inner.append(said("still its own"))
    await nothing_is_held(path)


async def leave_by_returning(attempt: holdfast.Attempt) -> None:
    async with attempt.prompt_window():
        pass


async def leave_by_an_error(attempt: holdfast.Attempt) -> None:
    with suppress(ZeroDivisionError):
        async with attempt.prompt_window():
            raise ZeroDivisionError


async def leave_by_cancellation(attempt: holdfast.Attempt) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(0.01), attempt.prompt_window():
            await asyncio.Event().wait()


async def leave_by_takeover(attempt: holdfast.Attempt) -> None:
    with suppress(TakeoverError):
        async with attempt.prompt_window():
            Path(attempt.path).write_bytes(b'{"type":"session","version":3,"id":"new"}\n')


async def leave_by_contention(attempt: holdfast.Attempt) -> None:
    holder = holdfast.WriteLock(attempt.path)
    with suppress(LockWaitError):
        async with attempt.prompt_window():
            hold = await asyncio.to_thread(holder.acquire_sync)
    hold.release()


async def leave_by_a_failing_disk(attempt: holdfast.Attempt) -> None:
    async with attempt.prompt_window():
        pass
    with failing("fstat", errno.EIO), pytest.raises(UnavailableError):
        async with attempt.prompt_window():
            pytest.fail("a window without a mark")


async def leave_by_dispose(attempt: holdfast.Attempt) -> None:
    with suppress(AbortedError):
        async with attempt.prompt_window():
            await attempt.dispose()


async def leave_by_abort(attempt: holdfast.Attempt) -> None:
    with suppress(AbortedError):
        async with attempt.prompt_window():
            assert await attempt.abort("stop") is True


WAYS = [
    leave_by_returning, leave_by_an_error, leave_by_cancellation, leave_by_takeover,
    leave_by_contention, leave_by_a_failing_disk, leave_by_dispose, leave_by_abort,
]  # fmt: skip


class failing:
    """The next call of one entry of the table fails."""

    def __init__(self, name: str, code: int) -> None:
        self._name, self._code = name, code

    def __enter__(self) -> None:
        self._real = getattr(fs.table, self._name)

        def fail(*args: Any, **kwargs: Any) -> Any:
            setattr(fs.table, self._name, self._real)
            raise OSError(self._code, os.strerror(self._code))

        setattr(fs.table, self._name, fail)

    def __exit__(self, *_: object) -> None:
        setattr(fs.table, self._name, self._real)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_every_exit_vacates(path: Path, way: Callable[..., Any]) -> None:
    async with holdfast.Attempt(path, timeout_s=0.2, settle_s=0.1) as attempt:
        await attempt.append(said("q", "user"))
        await way(attempt)
    await nothing_is_held(path)


# ------------------------------------------------------------------------------- writing


async def test_nested_and_concurrent_writers_share_the_lock(path: Path) -> None:
    async with holdfast.Attempt(path) as attempt:
        async with attempt.locked_write() as outer:
            async with attempt.locked_write() as inner:
                inner.append(said("inner"))
            outer.append(said("outer"))
        together = asyncio.Barrier(3)

        async def write(n: int) -> None:
            async with attempt.locked_write() as writer:
                await together.wait()
                writer.append(said(f"n{n}"))

        await asyncio.gather(*(write(n) for n in range(3)))
    assert texts(path)[:2] == ["inner", "outer"]
    assert sorted(texts(path)[2:]) == ["n0", "n1", "n2"]
    assert attempt.statistics().lent == 4


async def test_a_window_opens_only_when_nobody_writes(path: Path) -> None:
    writing, go_on = asyncio.Event(), asyncio.Event()
    async with holdfast.Attempt(path) as attempt:

        async def write() -> None:
            async with attempt.locked_write() as writer:
                writing.set()
                await go_on.wait()
                writer.append(said("whole"))

        task = asyncio.create_task(write())
        await writing.wait()
        window = attempt.prompt_window()
        opening = asyncio.create_task(window.__aenter__())
        for _ in range(50):  # Far more turns of the loop than opening takes.
            await asyncio.sleep(0)
        assert attempt.state == "held"
        go_on.set()
        await opening
        await task
        assert texts(path) == ["whole"]
        await window.__aexit__(None, None, None)


async def test_a_window_inside_ones_own_write_is_a_deadlock_told_at_once(path: Path) -> None:
    async with holdfast.Attempt(path) as attempt, attempt.locked_write():
        with pytest.raises(DeadlockError, match="write lock"):
            async with attempt.prompt_window():
                pass


async def test_writing_goes_on_while_we_stand_in_line(path: Path) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with holdfast.Attempt(path) as attempt, attempt.prompt_window():
            inside.set()
            await go_on.wait()

    task = asyncio.create_task(first())
    await inside.wait()
    async with holdfast.Attempt(path) as attempt:
        window = attempt.prompt_window()
        opening = asyncio.create_task(window.__aenter__())
        await until(lambda: attempt.state == "in_line")
        await attempt.append(said("noted meanwhile"))
        go_on.set()
        view = await opening
        assert view.before == (), "took its own entry for a stranger's"
        await window.__aexit__(None, None, None)
    await task


# ------------------------------------------------------------------- contention, takeover


async def test_contention_after_a_stream_is_not_final(path: Path) -> None:
    """The founding controller took a lock's timeout for a takeover, for good."""
    rival = holdfast.WriteLock(path)
    async with holdfast.Attempt(path, timeout_s=0.05) as attempt:
        with pytest.raises(LockWaitError):
            async with attempt.prompt_window():
                hold = await asyncio.to_thread(rival.acquire_sync)
        assert attempt.state == "adrift"
        with pytest.raises(LockWaitError):
            await attempt.append(said("reply"))
        hold.release()
        await attempt.append(said("reply"))
        async with attempt.prompt_window():
            pass
        await attempt.append(said("and on"))
    assert texts(path) == ["reply", "and on"]
    assert attempt.statistics().late == 1


@pytest.mark.parametrize("still_a_transcript", [True, False])
async def test_a_rewritten_transcript_ends_the_attempt_but_not_the_reply(
    path: Path, still_a_transcript: bool
) -> None:
    async with holdfast.Attempt(path) as attempt:
        await attempt.append(said("q", "user"))
        with pytest.raises(TakeoverError) as caught:
            async with attempt.prompt_window():
                header = b'{"type":"session","version":3,"id":"s"}\n'
                path.write_bytes(header if still_a_transcript else b"gone\n")
        assert caught.value.path == str(path)
        for again in range(2):  # For good.
            with pytest.raises(TakeoverError):
                await attempt.append(said(f"over it {again}"))
        kept = await attempt.salvage(said("finished"))
    if still_a_transcript:
        [entry] = entries(path)
        assert kept == [entry]
        assert (entry["appendMode"], entry["holdfast"]) == ("side", {"salvaged": True})
    else:
        assert isinstance(kept, str)
        assert json.loads(Path(kept).read_bytes())["message"] == said("finished")


async def test_the_first_cause_is_the_one_raised(path: Path) -> None:
    async with holdfast.Attempt(path) as attempt:
        await attempt.append(said("q", "user"))
        with pytest.raises(ConnectionError, match="the provider"):
            async with attempt.prompt_window():
                path.write_bytes(b"rewritten\n")
                raise ConnectionError("the provider failed")


async def test_after_a_providers_error_the_attempt_goes_on(path: Path) -> None:
    async with holdfast.Attempt(path) as attempt:
        with pytest.raises(ConnectionError):
            async with attempt.prompt_window():
                raise ConnectionError
        await attempt.append({"type": "custom", "customType": "prompt-error"})
        async with attempt.prompt_window():
            pass
        await attempt.append(said("second model's reply"))
    assert len(entries(path)) == 2


async def test_a_removed_claim_is_noticed_and_nothing_is_written(path: Path) -> None:
    async with holdfast.Attempt(path) as attempt:
        (path.parent / f"{path.name}.lock").unlink()
        with pytest.raises(LockLostError):
            await attempt.append(said("over a stranger's"))
        with pytest.raises(LockLostError):
            attempt.check()
    assert entries(path) == []


# ----------------------------------------------------------------------- abort, dispose


async def test_an_abort_is_bounded_even_if_a_writer_hangs(path: Path) -> None:
    """The founding abort waited for a writer that never settled."""
    async with holdfast.Attempt(path, settle_s=0.05) as attempt:
        writing, told = asyncio.Event(), []

        async def hang() -> None:
            async with attempt.locked_write() as writer:
                writing.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    try:
                        writer.append(said("a zombie's"))
                    except (AbortedError, LockLostError) as error:
                        told.append(error)

        task = asyncio.create_task(hang())
        await writing.wait()
        assert await attempt.abort("timed out") is True
        await nothing_is_held(path)
        task.cancel()
        await asyncio.wait({task})
        assert told
    assert entries(path) == []


async def test_who_had_begun_to_write_may_finish_within_the_bound(path: Path) -> None:
    async with holdfast.Attempt(path, settle_s=BOUND_S) as attempt:
        writing, go_on = asyncio.Event(), asyncio.Event()

        async def write() -> None:
            async with attempt.locked_write() as writer:
                writing.set()
                await go_on.wait()
                writer.append(said("begun before the abort"))

        task = asyncio.create_task(write())
        await writing.wait()
        aborting = asyncio.create_task(attempt.abort("enough"))
        await asyncio.sleep(0)
        with pytest.raises(AbortedError):
            await attempt.append(said("begun after it"))
        assert not aborting.done()
        go_on.set()
        assert await aborting is True
        await task
    assert texts(path) == ["begun before the abort"]


async def test_an_aborted_attempt_shows_starts_and_writes_nothing_more(path: Path) -> None:
    async def tokens() -> AsyncIterator[int]:
        for n in range(10):
            yield n

    shown = []
    async with holdfast.Attempt(path) as attempt:
        with pytest.raises(AbortedError, match="superseded"):
            async with aclosing(attempt.stream(tokens())) as stream:
                async for token in stream:
                    shown.append(token)
                    if token == 2:
                        await attempt.abort("superseded")
        for act in (attempt.check, lambda: attempt.post(said("x"))):
            with pytest.raises(AbortedError):
                act()
        with pytest.raises(AbortedError):
            await attempt.append(said("x"))
    assert shown == [0, 1, 2]
    assert entries(path) == []


async def test_hooks_and_tools_run_with_the_lock_free_and_not_at_all_when_it_is_over(
    path: Path,
) -> None:
    ran = []

    async def hook() -> int:
        async with holdfast.WriteLock(path, timeout_s=1):
            ran.append("with the lock free")
        return 7

    async with holdfast.Attempt(path) as attempt:
        assert await attempt.act(hook) == 7
        assert attempt.holding
        async with attempt.prompt_window():
            assert await attempt.act(hook) == 7
        await attempt.append(said("reply"))
        await attempt.abort("superseded")
        with pytest.raises(AbortedError):
            await attempt.act(hook)
    assert len(ran) == 2


async def test_dispose_cuts_a_wait_short(path: Path) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with holdfast.Attempt(path) as attempt, attempt.prompt_window():
            inside.set()
            await go_on.wait()

    task = asyncio.create_task(first())
    await inside.wait()
    async with holdfast.Attempt(path) as attempt:
        window = attempt.prompt_window()
        opening = asyncio.create_task(window.__aenter__())
        await until(lambda: attempt.state == "in_line")
        await asyncio.gather(attempt.dispose(), attempt.dispose(), attempt.abort())
        with pytest.raises(AbortedError):
            await opening
    go_on.set()
    await task
    await nothing_is_held(path)


async def test_a_cleanup_takes_what_it_needs_or_nothing(path: Path) -> None:
    rival = holdfast.WriteLock(path)
    async with holdfast.Attempt(path, settle_s=0.02) as attempt:
        async with attempt.cleanup() as writer:
            assert writer is not None
            writer.append({"type": "custom", "customType": "cache"})
        with suppress(LockWaitError):
            async with attempt.prompt_window():
                hold = await asyncio.to_thread(rival.acquire_sync)
                async with attempt.cleanup() as writer:
                    assert writer is None
                hold.release()
        await attempt.abort()
        async with attempt.cleanup() as writer:
            assert writer is None
    assert len(entries(path)) == 1


async def test_a_second_window_while_one_is_open_is_refused(path: Path) -> None:
    async with holdfast.Attempt(path) as attempt, attempt.prompt_window():
        with pytest.raises(BadRequestError, match="window"):
            async with attempt.prompt_window():
                pass
