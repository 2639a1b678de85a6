"""
Another program that locks session files, written from the description of the founding format.

Knows nothing of Holdfast: it creates `<file>.lock` exclusively, then writes pretty JSON with
pid, createdAt, maxHoldMs and starttime into it, and unlinks only what it created (same inode,
same text).  Not a test.

    python _peer.py append PATH TAG COUNT   says `ready`; appends when told `go`; says `done`
    python _peer.py hold   PATH             says `held PID`; lets go when told `go`
    python _peer.py remove PATH COUNT       the bad one: removes live claims that are not its
                                            own program's; each time it is told `go`, COUNT
                                            times; says `removed`
    python _peer.py storm  PATH TAG         removes and appends until its input ends
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime


def say(*words: object) -> None:
    print(*words, flush=True)


def wait_for_go() -> None:
    assert sys.stdin.readline() == "go\n"


def start_time() -> int:
    with open("/proc/self/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[19])


def try_lock(lock: str) -> tuple[int, str] | None:
    try:
        fd = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    except FileExistsError:
        return None
    about = {
        "pid": os.getpid(),
        "createdAt": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "maxHoldMs": 300_000,
        "starttime": start_time(),
    }
    text = json.dumps(about, indent=2) + "\n"
    os.write(fd, text.encode())
    return fd, text


def unlock(lock: str, fd: int, text: str) -> None:
    made = os.fstat(fd).st_ino
    os.close(fd)
    try:
        with open(lock) as file:
            same = file.read() == text and os.lstat(lock).st_ino == made
    except FileNotFoundError:
        return
    if same:
        os.unlink(lock)


def write_line(path: str, tag: str, number: int) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(json.dumps({"by": tag, "n": number, "pad": "x" * 300}).encode() + b"\n")


def append(path: str, tag: str, count: str) -> None:
    say("ready")
    wait_for_go()
    for number in range(int(count)):
        while (held := try_lock(path + ".lock")) is None:
            time.sleep(0.0005)
        write_line(path, tag, number)
        unlock(path + ".lock", *held)
    say("done")


def hold(path: str) -> None:
    held = try_lock(path + ".lock")
    assert held is not None
    say("held", os.getpid())
    wait_for_go()
    unlock(path + ".lock", *held)
    say("released")


def remove_if_not_its_own(lock: str) -> bool:
    """What it takes for a reason: the owner's command line is not that of this program."""
    try:
        with open(lock) as file:
            pid = json.load(file)["pid"]
        with open(f"/proc/{pid}/cmdline") as file:
            if "_peer.py" in file.read():
                return False
        os.unlink(lock)
    except (OSError, ValueError, KeyError):
        return False
    return True


def remove(path: str, count: str) -> None:
    say("ready")
    for _ in range(int(count)):
        wait_for_go()
        while not remove_if_not_its_own(path + ".lock"):
            time.sleep(0.0005)
        say("removed")


def storm(path: str, tag: str) -> None:
    say("ready")
    os.set_blocking(0, False)
    number = removed = 0
    while not ended():
        removed += remove_if_not_its_own(path + ".lock")
        held = try_lock(path + ".lock")
        if held is not None:
            write_line(path, tag, number)
            number += 1
            unlock(path + ".lock", *held)
        time.sleep(0.001)
    say("done", number, removed)


def ended() -> bool:
    try:
        return os.read(0, 100) == b""
    except BlockingIOError:
        return False


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
