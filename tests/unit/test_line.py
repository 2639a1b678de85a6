"""The line in front of one file, whatever its names: one order, and no waiting for oneself."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.backends.files.lock import line
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.errors import DeadlockError
from support.locks import in_thread, leaving_nothing, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    with leaving_nothing(tmp_path) as where:
        yield where


@pytest.fixture
def names(path: str, tmp_path: Path, monkeypatch: Any) -> list[str]:
    """Of one file, the first of them its own."""
    WriteLock(path).acquire_sync().release()
    (tmp_path / "d").mkdir()
    os.link(path, tmp_path / "hard.jsonl")
    os.link(path, tmp_path / "d" / "harder.jsonl")
    os.symlink(path, tmp_path / "soft.jsonl")
    os.symlink(tmp_path / "d", tmp_path / "e")
    monkeypatch.chdir(tmp_path / "d")
    return [
        path,
        str(tmp_path / "hard.jsonl"),
        str(tmp_path / "d" / "harder.jsonl"),
        str(tmp_path / "soft.jsonl"),
        "../s.jsonl",
        str(tmp_path / "e" / ".." / "s.jsonl"),
        str(tmp_path / "e" / "harder.jsonl"),
        "harder.jsonl",
    ]


async def test_all_names_of_a_file_are_one_queue(names: list[str]) -> None:
    order: list[int] = []
    hold = await WriteLock(names[0]).acquire()

    async def by_task(number: int) -> None:
        async with WriteLock(names[number % len(names)]) as held:
            order.append(number)
            held.append(b"%d\n" % number, sync=False)

    def by_thread(number: int) -> None:
        with WriteLock(names[number % len(names)]) as held:
            order.append(number)
            held.append(b"%d\n" % number, sync=False)

    tasks = []
    for number in range(16):
        start = by_task(number) if number % 3 else asyncio.to_thread(by_thread, number)
        tasks.append(asyncio.create_task(start))
        while sum(line.lines().values()) < number + 2:
            await asyncio.sleep(0)
    assert line.lines() == {names[0]: 17}
    hold.release()
    await asyncio.gather(*tasks)
    assert order == list(range(16))
    assert read(names[0]).split() == [b"%d" % number for number in range(16)]


async def test_a_task_that_holds_a_file_does_not_wait_for_it_by_another_name(
    names: list[str],
) -> None:
    for mine in names:
        async with WriteLock(mine):
            for other in names:
                with pytest.raises(DeadlockError):
                    await WriteLock(other, timeout_s=5).acquire()
                with pytest.raises(DeadlockError):
                    WriteLock(other, timeout_s=5).acquire_sync()


def test_files_that_are_not_one_do_not_wait_for_each_other(path: str) -> None:
    with WriteLock(path), WriteLock(path + "2", timeout_s=0):
        assert line.lines() == {path: 1, path + "2": 1}


def test_who_waited_for_a_file_that_was_not_there_is_in_its_line(
    path: str, tmp_path: Path
) -> None:
    """The line is found by the path first, then by what was made there."""
    lock, order = WriteLock(path), []
    hold = lock.acquire_sync()
    os.link(path, tmp_path / "hard.jsonl")
    assert not in_thread(lambda: line.join_empty(path, place(str(tmp_path / "hard.jsonl"))))

    def wait(number: int, name: str) -> None:
        with WriteLock(name):
            order.append(number)

    crowd = []
    for number, name in enumerate([path, str(tmp_path / "hard.jsonl"), path]):
        crowd.append(threading.Thread(target=wait, args=(number, name)))
        crowd[-1].start()
        while sum(line.lines().values()) < number + 2:
            pass
    with pytest.raises(DeadlockError):
        lock.acquire_sync()
    hold.release()
    for thread in crowd:
        thread.join()
    assert order == [0, 1, 2]


def place(name: str) -> line.Place:
    return line.Place(blocking=True, key=line.key_of(line.inode_of(name)))


def test_a_lock_object_follows_its_file_when_that_is_replaced(
    path: str, tmp_path: Path
) -> None:
    lock = WriteLock(path)
    lock.acquire_sync().release()
    (tmp_path / "new").write_bytes(b"")
    os.rename(tmp_path / "new", path)
    os.link(path, tmp_path / "hard.jsonl")
    with lock as hold:
        assert os.fstat(hold.fd).st_ino == os.stat(path).st_ino
        with pytest.raises(DeadlockError):
            WriteLock(tmp_path / "hard.jsonl", timeout_s=5).acquire_sync()
    with lock, pytest.raises(DeadlockError):
        WriteLock(tmp_path / "hard.jsonl", timeout_s=5).acquire_sync()


def test_the_whole_line_moves_with_its_head() -> None:
    head, second = line.Place(blocking=False), line.Place(blocking=False)
    head.task = second.task = None
    second.wake = lambda: None
    assert line.join("name", head)
    assert not line.join("name", second)
    line.move(head, "1:2")
    late = line.Place(blocking=False, key="1:2")
    assert not line.join_empty("name", late)
    assert line.lines() == {"name": 2}
    line.leave("name", head)
    assert second.granted
    line.leave("name", second)
    assert line.lines() == {}


def test_two_lines_that_lead_to_one_file_stay_two() -> None:
    """Their heads meet at the latch: order is lost there, exclusion is not."""
    one, other = line.Place(blocking=False), line.Place(blocking=False, key="1:2")
    assert line.join("a", one)
    assert line.join("b", other)
    line.move(one, "1:2")
    assert line.lines() == {"a": 1, "b": 1}
    line.leave("a", one)
    line.leave("b", other)
    assert line.lines() == {}
