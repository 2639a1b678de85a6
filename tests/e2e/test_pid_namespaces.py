"""Processes that cannot see each other, at one transcript: containers that share a volume."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.backends.files.lock import witness
from holdfast.backends.files.lock.standing import judged
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.errors import LockStaleError, LockTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HERE = os.path.dirname(__file__)
PEER, WAITER = os.path.join(HERE, "_peer.py"), os.path.join(HERE, "_waiter.py")
UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def permitted() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*UNSHARE, "true"], check=False, capture_output=True)
    return tried.returncode == 0


pytestmark = pytest.mark.skipif(not permitted(), reason="no pid namespaces may be made here")
needs_all = pytest.mark.skipif(
    not witness.sees_everybody(), reason="we do not see every process ourselves"
)


class Contained:
    """A process in a pid namespace of its own, where it is number 1; or not contained."""

    def __init__(self, script: str, *words: object, inside: bool) -> None:
        argv = [*(UNSHARE if inside else []), sys.executable, script, *map(str, words)]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def hear(self) -> list[str]:
        assert self.process.stdout is not None
        said = self.process.stdout.readline().split()
        assert said, "it ended without a word"
        return said

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def end(self) -> None:
        """SIGKILL, to it and to all in its namespace, which are gone when this returns."""
        self.process.kill()
        assert self.process.stdout is not None
        self.process.stdout.read()  # Its end of the pipe is closed when it is dead.
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def run() -> Iterator[Callable[..., Contained]]:
    running: list[Contained] = []

    def begin(script: str, *words: object, inside: bool = True) -> Contained:
        running.append(Contained(script, *words, inside=inside))
        return running[-1]

    yield begin
    for contained in running:
        if contained.process.poll() is None:
            contained.end()
        for pipe in (contained.process.stdin, contained.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    where = str(tmp_path / "s.jsonl")
    WriteLock(where).acquire_sync().release()
    return where


def which(name: str) -> tuple[int, int, int]:
    """Which file it is, and what is in it; not when it was last read."""
    found = os.lstat(name)
    return found.st_ino, found.st_size, found.st_mtime_ns


def test_a_live_holder_of_ours_in_a_container_keeps_its_lock(path: str, run: Any) -> None:
    """The founding lock hands it over within 17 ms: the number means nobody outside."""
    assert run(WAITER, "hold", path, 600_000).hear() == ["held", "1"]
    before = which(path + ".lock")
    with pytest.raises(LockTimeoutError) as caught:
        WriteLock(path, timeout_s=0.3).acquire_sync()
    assert caught.value.holder.startswith("pid 1 on ")
    assert "(unknown)" in caught.value.holder, "number 1 is somebody else here"
    neighbour = run(WAITER, "take", path, 0.3)
    assert neighbour.answer()["error"] == "lock_timeout"
    assert which(path + ".lock") == before


def test_and_outside_it_keeps_it_from_who_is_inside(path: str, run: Any) -> None:
    with WriteLock(path) as hold:
        assert run(WAITER, "take", path, 0.3).answer()["error"] == "lock_timeout"
        hold.append(b"{}\n", sync=False)


@pytest.mark.parametrize("inside", [True, False], ids=["in-another", "outside"])
def test_a_dead_holder_of_ours_in_a_container_is_replaced(
    path: str, run: Any, inside: bool
) -> None:
    holder = run(WAITER, "hold", path, 600_000)
    holder.hear()
    holder.end()
    assert os.path.exists(path + ".lock")
    assert run(WAITER, "take", path, 30, inside=inside).answer()["error"] is None


def test_a_dead_holder_of_ours_outside_is_replaced_from_inside(path: str, run: Any) -> None:
    holder = run(WAITER, "hold", path, 600_000, inside=False)
    holder.hear()
    holder.end()
    assert run(WAITER, "take", path, 30).answer()["error"] is None


@needs_all
def test_a_strangers_live_claim_made_in_a_container_is_not_removed_outside(
    path: str, run: Any
) -> None:
    """It says pid 1, and that is not the pid 1 that we see; but it is found by its own."""
    stranger = run(PEER, "hold", path)
    assert stranger.hear() == ["held", "1"]
    with pytest.raises(LockTimeoutError):
        WriteLock(path, timeout_s=0.3).acquire_sync()
    found = judged(path, latched=True, stale_ms=1_800_000)
    assert found is not None
    assert (found.row, found.facts.process) == ("@G", "itself")
    with pytest.raises(LockStaleError):
        WriteLock(path, timeout_s=0.1, stale_ms=1).acquire_sync()
    assert os.path.exists(path + ".lock")

    stranger.end()
    WriteLock(path, timeout_s=30).acquire_sync().release()


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead"])
@pytest.mark.parametrize("inside", [True, False], ids=["in-another", "outside"])
def test_a_strangers_claim_made_elsewhere_is_not_removed_inside(
    path: str, run: Any, inside: bool, alive: bool
) -> None:
    """Who sees only its own namespace can't know whose pid that is: waits, then reports."""
    stranger = run(PEER, "hold", path, inside=inside)
    stranger.hear()
    if not alive:
        stranger.end()
    before = which(path + ".lock")
    assert run(WAITER, "take", path, 0.2).answer()["error"] == "lock_timeout"
    told = run(WAITER, "take", path, 0.2, 1).answer()
    assert (told["error"], told["row"]) == ("lock_stale", "@B")
    assert "unknown_namespace" in told["why"]
    assert which(path + ".lock") == before
