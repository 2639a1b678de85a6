"""What the tests of the write lock share."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from holdfast.backends.files import fs
from holdfast.backends.files.lock import line, watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["DEAD", "in_thread", "leaving_nothing", "read", "send_home", "stand", "until"]

DEAD = {"pid": 2**22 + 1, "createdAt": "2020-01-01T00:00:00Z", "starttime": 1, "claimId": "x"}


WITHIN_S = 20.0


def until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.001)


def send_home(*dogs: watchdog.Watchdog) -> None:
    """End the threads of watchdogs that have nothing to watch: they stay for a while."""
    before, watchdog.IDLE_S = watchdog.IDLE_S, 0.0  # type: ignore[misc]
    try:
        for dog in dogs:
            with dog._wakeup:
                dog._wakeup.notify()
            until(lambda: dog._thread is None)  # noqa: B023
    finally:
        watchdog.IDLE_S = before  # type: ignore[misc]


@contextmanager
def leaving_nothing(directory: Path) -> Iterator[str]:
    """A path for a transcript; afterwards nobody is in line and nothing is held or left."""
    before = len(os.listdir("/proc/self/fd"))
    yield str(directory / "s.jsonl")
    assert line.lines() == {}, "somebody is still in line"
    assert line._inodes == {}
    assert fs._open == set()
    assert len(os.listdir("/proc/self/fd")) <= before + 4, "descriptors leaked"  # loop's own
    assert not [name for name in os.listdir(directory) if ".lock" in name], "a claim was left"


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def stand(path: str, **fields: Any) -> None:
    """Make a claim stand that nobody holds."""
    with open(path + ".lock", "w") as file:
        file.write(json.dumps(fields))


def in_thread(work: Callable[[], Any]) -> Any:
    """Run *work* in a thread of its own; its result or its error."""
    got: list[Any] = []

    def run() -> None:
        try:
            got.append(work())
        except BaseException as error:
            got.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(got[0], BaseException):
        raise got[0]
    return got[0]
