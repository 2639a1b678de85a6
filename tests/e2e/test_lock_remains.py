"""
What dead processes, vandals and other programs leave around a transcript: real processes go on
writing, lose nothing, and touch nothing that is not theirs.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import struct
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.backends.files import fs
from holdfast.backends.files.lock import spare
from holdfast.backends.files.lock.gate import TICKET_MAX
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.errors import LockTimeoutError, TakeoverError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHILD = os.path.join(os.path.dirname(__file__), "_lock_child.py")
WRITERS, TIMES = 4, 40


@pytest.fixture
def path(tmp_path: Path) -> str:
    where = str(tmp_path / "s.jsonl")
    WriteLock(where).acquire_sync().release()
    return where


@contextmanager
def child(*argv: object) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, CHILD, *map(str, argv)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def hear(process: subprocess.Popen[str], word: str) -> list[str]:
    assert process.stdout is not None
    said = process.stdout.readline().split()
    assert said[:1] == [word], said
    return said[1:]


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def check_a_crowd_writes(path: str, also: Callable[[], None] = lambda: None) -> None:
    """Four processes append together; *also* happens while they do."""
    with (
        child("append", path, "p0", TIMES) as a, child("append", path, "p1", TIMES) as b,
        child("append", path, "p2", TIMES) as c, child("append", path, "p3", TIMES) as d,
    ):  # fmt: skip
        crowd = (a, b, c, d)
        for process in crowd:
            hear(process, "ready")
        for process in crowd:
            go(process)
        also()
        for process in crowd:
            hear(process, "done")
    with open(path, "rb") as file:
        lines = [json.loads(line) for line in file.read().splitlines()]
    wanted = Counter((f"p{by}", n) for by in range(WRITERS) for n in range(TIMES))
    found = Counter((line["by"], line["n"]) for line in lines if "by" in line)
    assert found == wanted
    assert not os.path.exists(path + ".lock")


# ----------------------------------------------------------------------- the dead one's claim


def in_a_fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(30)
            work()
        finally:
            os._exit(9)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


class Dying:
    """The real table, of a process that dies at the *number*-th call of that name."""

    def __init__(self, name: str, number: int, *, after: bool, bytes_of_it: int = -1) -> None:
        self._real, self._name, self._left = fs.Fs(), name, number
        self._after, self._bytes = after, bytes_of_it

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._real, name)
        if name != self._name:
            return call

        def dying(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left:
                return call(*args, **kwargs)
            if self._bytes >= 0:
                call(args[0], args[1][: self._bytes], *args[2:])
            elif self._after:
                call(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        return dying


#: On the way to a claim: the spare made, not written; half written; written, not linked;
#: linked, and nobody told; withdrawn, and nobody told.
DEATHS = {
    "spare-made": {"name": "fstat", "number": 2, "after": True},
    "spare-half": {"name": "pwrite", "number": 2, "after": True, "bytes_of_it": 300},
    "spare-written": {"name": "link", "number": 1, "after": False},
    "claim-linked": {"name": "link", "number": 1, "after": True},
    "claim-withdrawn": {"name": "unlink", "number": 1, "after": True},
    "claim-standing": {"name": "unlink", "number": 1, "after": False},
}


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("spare_is_there", [True, False], ids=["old-spare", "no-spare"])
def test_killed_anywhere_on_the_way_to_its_claim_it_holds_nobody_up(
    path: str, death: str, spare_is_there: bool
) -> None:
    if not spare_is_there:
        os.unlink(path + ".claim")

    def die() -> None:
        fs.table = Dying(**DEATHS[death])  # type: ignore[assignment, arg-type]
        WriteLock(path).acquire_sync().release()

    assert in_a_fork(die) == -signal.SIGKILL
    assert os.path.exists(path + ".lock") == (death in {"claim-linked", "claim-standing"})
    # At the first look, and as often as anybody wants.
    for _ in range(3):
        WriteLock(path, timeout_s=0).acquire_sync().release()
    left = {name for name in os.listdir(os.path.dirname(path)) if name != "s.jsonl"}
    assert left <= {"s.jsonl.gate", "s.jsonl.claim"}


# ---------------------------------------------------------------------------- the gate's file

GARBAGE = {
    "ones": b"\xff" * 32,
    "text": b"this is no gate, I am afraid, it's a note",
    "short": b"\x07\0",
    "empty": b"",
    "ticket-too-high": struct.pack("<QQQQ", TICKET_MAX + 1, 0, 0, 0),
    "last-tickets": struct.pack("<QQQQ", TICKET_MAX - 5, TICKET_MAX - 9, 0, 0),
    "floor-above": struct.pack("<QQQQ", 5, 900, 0, 0),
    "record-of-nobody": struct.pack("<QQQQ", 5, 5, 2**63, 2**63),
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_in_the_gate_costs_order_and_nothing_else(path: str, garbage: str) -> None:
    def spill() -> None:
        """While they write: over the counter, the floor and the record."""
        with open(path + ".gate", "r+b") as file:
            for _ in range(20):
                file.seek(0)
                file.write(GARBAGE[garbage])
                file.truncate()
                file.flush()
                os.sched_yield()

    spill()
    check_a_crowd_writes(path, also=spill)


# ------------------------------------------------------------------------------- the spare


def a_symlink(at: str, foreign: str) -> None:
    os.symlink(foreign, at)


def a_dangling_symlink(at: str, foreign: str) -> None:
    os.symlink(foreign + ".nowhere", at)


def a_pipe(at: str, foreign: str) -> None:
    os.mkfifo(at)


def a_directory(at: str, foreign: str) -> None:
    os.mkdir(at)


def a_foreign_file(at: str, foreign: str) -> None:
    os.rename(foreign, at)
    os.symlink(at, foreign)


def a_second_name(at: str, foreign: str) -> None:
    """Of a file of just the size and mode that a spare has."""
    with open(foreign, "wb") as file:
        file.write(b"n" * spare.SIZE)
    os.chmod(foreign, 0o600)
    os.link(foreign, at)


def a_file_for_all(at: str, foreign: str) -> None:
    with open(at, "wb") as file:
        file.write(b"n" * spare.SIZE)
    os.chmod(at, 0o666)


FOREIGN = [a_symlink, a_dangling_symlink, a_pipe, a_directory]
FOREIGN += [a_foreign_file, a_second_name, a_file_for_all]


@pytest.mark.parametrize("make", FOREIGN, ids=[make.__name__ for make in FOREIGN])
def test_what_stands_in_the_spares_place_is_not_touched(
    path: str, tmp_path: Path, make: Callable[[str, str], None]
) -> None:
    foreign = str(tmp_path / "somebody's notes")
    with open(foreign, "w") as file:
        file.write("precious")
    os.unlink(path + ".claim")
    make(path + ".claim", foreign)
    before = facts(path + ".claim")
    with open(foreign) as file:
        notes = file.read()
    check_a_crowd_writes(path)
    assert facts(path + ".claim") == before, "it was replaced or written to"
    with open(foreign) as file:
        assert file.read() == notes
    assert not os.path.exists(foreign + ".nowhere"), "it was made through the symlink"


def facts(path: str) -> tuple[Any, ...]:
    found = os.lstat(path)
    whole = b""
    if stat.S_ISREG(found.st_mode):
        with open(path, "rb") as file:
            whole = file.read()
    return found.st_ino, found.st_mode, found.st_nlink, whole


# --------------------------------------------------------------- replaced while they wait


def replace(path: str, content: bytes) -> None:
    """As an editor does: write aside, rename over it."""
    with open(path + ".new", "wb") as file:
        file.write(content)
    os.rename(path + ".new", path)


def test_a_file_replaced_while_they_wait_is_the_one_they_write(path: str) -> None:
    """Its holder finds out at its next append; those who wait never write into the old one."""
    hold = WriteLock(path).acquire_sync()
    hold.append(b'{"old":1}\n', sync=False)
    old = os.open(path, os.O_RDONLY)
    try:
        with (
            child("queue", path, '{"by":1}') as first,
            child("queue", path, '{"by":2}') as second,
        ):
            hear(first, "queued")
            hear(second, "queued")
            replace(path, b'{"new":1}\n')
            with pytest.raises(TakeoverError):
                hold.append(b'{"lost":1}\n', sync=False)
            hold.release()
            hear(first, "appended")
            hear(second, "appended")
        assert os.pread(old, 4096, 0) == b'{"old":1}\n', "somebody wrote where nobody reads"
    finally:
        os.close(old)
    with open(path, "rb") as file:
        assert sorted(file.read().splitlines()) == [b'{"by":1}', b'{"by":2}', b'{"new":1}']
    WriteLock(path, timeout_s=0).acquire_sync().release()


def test_a_file_replaced_again_and_again_loses_no_line_that_its_writer_was_told_of(
    path: str,
) -> None:
    """Each waiter's line stands in whichever file the name meant while it held the lock."""
    inodes: list[int] = []
    seen: list[bytes] = []
    try:
        for number in range(12):
            hold = WriteLock(path).acquire_sync()
            with child("queue", path, f'{{"by":{number}}}') as waiter:
                hear(waiter, "queued")
                inodes.append(os.open(path, os.O_RDONLY))
                replace(path, b"")
                hold.release()
                hear(waiter, "appended")
        inodes.append(os.open(path, os.O_RDONLY))
        for fd in inodes:
            seen += os.pread(fd, 65_536, 0).splitlines()
    finally:
        for fd in inodes:
            os.close(fd)
    assert sorted(seen) == sorted(b'{"by":%d}' % number for number in range(12))


def test_a_file_that_is_taken_away_while_they_wait_is_made_anew(path: str) -> None:
    hold = WriteLock(path).acquire_sync()
    with child("queue", path, '{"by":1}') as waiter:
        hear(waiter, "queued")
        os.unlink(path)
        with pytest.raises(TakeoverError):
            hold.append(b'{"lost":1}\n', sync=False)
        hold.release()
        hear(waiter, "appended")
    with open(path, "rb") as file:
        assert file.read() == b'{"by":1}\n'


def test_who_is_stopped_with_the_lock_keeps_it_though_its_file_was_replaced(path: str) -> None:
    """Two inodes, two latches; the claim at the one path is still a live owner's."""
    with child("hold", path) as holder:
        hear(holder, "held")
        os.kill(holder.pid, signal.SIGSTOP)
        os.waitpid(holder.pid, os.WUNTRACED)
        with pytest.raises(LockTimeoutError):
            WriteLock(path, timeout_s=0.1).acquire_sync()
        os.kill(holder.pid, signal.SIGCONT)
        go(holder)
        hear(holder, "released")
    WriteLock(path, timeout_s=0).acquire_sync().release()
