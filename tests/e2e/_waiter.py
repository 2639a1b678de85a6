"""
A process that wants the write lock and says what it got.  Not a test.

    python _waiter.py take  PATH TIMEOUT_S STALE_MS      one answer, JSON
    python _waiter.py race  PATH                         for each `go`: an answer, JSON
    python _waiter.py leave PATH                         holds with a descriptor that its
                                                         child inherits; says `held PID CHILD`
    python _waiter.py hold  PATH MAX_HOLD_MS             says `held PID`; lets go at `go`
    python _waiter.py as    UID HIDDEN PATH TIMEOUT_S    `take`, as that user; HIDDEN: with a
                                                         /proc that hides others (a mount
                                                         namespace of its own is needed)
"""

from __future__ import annotations

import ctypes  # noqa: F401  Not found any more by who became another user.
import json
import os
import subprocess
import sys
import time

from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.errors import LockStaleError, LockWaitError


def say(*words: object) -> None:
    print(*words, flush=True)


def take(path: str, timeout_s: str, stale_ms: str = "1800000") -> None:
    try:
        WriteLock(
            path, timeout_s=float(timeout_s), stale_ms=int(stale_ms)
        ).acquire_sync().release()
    except LockWaitError as error:
        row = error.row if isinstance(error, LockStaleError) else None
        why = error.reasons if isinstance(error, LockStaleError) else []
        say(json.dumps({"error": error.code, "row": row, "why": why, "holder": error.holder}))
    else:
        say(json.dumps({"error": None}))


def race(path: str) -> None:
    lock = WriteLock(path, timeout_s=60)
    say("ready")
    for _ in sys.stdin:
        alone = True
        with lock as held:
            try:  # Whoever is inside at the same time meets this file.
                fd = os.open(path + ".inside", os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                alone = False
            else:
                time.sleep(0.002)
                held.append(b"{}\n", sync=False)
                os.close(fd)
                os.unlink(path + ".inside")
        say(json.dumps({"alone": alone}))


def leave(path: str) -> None:
    held = WriteLock(path).acquire_sync()
    child = subprocess.Popen(["sleep", "600"], pass_fds=[held.fd], stdout=subprocess.DEVNULL)
    say("held", os.getpid(), child.pid)
    sys.stdin.read()


def hold(path: str, max_hold_ms: str) -> None:
    with WriteLock(path, max_hold_ms=int(max_hold_ms), run_id="r1"):
        say("held", os.getpid())
        assert sys.stdin.readline() == "go\n"
    say("released")


def as_(uid: str, hidden: str, path: str, timeout_s: str) -> None:
    if hidden == "1":
        subprocess.run(["mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc"], check=True)
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
    take(path, timeout_s)


if __name__ == "__main__":
    {"as": as_}.get(sys.argv[1], globals().get(sys.argv[1]))(*sys.argv[2:])  # type: ignore[misc]
