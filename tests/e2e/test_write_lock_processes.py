"""The write lock among real processes, some of which are stopped, killed or strangers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.backends.files.lock.gate import Gate
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.errors import LockLostError, LockTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHILD = os.path.join(os.path.dirname(__file__), "_lock_child.py")


class Child:
    """A process at the other end of two pipes."""

    def __init__(self, *argv: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, CHILD, *map(str, argv)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def hear(self, word: str) -> list[str]:
        assert self.process.stdout is not None
        said = self.process.stdout.readline().split()
        assert said, "it ended without a word"
        assert said[0] == word
        return said[1:]

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def begin(*argv: object) -> Child:
        children.append(Child(*argv))
        return children[-1]

    yield begin
    for child in children:
        child.end()


@pytest.fixture
def path(tmp_path: Path) -> str:
    where = str(tmp_path / "s.jsonl")
    WriteLock(where).acquire_sync().release()
    return where


def lines(path: str) -> list[bytes]:
    with open(path, "rb") as file:
        return file.read().splitlines()


def test_processes_get_it_in_the_order_in_which_they_came(path: str, start: Any) -> None:
    hold = WriteLock(path).acquire_sync()
    crowd = []
    for number in range(5):
        crowd.append(start("queue", path, number))
        crowd[-1].hear("queued")
    hold.release()
    for child in crowd:
        child.hear("appended")
    assert lines(path) == [b"0", b"1", b"2", b"3", b"4"]


def test_eight_processes_lose_and_tear_nothing(path: str, start: Any) -> None:
    times = 150
    crowd = [start("append", path, f"p{number}", times) for number in range(8)]
    for child in crowd:
        child.hear("ready")
    for child in crowd:
        child.go()
    for child in crowd:
        child.hear("done")
    found = [json.loads(line) for line in lines(path)]
    wanted = Counter((f"p{by}", n) for by in range(8) for n in range(times))
    assert Counter((entry["by"], entry["n"]) for entry in found) == wanted
    assert not os.path.exists(path + ".lock")


def test_a_killed_holder_is_replaced_at_once(path: str, start: Any) -> None:
    took_ms = []
    for number in range(5):
        holder = start("hold", path)
        holder.hear("held")
        waiter = start("queue", path, number)
        waiter.hear("queued")
        killed_ns = time.monotonic_ns()
        os.kill(holder.pid, signal.SIGKILL)
        at_ns, reclaimed = waiter.hear("appended")
        took_ms.append((int(at_ns) - killed_ns) / 1e6)
        assert reclaimed == "1"
    assert sorted(took_ms)[2] < 50
    assert lines(path) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_stopped_waiter_is_passed_over_and_only_once(path: str, start: Any) -> None:
    hold = WriteLock(path).acquire_sync()
    stopped = start("queue", path, "stopped")
    ticket = int(stopped.hear("queued")[0])
    stopped.stop()
    behind = start("queue", path, "behind")
    behind.hear("queued")
    hold.release()
    behind.hear("appended")
    behind.process.wait()  # It has said so inside; by now it is out.
    with open(path + ".gate", "rb") as file:
        assert int.from_bytes(file.read()[8:16], "little") == ticket + 1
    # Nobody waits for it a second time: one look is enough.
    WriteLock(path, timeout_s=0).acquire_sync().release()

    os.kill(stopped.pid, signal.SIGCONT)
    stopped.hear("appended")
    assert lines(path) == [b"behind", b"stopped"]


def test_a_stopped_holder_is_named_and_never_robbed(path: str, start: Any) -> None:
    holder = start("hold", path)
    holder.hear("held")
    holder.stop()
    with pytest.raises(LockTimeoutError) as caught:
        WriteLock(path, timeout_s=0.2).acquire_sync()
    assert f"pid {holder.pid} " in caught.value.holder
    assert "(alive), lane user, run child" in caught.value.holder
    os.kill(holder.pid, signal.SIGCONT)
    holder.go()
    holder.hear("released")
    WriteLock(path, timeout_s=0).acquire_sync().release()


def test_removing_the_claim_lets_nobody_in_and_stops_the_holder(path: str, start: Any) -> None:
    with WriteLock(path) as hold:
        os.unlink(path + ".lock")
        waiter = start("queue", path, "waiter")
        waiter.hear("queued")
        got_in = threading.Event()

        def listen() -> None:
            waiter.hear("appended")
            got_in.set()

        ear = threading.Thread(target=listen)
        ear.start()
        # Three times as long as a motionless ticket is waited for.
        assert not got_in.wait(0.15)
        with pytest.raises(LockLostError):
            hold.append(b"{}\n", sync=False)
    ear.join()
    assert lines(path) == [b"waiter"]


def test_a_forked_child_holds_nothing(path: str, start: Any) -> None:
    parent = start("fork", path)
    child, refused, descriptors = map(int, parent.hear("child"))
    assert refused == 4
    assert descriptors == 0
    assert os.path.exists(path + ".lock"), "the child released its parent's hold"
    try:
        with pytest.raises(LockTimeoutError):  # The parent still has it.
            WriteLock(path, timeout_s=0).acquire_sync()
        parent.kill()
        os.kill(child, 0)
        WriteLock(path, timeout_s=5).acquire_sync().release()
        Gate(path + ".gate").acquire(0).release()
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_names_of_one_file_are_one_lock_between_processes(
    path: str, tmp_path: Path, start: Any
) -> None:
    for link, name in ((os.symlink, "symlink.jsonl"), (os.link, "hard.jsonl")):
        alias = str(tmp_path / name)
        link(path, alias)
        holder = start("hold", alias)
        holder.hear("held")
        with pytest.raises(LockTimeoutError):
            WriteLock(path, timeout_s=0.1).acquire_sync()
        holder.go()
        holder.hear("released")
        WriteLock(path, timeout_s=0).acquire_sync().release()


def test_a_stranger_and_we_take_turns(path: str, start: Any) -> None:
    ours, theirs = 400, 40
    with open(path + ".sum", "w"):
        pass
    crowd = [start("count", path, ours), start("count", path, ours)]
    crowd.append(start("stranger", path, theirs))
    for child in crowd:
        child.hear("ready")
    for child in crowd:
        child.go()
    for child in crowd:
        child.hear("done")
    with open(path + ".sum") as file:
        assert int(file.read()) == 2 * ours + theirs


def test_a_strangers_claim_is_waited_for(path: str) -> None:
    fd = os.open(path + ".lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.write(fd, b'{\n  "pid": 1\n}\n')
    os.close(fd)
    with pytest.raises(LockTimeoutError):
        WriteLock(path, timeout_s=0.1).acquire_sync()
    os.unlink(path + ".lock")
    WriteLock(path, timeout_s=0).acquire_sync().release()
