"""Is a process stopped?  Three answers; and a waiter who tells it once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from holdfast.backends.files import fs, identity
from holdfast.backends.files.look import frozen
from holdfast.backends.files.look.frozen import Holder, Lookout, is_frozen

WITHIN_S = 20.0
V1, V2 = Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup")


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "_told", {})


def becomes(pid: int, wanted: bool | None) -> None:
    until_s = time.monotonic() + WITHIN_S
    while is_frozen(pid) is not wanted:
        assert time.monotonic() < until_s, f"still {is_frozen(pid)}"
        time.sleep(0.01)


def test_a_stopped_process_is_stopped_until_it_is_continued(sleeper: int) -> None:
    assert is_frozen(sleeper) is False
    os.kill(sleeper, signal.SIGSTOP)
    becomes(sleeper, True)
    assert is_frozen(sleeper, identity.start_of(sleeper)) is True
    assert is_frozen(sleeper, 1) is False, "the pid is somebody else's"
    os.kill(sleeper, signal.SIGCONT)
    becomes(sleeper, False)


def test_who_is_not_there_is_not_stopped_and_who_cannot_be_seen_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert is_frozen(2**22 + 1) is False
    hidden = PermissionError(13, "hidden")

    def refuse(path: str) -> bytes:
        raise hidden

    monkeypatch.setattr(fs, "read_small", refuse)
    assert is_frozen(os.getpid()) is None


def cgroup() -> tuple[Path, str, str, str] | None:
    """A directory to make a cgroup in; its switch, and what is on and off."""
    if (V1 / "cgroup.procs").exists():
        return V1, "freezer.state", "FROZEN", "THAWED"
    if (V2 / "cgroup.procs").exists():
        return V2, "cgroup.freeze", "1", "0"
    return None


def test_a_process_in_a_frozen_cgroup_is_stopped(sleeper: int) -> None:
    found = cgroup()
    if found is None:
        pytest.skip("no cgroups are mounted here")
    where, switch, on, off = found
    group = where / f"holdfast-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text(str(sleeper))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        assert is_frozen(sleeper) is False
        (group / switch).write_text(on)
        becomes(sleeper, True)
        (group / switch).write_text(off)
        becomes(sleeper, False)
    finally:
        (group / switch).write_text(off)
        (where / "cgroup.procs").write_text(str(sleeper))
        until_s = time.monotonic() + WITHIN_S
        while group.exists() and time.monotonic() < until_s:
            with suppress(OSError):
                group.rmdir()


def test_a_frozen_cgroup_of_the_newer_kind_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/7/stat": b"7 (a ) b) S " + b"0 " * 18 + b"99 0",
        "/proc/7/cgroup": b"0::/paused/box\n",
        "/proc/self/mountinfo": b"30 1 0:26 / /cg rw - cgroup2 cgroup2 rw\n",
        "/cg/paused/box/cgroup.events": b"populated 1\nfrozen 1\n",
    }
    read: list[str] = []

    def small(path: str) -> bytes:
        read.append(path)
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    monkeypatch.setattr(fs, "read_small", small)
    assert is_frozen(7, 99) is True
    files["/cg/paused/box/cgroup.events"] = b"populated 1\nfrozen 0\n"
    assert is_frozen(7, 99) is False
    del files["/cg/paused/box/cgroup.events"]
    assert is_frozen(7, 99) is None


class Scene:
    """Who holds, and whether it is stopped, as the test says."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.holder: Holder | None = Holder(4711, 1, 0.0)
        self.stopped: bool | None = True
        self._caplog = caplog
        monkeypatch.setattr(frozen, "is_frozen", lambda *_: self.stopped)

    def wait(self, lookout: Lookout, start_s: float, seconds: float) -> int:
        """Look as often as a waiter does; how often it told so far."""
        steps = int(seconds / 0.05)
        for step in range(steps):
            lookout.look(start_s + step * 0.05)
        return len(self._caplog.records)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Scene:
    return Scene(monkeypatch, caplog)


def test_a_waiter_tells_within_two_seconds_and_once(scene: Scene, caplog: Any) -> None:
    lookout = Lookout("the lock", lambda: scene.holder)
    assert scene.wait(lookout, 100.0, 0.9) == 0, "one look proves nothing"
    assert scene.wait(lookout, 100.9, 1.1) == 1
    assert scene.wait(lookout, 102.0, 300) == 1, "a flood"
    said = caplog.records[0].getMessage()
    assert "pid 4711 is stopped and holds the lock since 1970-01-01T00:00:00.000Z" in said


def test_two_waiters_of_one_process_tell_it_once(scene: Scene) -> None:
    first, second = (Lookout("the lock", lambda: scene.holder) for _ in range(2))
    assert scene.wait(first, 100.0, 5) == 1
    assert scene.wait(second, 100.0, 5) == 1
    assert scene.wait(Lookout("another", lambda: scene.holder), 100.0, 5) == 2


@pytest.mark.parametrize("stopped", [False, None])
def test_who_runs_or_cannot_be_seen_is_not_told(scene: Scene, stopped: bool | None) -> None:
    scene.stopped = stopped
    assert scene.wait(Lookout("the lock", lambda: scene.holder), 100.0, 5) == 0


def test_a_lock_that_cannot_be_looked_at_is_nobodys_error(scene: Scene) -> None:
    def refuse() -> Holder | None:
        raise OSError(5, "the disk is gone")

    assert scene.wait(Lookout("the lock", refuse), 100.0, 5) == 0
