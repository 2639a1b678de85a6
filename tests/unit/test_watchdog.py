"""A hold that outstays its promise: ended by our own watchdog, and never with two writers."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from holdfast import _points
from holdfast.backends.files.lock import line, own, tally, watchdog
from holdfast.backends.files.lock.write_lock import WriteLock, statistics
from holdfast.errors import LockLostError, LockStaleError, LockWaitError
from support.locks import in_thread, leaving_nothing, read, send_home, stand, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SHORT_MS = 30
WITHIN_S = 20.0


@pytest.fixture(autouse=True)
def only_its_own_dog(monkeypatch: Any) -> Iterator[None]:
    """Every dog looks after every hold: none of another test does here, and none stays."""
    send_home(watchdog.dog)
    made: list[watchdog.Watchdog] = []

    class Known(watchdog.Watchdog):
        def __init__(self, *, threaded: bool = True) -> None:
            super().__init__(threaded=threaded)
            made.append(self)

    monkeypatch.setattr(watchdog, "Watchdog", Known)
    yield
    send_home(watchdog.dog, *made)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    with leaving_nothing(tmp_path) as where:
        yield where
        until(lambda: not line.lines())  # The dog lets go in its own time.
    assert own.roll.claims == {}


@pytest.fixture
def stop_at() -> Iterator[Callable[[str], tuple[threading.Event, threading.Event]]]:
    """Stop whoever comes to a point: (it is there, let it go on)."""

    def stop(name: str) -> tuple[threading.Event, threading.Event]:
        reached, go_on = threading.Event(), threading.Event()

        def hook() -> None:
            reached.set()
            assert go_on.wait(WITHIN_S)

        _points.install(name, hook)
        return reached, go_on

    yield stop
    _points._hooks.clear()


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "holdfast-watchdog"]


# ------------------------------------------------------------------------- who overstays


def test_who_overstays_loses_the_lock_and_is_told_why(path: str, caplog: Any) -> None:
    before = statistics().watchdog_aborts
    hold = WriteLock(path, max_hold_ms=SHORT_MS, run_id="r7", lane="cron").acquire_sync()
    with caplog.at_level(logging.WARNING, "holdfast.write_lock"):
        with in_thread(WriteLock(path, timeout_s=WITHIN_S).acquire_sync) as other:
            assert hold.aborted is not None
            uses: list[Callable[[], object]] = [
                lambda: hold.append(b"late\n", sync=False),
                lambda: hold.using().__enter__(),
                lambda: hold.fd,
                hold.check,
                hold.size,
            ]
            for use in uses:
                with pytest.raises(LockLostError, match="watchdog") as caught:
                    use()
                assert "watchdog" in caught.value.hint
                assert f"max_hold_ms = {SHORT_MS}" in caught.value.hint
            hold.release()
            other.append(b"ours\n", sync=False)
        until(lambda: caplog.records)
    assert read(path) == b"ours\n"
    assert statistics().watchdog_aborts == before + 1
    (told,) = [record.getMessage() for record in caplog.records]
    assert path in told
    assert "run r7, lane cron" in told


def test_who_keeps_its_promise_is_left_alone(path: str) -> None:
    before = statistics().watchdog_aborts
    with WriteLock(path, max_hold_ms=60_000) as hold:
        assert watchdog.dog.look(time.monotonic() + 59) == hold.due_s
        hold.append(b"{}\n", sync=False)
        assert hold.aborted is None
    assert hold.aborted is None
    assert statistics().watchdog_aborts == before


def test_a_shorter_promise_is_kept_although_a_longer_one_is_watched(
    path: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(watchdog, "IDLE_S", 600.0)
    monkeypatch.setattr(watchdog, "dog", watchdog.Watchdog())
    with WriteLock(path, max_hold_ms=600_000):
        until(lambda: watchdog.dog.look_s > time.monotonic() + 500)
        hold = WriteLock(path + "2", max_hold_ms=SHORT_MS).acquire_sync()
        until(lambda: hold.aborted)
        hold.release()


def test_the_holder_may_ask_to_be_called(path: str, caplog: Any) -> None:
    told: list[str] = []
    hold = WriteLock(path, max_hold_ms=60_000).acquire_sync()
    hold.on_lost = told.append
    watchdog.dog.look(time.monotonic() + 61)
    assert told == [hold.aborted]
    hold.abort("again")
    assert len(told) == 1
    hold.release()

    def fails(_: str) -> None:
        raise ValueError("the holder's own")

    hold = WriteLock(path).acquire_sync()
    hold.on_lost = fails
    assert hold.abort("enough")
    assert "telling the holder failed" in caplog.text
    WriteLock(path, timeout_s=0).acquire_sync().release()
    hold.release()


async def test_a_lock_that_came_to_a_loop_that_stands_still_is_given_back(path: str) -> None:
    """The pump had it; the task that asked for it has not run since."""
    WriteLock(path).acquire_sync().release()
    stand(path, pid=1)
    task = asyncio.create_task(WriteLock(path, max_hold_ms=SHORT_MS).acquire())
    for _ in range(3):
        await asyncio.sleep(0)
    os.unlink(path + ".lock")
    # The loop stands still until another has the lock, which the pump has for the task.
    in_thread(WriteLock(path, timeout_s=WITHIN_S).acquire_sync).release()
    hold = await task
    with pytest.raises(LockLostError, match="watchdog"):
        hold.append(b"{}\n", sync=False)
    hold.release()
    assert read(path) == b""


# ------------------------------------------------------------------- never two writers


@pytest.mark.parametrize("point", ["append.checked", "append.written"])
def test_a_write_that_is_under_way_is_finished_first(
    path: str, point: str, stop_at: Any, caplog: Any
) -> None:
    hold = WriteLock(path, max_hold_ms=SHORT_MS).acquire_sync()
    reached, go_on = stop_at(point)
    writer = threading.Thread(target=hold.append, args=(b"{}\n",), kwargs={"sync": False})
    writer.start()
    assert reached.wait(WITHIN_S)
    until(lambda: hold.aborted)
    assert not hold.abort("once more"), "it is not given back yet"
    with pytest.raises(LockWaitError):
        WriteLock(path, timeout_s=0.05).acquire_sync()
    with pytest.raises(LockLostError):
        hold.append(b"more\n", sync=False)
    go_on.set()
    writer.join()
    _points._hooks.clear()
    assert hold.abort("once more")
    with WriteLock(path, timeout_s=0) as other:
        other.append(b"next\n", sync=False)
    hold.release()
    assert read(path) == b"{}\nnext\n"
    assert "a write is under way" in caplog.text


def test_a_write_of_several_calls_is_waited_for(path: str) -> None:
    hold = WriteLock(path).acquire_sync()
    with hold.using() as fd:
        assert not in_thread(lambda: hold.abort("enough"))
        os.write(fd, b"half")
        with pytest.raises(LockWaitError):
            WriteLock(path, timeout_s=0.05).acquire_sync()
        os.write(fd, b" and half\n")
    WriteLock(path, timeout_s=0).acquire_sync().release()
    hold.release()
    assert read(path) == b"half and half\n"


def test_aborts_at_any_moment_tear_and_lose_nothing(path: str) -> None:
    """Four threads append, a fifth ends whatever is held."""
    written: list[bytes] = []
    mutex, done = threading.Lock(), threading.Event()

    def write(number: int) -> None:
        lock = WriteLock(path)
        for n in range(150):
            data = b'{"by":%d,"n":%d}\n' % (number, n)
            with lock as hold:
                time.sleep(0)  # Let the others run.
                try:
                    hold.append(data, sync=False)
                except LockLostError:
                    continue
                with mutex:
                    written.append(data)

    def end() -> None:
        while not done.is_set():
            for hold in own.holds():
                hold.abort("chaos")
            time.sleep(0)

    ender = threading.Thread(target=end)
    ender.start()
    crowd = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    done.set()
    ender.join()
    found = read(path).splitlines(keepends=True)
    assert sorted(found) == sorted(written)
    assert len(written) < 600, "nothing was ever aborted: this test tests nothing"


# ------------------------------------------------------------------------------- abort


def test_an_attempt_that_ends_gives_its_lock_back_at_once(path: str) -> None:
    hold = WriteLock(path).acquire_sync()
    assert hold.abort("superseded")
    assert hold.abort("something else")
    assert hold.aborted == "superseded"
    with WriteLock(path, timeout_s=0) as other:
        with pytest.raises(LockLostError, match="superseded"):
            hold.append(b"{}\n", sync=False)
        hold.release()
        hold.release()
        other.check()
    later = WriteLock(path).acquire_sync()
    later.release()
    assert later.abort("too late")
    assert later.aborted is None


def test_ending_a_hold_never_touches_the_next_holders_claim(path: str) -> None:
    hold = WriteLock(path).acquire_sync()
    hold.abort("enough")
    with WriteLock(path, timeout_s=0) as other:
        claim = os.lstat(path + ".lock").st_ino, read(path + ".lock")
        hold.abort("more")
        hold.release()
        watchdog.dog.look(0.0)
        assert (os.lstat(path + ".lock").st_ino, read(path + ".lock")) == claim
        other.append(b"{}\n", sync=False)


def test_who_reads_while_the_lock_is_taken_away_reads_the_same_file(
    path: str, tmp_path: Path
) -> None:
    hold = WriteLock(path, header=lambda: b"the transcript\n").acquire_sync()
    fd = hold.fd
    hold.abort("enough")
    (tmp_path / "other").write_bytes(b"something else entirely")
    with open(tmp_path / "other", "rb"):
        assert os.pread(fd, 100, 0) == b"the transcript\n"
    hold.release()
    with pytest.raises(OSError, match="Bad file"):
        os.pread(fd, 1, 0)


def test_a_hold_that_was_ended_and_forgotten_leaves_no_descriptor(path: str) -> None:
    hold = WriteLock(path).acquire_sync()
    fd = hold.fd
    hold.abort("enough")
    del hold
    gc.collect()
    with pytest.raises(OSError, match="Bad file"):
        os.pread(fd, 1, 0)


# ------------------------------------------------------------------- counting and costs


def test_a_hold_of_a_second_is_counted_and_told_once(
    path: str, monkeypatch: Any, caplog: Any
) -> None:
    with WriteLock(path):
        pass
    assert not caplog.records
    monkeypatch.setattr(tally, "LONG_S", 0.0)
    before = statistics().long_holds
    with WriteLock(path, run_id="r1", lane="user"):
        pass
    assert statistics().long_holds == before + 1
    (told,) = [record.getMessage() for record in caplog.records]
    assert path in told
    assert "run r1, lane user" in told


def test_the_watchdog_has_a_thread_only_while_there_is_something_to_watch(
    path: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(watchdog, "IDLE_S", 0.01)
    monkeypatch.setattr(watchdog, "dog", watchdog.Watchdog())
    others = threads()  # Of earlier tests; they go in their own time.
    for _ in range(20):
        hold = WriteLock(path, max_hold_ms=SHORT_MS).acquire_sync()
        until(lambda: hold.aborted)  # noqa: B023
        hold.release()
        until(lambda: set(threads()) <= set(others))


def test_holds_that_follow_each_other_start_no_thread_each(path: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(watchdog, "dog", watchdog.Watchdog())
    with WriteLock(path):
        mine = watchdog.dog._thread
    assert mine is not None
    for _ in range(100):
        with WriteLock(path):
            assert watchdog.dog._thread is mine


def test_a_waiter_that_is_told_of_a_stale_lock_is_counted(path: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(watchdog, "dog", watchdog.Watchdog(threaded=False))
    before = statistics().stale_reports
    with WriteLock(path, max_hold_ms=1):
        for _ in range(2):
            with pytest.raises(LockStaleError):
                in_thread(WriteLock(path, timeout_s=0.1).acquire_sync)
        with pytest.raises(LockStaleError):
            in_thread(lambda: asyncio.run(WriteLock(path, timeout_s=0.1).acquire()))
    assert statistics().stale_reports == before + 3


def test_without_a_thread_the_lock_still_works(
    path: str, monkeypatch: Any, caplog: Any
) -> None:
    class Refuses:
        def __init__(self, **_: object) -> None:
            pass

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(watchdog, "dog", watchdog.Watchdog())
    monkeypatch.setattr(threading, "Thread", Refuses)
    for _ in range(3):
        with WriteLock(path) as hold:
            hold.append(b"{}\n", sync=False)
    assert caplog.text.count("nobody watches") == 1
