"""The write lock as its users meet it: one process, real files."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from holdfast import _points
from holdfast.backends.files import fs
from holdfast.backends.files.lock.gate import Entry
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.errors import (
    BadTranscriptError,
    DeadlockError,
    LockLostError,
    LockTimeoutError,
    StoreError,
    UnavailableError,
)
from support.locks import in_thread, leaving_nothing, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HEADER = b'{"type":"session"}\n'


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    with leaving_nothing(tmp_path) as where:
        yield where


@pytest.fixture
def point() -> Iterator[Callable[[str, Callable[[], None]], None]]:
    yield _points.install
    _points._hooks.clear()


# ----------------------------------------------------------------- taking and giving back


def test_it_is_had_and_given_back(path: str) -> None:
    with WriteLock(path) as hold:
        assert os.path.exists(path + ".lock")
        assert hold.append(b'{"a":1}\n', sync=True) == 8
        assert hold.size() == 8
        assert os.pread(hold.fd, 8, 0) == b'{"a":1}\n'
    assert not os.path.exists(path + ".lock")
    assert os.path.exists(path + ".gate")


async def test_it_is_had_by_a_task_too(path: str) -> None:
    lock = WriteLock(path, token=7)
    async with lock as hold:
        assert hold.token == 7
        hold.append(b"{}\n", sync=False)
    async with lock as hold:
        assert hold.append(b"{}\n", sync=False) == 6


def test_releasing_twice_releases_once(path: str) -> None:
    first = WriteLock(path).acquire_sync()
    first.release()
    second = WriteLock(path).acquire_sync()
    first.release()
    second.check()
    second.release()


def test_a_copy_of_the_descriptor_does_not_keep_the_lock(path: str) -> None:
    """A child between fork and exec has one."""
    hold = WriteLock(path).acquire_sync()
    copy = os.dup(hold.fd)
    hold.release()
    WriteLock(path, timeout_s=0).acquire_sync().release()
    os.close(copy)


def test_a_released_hold_is_of_no_use(path: str) -> None:
    hold = WriteLock(path).acquire_sync()
    hold.release()
    for use in (hold.check, hold.size, lambda: hold.append(b"\n", sync=False), lambda: hold.fd):
        with pytest.raises(LockLostError):
            use()


def test_a_release_during_an_append_waits_for_it_to_finish(path: str, point: Any) -> None:
    hold = WriteLock(path).acquire_sync()
    reached, go_on = threading.Event(), threading.Event()

    def stop() -> None:
        reached.set()
        assert go_on.wait(10)

    point("append.checked", stop)
    writer = threading.Thread(target=hold.append, args=(b"{}\n",), kwargs={"sync": False})
    writer.start()
    assert reached.wait(10)
    hold.release()
    with pytest.raises(LockTimeoutError):
        WriteLock(path, timeout_s=0).acquire_sync()
    go_on.set()
    writer.join()
    assert read(path) == b"{}\n"
    WriteLock(path, timeout_s=0).acquire_sync().release()


# ------------------------------------------------------------------------------ the file


def test_the_end_of_the_process_leaves_a_release_under_way_to_who_began_it(
    path: str, monkeypatch: Any
) -> None:
    """An exit handler may meet another thread between closing the hold and unlinking."""
    hold, inside, go_on = WriteLock(path).acquire_sync(), threading.Event(), threading.Event()
    real = os.unlink

    def slowly(name: str) -> None:
        inside.set()
        assert go_on.wait(20)
        real(name)

    monkeypatch.setattr(fs.table, "unlink", slowly)
    releasing = threading.Thread(target=hold.release)
    releasing.start()
    assert inside.wait(20)
    monkeypatch.setattr(fs.table, "unlink", real)
    try:
        assert hold.forsake() is False
        assert os.path.lexists(path + ".lock"), "withdrawn by somebody who had not closed it"
    finally:
        go_on.set()
        releasing.join(20)
    assert not os.path.lexists(path + ".lock")


def test_a_missing_transcript_appears_with_its_header(path: str) -> None:
    made = []

    def header() -> bytes:
        made.append(1)
        assert not os.path.exists(path)
        return HEADER

    for _ in range(2):
        with WriteLock(path, header=header):
            assert read(path) == HEADER
    assert made == [1]


async def test_a_header_is_made_off_the_loop(path: str) -> None:
    threads = []

    def header() -> bytes:
        threads.append(threading.get_ident())
        return HEADER

    async with WriteLock(path, header=header):
        assert read(path) == HEADER
    assert threads != [threading.get_ident()]


async def test_an_error_in_making_the_header_is_the_callers(path: str) -> None:
    def header() -> bytes:
        raise BadTranscriptError(path=path, detail="it is gone")

    with pytest.raises(BadTranscriptError):
        async with WriteLock(path, header=header):
            pass
    assert not os.path.exists(path)
    with WriteLock(path):
        assert read(path) == b""


def test_a_torn_last_line_stays_and_stays_alone(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b'{"a":1}\n{"torn')
    with WriteLock(path) as hold:
        assert hold.append(b'{"b":2}\n{"c":3}\n', sync=False) == os.stat(path).st_size
        hold.append(b'{"d":4}\n', sync=False)
    assert read(path) == b'{"a":1}\n{"torn\n{"b":2}\n{"c":3}\n{"d":4}\n'


def make_directory(path: str) -> None:
    os.mkdir(path)


def make_pipe(path: str) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [make_directory, make_pipe])
def test_what_is_not_a_file_is_not_a_transcript(path: str, make: Callable[[str], None]) -> None:
    make(path)
    with pytest.raises(BadTranscriptError):
        WriteLock(path).acquire_sync()
    assert not os.path.exists(path + ".gate"), "what is no transcript needs no gate"


def test_a_transcript_that_may_not_be_opened(path: str, monkeypatch: Any) -> None:
    real = fs.table.open

    def refuse(name: str, *rest: int) -> int:
        if name == path:
            raise PermissionError(13, "Permission denied")
        return real(name, *rest)

    monkeypatch.setattr(fs.table, "open", refuse)
    with pytest.raises(BadTranscriptError, match="Permission denied"):
        WriteLock(path).acquire_sync()


def test_a_directory_that_does_not_exist(path: str) -> None:
    with pytest.raises(BadTranscriptError):
        WriteLock(path + "/no/such.jsonl").acquire_sync()


def test_a_full_disk_is_cut_back_and_said(path: str, monkeypatch: Any) -> None:
    real = fs.table.write
    with WriteLock(path) as hold:
        hold.append(b"{}\n", sync=False)
        monkeypatch.setattr(fs.table, "write", lambda fd, data: real(fd, data[:3]))
        with pytest.raises(StoreError) as caught:
            hold.append(b'{"long":1}\n', sync=False)
        assert caught.value.code == "disk_full"
        assert read(path) == b"{}\n"
        monkeypatch.undo()
        assert hold.append(b"{}\n", sync=False) == 6


def test_without_our_claim_nothing_is_cut_back(path: str, monkeypatch: Any) -> None:
    """What is behind us then may be the work of whoever took our place."""
    real = os.write

    def half(fd: int, data: bytes) -> int:
        os.unlink(path + ".lock")
        return real(fd, data[: len(data) // 2])

    with WriteLock(path) as hold:
        hold.append(b'{"a":1}\n', sync=False)
        monkeypatch.setattr(fs.table, "write", half)
        with pytest.raises(UnavailableError) as caught:
            hold.append(b'{"b":2}\n', sync=False)
    assert caught.value.landed is None
    assert read(path) == b'{"a":1}\n{"b"'


def test_cutting_back_never_cuts_a_strangers_line(path: str, monkeypatch: Any) -> None:
    real = fs.table.write

    def write(fd: int, data: bytes) -> int:
        written = real(fd, data[:3])
        with open(path, "ab") as stranger:
            stranger.write(b'\n{"stranger":"a line of some length"}\n')
        return written

    with WriteLock(path) as hold:
        monkeypatch.setattr(fs.table, "write", write)
        with pytest.raises(StoreError) as caught:
            hold.append(b'{"long":1}\n', sync=False)
        monkeypatch.undo()
    assert getattr(caught.value, "landed", "") is None
    assert b"stranger" in read(path)


# ----------------------------------------------------------------------------- many names


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symlink", "hard-link"])
def test_two_names_of_one_file_are_one_lock(path: str, tmp_path: Path, link: Any) -> None:
    WriteLock(path).acquire_sync().release()
    alias = str(tmp_path / "alias.jsonl")
    link(path, alias)
    for one, other in ((path, alias), (alias, path)):
        with WriteLock(one):
            with pytest.raises(LockTimeoutError):
                in_thread(WriteLock(other, timeout_s=0.05).acquire_sync)
            with pytest.raises(DeadlockError):
                WriteLock(other).acquire_sync()


def test_a_symlink_has_its_claim_beside_the_file(path: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    alias = str(tmp_path / "d" / "alias.jsonl")
    os.symlink(path, alias)
    with WriteLock(alias, header=lambda: HEADER):
        assert os.path.exists(path + ".lock")
        assert os.listdir(tmp_path / "d") == ["alias.jsonl"]
    assert read(path) == HEADER


def test_an_alias_that_was_pointed_elsewhere_is_followed(path: str, tmp_path: Path) -> None:
    alias, other = str(tmp_path / "alias.jsonl"), str(tmp_path / "other.jsonl")
    os.symlink(path, alias)
    lock = WriteLock(alias)
    with lock as hold:
        assert hold.path == path
    os.unlink(alias)
    os.symlink(other, alias)
    with lock as hold:
        assert hold.path == other
        hold.append(b"{}\n", sync=False)
    assert read(path) == b""


def test_a_file_that_became_a_symlink_is_followed(path: str, tmp_path: Path) -> None:
    lock, other = WriteLock(path), str(tmp_path / "other.jsonl")
    lock.acquire_sync().release()
    os.rename(path, other)
    os.symlink(other, path)
    with lock as hold:
        assert hold.path == other
        assert os.path.exists(other + ".lock")


def test_a_file_replaced_while_we_wait_is_opened_anew(path: str, tmp_path: Path) -> None:
    WriteLock(path).acquire_sync().release()
    before_us = Entry(path + ".gate")
    assert before_us.step(0.0) is None
    looked, got = threading.Event(), []

    def wait() -> None:
        with WriteLock(path, timeout_s=10) as hold:
            got.append(os.fstat(hold.fd).st_ino)

    with pytest.MonkeyPatch.context() as patch:
        step = Entry.step

        def telling_step(entry: Entry, now_s: float) -> float | None:
            wait_s = step(entry, now_s)
            looked.set()
            return wait_s

        patch.setattr(Entry, "step", telling_step)
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert looked.wait(10)
        (tmp_path / "new").write_bytes(b"")
        os.rename(tmp_path / "new", path)
        before_us.leave()
        waiter.join()
    assert got == [os.stat(path).st_ino]
