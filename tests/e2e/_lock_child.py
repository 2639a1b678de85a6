"""
A process that uses the write lock as it is told.  Not a test.

    python _lock_child.py hold     PATH            says `held`; releases when told `go`
    python _lock_child.py append   PATH TAG COUNT  says `ready`; appends when told `go`
    python _lock_child.py queue    PATH TAG        says `queued N`, N its ticket; appends TAG
    python _lock_child.py fork     PATH            holds, forks; the child tries everything
    python _lock_child.py stranger PATH COUNT      knows nothing of us; creates exclusively
    python _lock_child.py count    PATH COUNT      adds to a number beside PATH, under the lock
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from holdfast.backends.files.lock import write_lock
from holdfast.backends.files.lock.gate import Entry
from holdfast.backends.files.lock.write_lock import WriteLock, statistics
from holdfast.errors import ForkedError

if TYPE_CHECKING:
    from collections.abc import Callable


def say(*words: object) -> None:
    print(*words, flush=True)


def wait_for_go() -> None:
    assert sys.stdin.readline() == "go\n"


def hold(path: str) -> None:
    with WriteLock(path, lane="user", run_id="child"):
        say("held")
        wait_for_go()
    say("released")


def append(path: str, tag: str, count: str) -> None:
    lock = WriteLock(path)
    say("ready")
    wait_for_go()
    for number in range(int(count)):
        with lock as held:
            held.append(b'{"by":"%s","n":%d}\n' % (tag.encode(), number), sync=False)
    say("done")


def queue(path: str, tag: str) -> None:
    lock, step = WriteLock(path, timeout_s=30), Entry.step
    said: list[bool] = []

    def telling_step(entry: Entry, now_s: float) -> float | None:
        wait_s = step(entry, now_s)
        if entry.ticket >= 0 and not said:
            said.append(True)
            say("queued", entry.ticket)
        return wait_s

    setattr(Entry, "step", telling_step)  # noqa: B010
    with lock as held:
        held.append(tag.encode() + b"\n", sync=False)
        say("appended", time.monotonic_ns(), statistics().reclaimed)


def fork(path: str) -> None:
    held = WriteLock(path).acquire_sync()
    if os.fork() == 0:
        uses: list[Callable[[], object]] = [
            held.check,
            held.size,
            lambda: held.fd,
            lambda: held.append(b"{}\n", sync=False),
        ]
        refused = 0
        for use in uses:
            try:
                use()
            except ForkedError:
                refused += 1
        held.release()  # Must not take anything from the parent.
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1]]
        say("child", os.getpid(), refused, sum(path in link for link in links))
    wait_for_go()


def stranger(path: str, count: str) -> None:
    say("ready")
    wait_for_go()
    for _ in range(int(count)):
        while True:
            try:
                fd = os.open(path + ".lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
                break
            except FileExistsError:
                time.sleep(0.0002)
        made = os.fstat(fd).st_ino
        os.write(fd, b'{\n  "pid": %d\n}\n' % os.getpid())
        add_one(path)
        assert os.stat(path + ".lock").st_ino == made, "our lock was taken from us"
        os.unlink(path + ".lock")
        os.close(fd)
    say("done")


def count(path: str, times: str) -> None:
    lock = WriteLock(path)
    say("ready")
    wait_for_go()
    for _ in range(int(times)):
        with lock:
            add_one(path)
    say("done")


def add_one(path: str) -> None:
    """Read, then write: two who do it at once lose one."""
    with open(path + ".sum", "r+") as file:
        number = int(file.read() or 0)
        os.sched_yield()
        file.seek(0)
        file.write(str(number + 1))


if __name__ == "__main__":
    assert write_lock.__file__
    globals()[sys.argv[1]](*sys.argv[2:])
