"""However a process ends: what stands of its write lock, and who is let in."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.backends.files.lock.write_lock import WriteLock, statistics
from holdfast.errors import LockWaitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHILD = os.path.join(os.path.dirname(__file__), "_exit_child.py")
WITHIN_S = 30.0


class Child:
    """A process at the other end of two pipes."""

    def __init__(self, *argv: str, before: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*before, sys.executable, CHILD, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def hear(self, word: str) -> list[str]:
        assert self.process.stdout is not None
        said = self.process.stdout.readline().split()
        assert said, f"it ended without a word: {self.process.communicate(timeout=WITHIN_S)}"
        assert said[0] == word
        return said[1:]

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def status(self) -> int:
        return self.process.wait(WITHIN_S)

    def rest(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def begin(mode: str, *argv: str, before: tuple[str, ...] = ()) -> Child:
        children.append(Child(mode, *argv, before=before))
        return children[-1]

    yield begin
    for child in children:
        child.end()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "s.jsonl")


def claims(path: str) -> list[str]:
    directory = os.path.dirname(path)
    return [name for name in os.listdir(directory) if ".lock" in name]


def let_in(path: str) -> int:
    """Take the lock, at once; how many claims of dead owners that replaced."""
    before = statistics().reclaimed
    WriteLock(path, timeout_s=5).acquire_sync().release()
    return statistics().reclaimed - before


# ------------------------------------------------------------- ends of its own accord


@pytest.mark.parametrize(
    ("mode", "status"), [("falls_off_the_end", 0), ("exits_with_3", 3), ("raises", 1)]
)
def test_a_normal_end_leaves_no_claim(path: str, start: Any, mode: str, status: int) -> None:
    child = start(mode, path)
    child.hear("held")
    assert child.status() == status
    assert claims(path) == []
    assert let_in(path) == 0


def test_the_programs_own_last_words_are_still_written(path: str, start: Any) -> None:
    child = start("writes_in_its_own_last_words", path)
    assert child.status() == 0
    assert claims(path) == []
    with open(path, "rb") as file:
        assert file.read() == b"last words\n"


def test_who_ends_without_notice_is_replaced_by_the_next_waiter(path: str, start: Any) -> None:
    child = start("exits_hard", path)
    assert child.status() == 4
    assert claims(path) == ["s.jsonl.lock"]
    assert let_in(path) == 1
    child = start("pauses", path)
    child.hear("held")
    child.signal(signal.SIGKILL)
    assert child.status() == -signal.SIGKILL
    assert claims(path) == ["s.jsonl.lock"]
    assert let_in(path) == 1
    assert claims(path) == []


# -------------------------------------------------------------------- ends by a signal


@pytest.mark.parametrize(
    ("mode", "number"),
    [
        ("pauses", signal.SIGTERM),
        ("pauses", signal.SIGHUP),
        ("pauses_with_default_sigint", signal.SIGINT),
        ("on_a_loop", signal.SIGTERM),
        ("on_a_loop", signal.SIGHUP),
        ("handles_and_calls_what_was_there", signal.SIGTERM),
    ],
)
def test_who_is_told_to_end_leaves_no_claim_and_dies_of_the_signal(
    path: str, start: Any, mode: str, number: signal.Signals
) -> None:
    child = start(mode, path)
    child.hear("held")
    if mode.startswith("handles"):
        child.hear("ready")
    child.signal(number)
    assert child.status() == -number
    assert claims(path) == []
    assert let_in(path) == 0


@pytest.mark.parametrize("mode", ["pauses", "on_a_loop"])
def test_ctrl_c_unwinds_as_it_always_did(path: str, start: Any, mode: str) -> None:
    child = start(mode, path)
    child.hear("held")
    child.signal(signal.SIGINT)
    assert child.status() == -signal.SIGINT
    assert "KeyboardInterrupt" in child.process.stderr.read()
    assert claims(path) == []


@pytest.mark.parametrize("mode", ["appends", "appends_in_threads", "appends_on_a_loop"])
def test_told_to_end_in_the_middle_of_anything_no_claim_is_left(
    path: str, start: Any, mode: str
) -> None:
    chance = random.Random(4)
    for _ in range(12):
        child = start(mode, path)
        child.hear("held")
        time.sleep(chance.random() / 20)  # Anywhere at all: that is the test.
        child.signal(signal.SIGTERM)
        assert child.status() == -signal.SIGTERM
        assert claims(path) == []
        assert let_in(path) == 0
    with open(path, "rb") as file:
        for line in file:
            json.loads(line)


def test_a_write_that_ends_soon_is_waited_for(path: str, start: Any) -> None:
    child = start("writes_while_it_dies", path, "soon")
    child.hear("held")
    child.signal(signal.SIGTERM)
    assert child.status() == -signal.SIGTERM
    assert claims(path) == []


def test_a_write_that_does_not_end_keeps_its_claim_and_delays_nothing(
    path: str, start: Any
) -> None:
    child = start("writes_while_it_dies", path, "never")
    child.hear("held")
    child.signal(signal.SIGTERM)
    assert child.status() == -signal.SIGTERM
    assert claims(path) == ["s.jsonl.lock"]
    assert let_in(path) == 1


# -------------------------------------------------------------- whose signals they are


@pytest.mark.parametrize(
    ("mode", "words"),
    [("handles", "handled"), ("handles_later", "handled"), ("on_a_loop_that_handles", "")],
)
def test_a_program_that_handles_the_signal_itself_is_left_alone(
    path: str, start: Any, mode: str, words: str
) -> None:
    child = start(mode, path)
    child.hear("held")
    if mode == "handles_later":
        child.hear("ready")
    child.signal(signal.SIGTERM)
    if words:
        child.hear(words)
    child.hear("went")
    assert child.status() == 0
    assert claims(path) == []


def test_a_signal_that_is_ignored_stays_ignored(path: str, start: Any) -> None:
    child = start("pauses_with_ignored_sighup", path)
    child.hear("held")
    child.signal(signal.SIGHUP)
    child.go()
    child.hear("went")
    assert child.status() == 0


def test_process_1_of_a_container_goes_on_as_it_always_did(path: str, start: Any) -> None:
    """For it the default is to ignore; a handler would make it lose its lock and live on."""
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "-pf", "true"], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("no pid namespace may be made here")
    child = start("pauses_with_default_sigint", path, before=("unshare", "-pf", "--kill-child"))
    child.hear("held")
    with open(f"/proc/{child.pid}/task/{child.pid}/children") as file:
        inside = int(file.read())
    with open(f"/proc/{inside}/status") as file:
        caught = next(line for line in file if line.startswith("SigCgt"))
    assert int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1) == 0
    assert claims(path) == ["s.jsonl.lock"]


# ------------------------------------------------------------------------------- forks


@pytest.mark.parametrize(
    ("end", "status"), [("exit", 0), ("signal", -signal.SIGTERM), ("own", -signal.SIGTERM)]
)
def test_the_end_of_a_forked_child_takes_nothing_from_its_parent(
    path: str, start: Any, end: str, status: int
) -> None:
    parent = start("forks", path, end)
    parent.hear("held")
    assert parent.hear("child") == [str(int(status))]
    assert claims(path) == ["s.jsonl.lock"]
    with pytest.raises(LockWaitError):
        WriteLock(path, timeout_s=0).acquire_sync()
    parent.go()
    parent.hear("went")
    assert claims(path) == []


def test_a_child_forked_behind_pythons_back_takes_nothing_either(path: str, start: Any) -> None:
    parent = start("forks_in_c", path)
    parent.hear("held")
    parent.hear("child")
    assert claims(path) == ["s.jsonl.lock"]
    with pytest.raises(LockWaitError):
        WriteLock(path, timeout_s=0).acquire_sync()
    parent.go()
    parent.hear("went")


def test_a_descriptor_that_a_child_has_keeps_no_lock_that_was_released(
    path: str, start: Any
) -> None:
    parent = start("gives_its_descriptor_away", path)
    parent.hear("held")
    child = int(parent.hear("child")[0])
    with pytest.raises(LockWaitError):
        WriteLock(path, timeout_s=0).acquire_sync()
    parent.go()
    parent.hear("released")
    assert let_in(path) == 0
    os.kill(child, signal.SIGKILL)


def test_a_lock_that_lives_on_in_a_childs_descriptor_is_reported_not_broken(
    path: str, start: Any
) -> None:
    parent = start("gives_its_descriptor_away", path)
    parent.hear("held")
    child = int(parent.hear("child")[0])
    parent.signal(signal.SIGKILL)
    parent.status()
    with pytest.raises(LockWaitError) as caught:
        WriteLock(path, timeout_s=0.3).acquire_sync()
    assert getattr(caught.value, "row", None) == "@K"
    os.kill(child, signal.SIGKILL)
    assert let_in(path) == 1
