"""Other programs at the same transcripts: good ones, dead ones, and one that removes locks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.backends.files.lock import witness
from holdfast.backends.files.lock.standing import judged
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.errors import LockLostError, LockStaleError, LockTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HERE = os.path.dirname(__file__)
PEER, PEER_NODE = os.path.join(HERE, "_peer.py"), os.path.join(HERE, "_peer.mjs")
WAITER = os.path.join(HERE, "_waiter.py")
NODE = shutil.which("node")
NOBODY, SOMEBODY = 65_534, 54_321

needs_all = pytest.mark.skipif(
    not witness.sees_everybody(),
    reason="not in the initial pid namespace, or /proc hides processes: no death is proven",
)


class Program:
    """A process at the other end of two pipes."""

    def __init__(self, argv: list[str]) -> None:
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid

    def hear(self, word: str) -> list[str]:
        said = self.line().split()
        assert said[:1] == [word], said
        return said[1:]

    def line(self) -> str:
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, "it ended without a word"
        return said

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


@pytest.fixture
def run() -> Iterator[Callable[..., Program]]:
    programs: list[Program] = []

    def begin(*argv: object) -> Program:
        words = [str(word) for word in argv]
        command = [NODE or "node"] if words[0].endswith(".mjs") else [sys.executable]
        programs.append(Program([*command, *words]))
        return programs[-1]

    yield begin
    for program in programs:
        program.end()


@pytest.fixture
def path(tmp_path: Path) -> str:
    where = str(tmp_path / "s.jsonl")
    WriteLock(where).acquire_sync().release()
    return where


def lines(path: str) -> list[dict[str, Any]]:
    """Each parses: none is torn."""
    with open(path, "rb") as file:
        raw = file.read()
    assert not raw or raw.endswith(b"\n")
    return [json.loads(line) for line in raw.splitlines()]


def entry(by: str, number: int) -> bytes:
    return json.dumps({"by": by, "n": number, "pad": "y" * 300}).encode() + b"\n"


# --------------------------------------------------------------------- the well-behaved


@pytest.mark.parametrize("language", ["node", "python"])
def test_a_program_that_creates_exclusively_and_we_write_a_thousand_whole_lines(
    path: str, run: Any, language: str
) -> None:
    if language == "node" and NODE is None:
        pytest.skip("node is not installed; the same peer in Python is tested")
    peer = run(PEER_NODE if language == "node" else PEER, "append", path, "peer", 500)
    peer.hear("ready")
    peer.go()
    lock = WriteLock(path, timeout_s=60)
    for number in range(500):
        with lock as hold:
            hold.append(entry("us", number), sync=False)
    peer.hear("done")
    found = Counter((line["by"], line["n"]) for line in lines(path))
    assert found == {(by, number): 1 for by in ("us", "peer") for number in range(500)}
    assert not os.path.exists(path + ".lock")


@needs_all
def test_a_strangers_claim_stays_while_it_lives_and_goes_when_it_is_killed(
    path: str, run: Any
) -> None:
    peer = run(PEER, "hold", path)
    peer.hear("held")
    with pytest.raises(LockTimeoutError) as caught:
        WriteLock(path, timeout_s=0.1).acquire_sync()
    assert f"pid {peer.pid} " in caught.value.holder
    assert "(alive)" in caught.value.holder
    with pytest.raises(LockStaleError) as overstayed:
        WriteLock(path, timeout_s=0.1, stale_ms=1).acquire_sync()
    assert overstayed.value.row == "@H"
    peer.end()
    WriteLock(path, timeout_s=5).acquire_sync().release()


# ------------------------------------------------------------------- the one that removes


def test_every_removal_of_our_live_claim_is_told_at_our_next_append(
    path: str, run: Any
) -> None:
    rounds = 30
    remover = run(PEER, "remove", path, rounds)
    remover.hear("ready")
    for number in range(rounds):
        with WriteLock(path, timeout_s=30) as hold:
            hold.append(entry("kept", number), sync=False)
            remover.go()
            remover.hear("removed")
            with pytest.raises(LockLostError):
                hold.append(entry("refused", number), sync=False)
    assert [line["by"] for line in lines(path)] == ["kept"] * rounds


def test_while_claims_are_removed_at_random_no_line_is_torn_and_none_is_lost(
    path: str, run: Any
) -> None:
    peer = run(PEER, "storm", path, "peer")
    peer.hear("ready")
    written, lost, number = [], 0, 0
    lock = WriteLock(path, timeout_s=60)
    while lost < 10 and number < 200_000:
        with lock as hold:
            for _ in range(20):
                number += 1
                try:
                    hold.append(entry("us", number), sync=False)
                except LockLostError:
                    lost += 1
                    break
                written.append(number)
    assert peer.process.stdin is not None
    peer.process.stdin.close()
    theirs, removed = map(int, peer.hear("done"))
    assert lost == 10
    assert removed >= lost
    found = Counter((line["by"], line["n"]) for line in lines(path))
    expected = [("us", n) for n in written] + [("peer", n) for n in range(theirs)]
    assert found == Counter(expected)


def test_an_operator_who_removes_lock_files_lets_nobody_of_ours_in(path: str, run: Any) -> None:
    with WriteLock(path, max_hold_ms=600_000) as hold:
        hold.append(b'{"n": 1}\n', sync=False)
        subprocess.run("rm *.lock", shell=True, check=True, cwd=os.path.dirname(path))
        waiter = run(WAITER, "take", path, 0.3)
        assert json.loads(waiter.line())["error"] == "lock_timeout"
        with pytest.raises(LockLostError):
            hold.append(b'{"n": 2}\n', sync=False)
    assert lines(path) == [{"n": 1}]


# ------------------------------------------------------------------- ours, dead and alive


def test_a_stopped_holder_that_promised_less_is_reported_and_not_robbed(
    path: str, run: Any
) -> None:
    holder = run(WAITER, "hold", path, 500)
    holder.hear("held")
    os.kill(holder.pid, signal.SIGSTOP)
    os.waitpid(holder.pid, os.WUNTRACED)
    stood = os.path.exists(path + ".lock")
    if not stood:
        pytest.skip("its own watchdog was faster than the stop")
    with pytest.raises(LockStaleError) as caught:
        WriteLock(path, timeout_s=600, fail_fast=True).acquire_sync()
    assert (caught.value.row, caught.value.promised_ms) == ("@H", 500)
    assert "hold_exceeded" in caught.value.reasons
    assert os.path.exists(path + ".lock")
    os.kill(holder.pid, signal.SIGCONT)


@needs_all
def test_a_lock_that_a_dead_owners_child_inherited_is_reported(path: str, run: Any) -> None:
    holder = run(WAITER, "leave", path)
    pid, child = map(int, holder.hear("held"))
    try:
        holder.process.kill()
        holder.process.wait()
        found = judged(path, latched=False, stale_ms=1_800_000)
        assert found is not None
        assert (found.row, found.verdict, found.pid) == ("@K", "report", pid)
        with pytest.raises(LockStaleError) as caught:
            WriteLock(path, timeout_s=0.2).acquire_sync()
        assert caught.value.row == "@K"
        assert {"inherited_descriptor", "dead_pid"} <= set(caught.value.reasons)
    finally:
        os.kill(child, signal.SIGKILL)
    WriteLock(path, timeout_s=30).acquire_sync().release()


@pytest.mark.parametrize("whose", ["ours", "a_strangers"])
def test_eight_who_wait_for_a_killed_holder_are_never_two_at_once(
    path: str, run: Any, whose: str
) -> None:
    """The founding lock: two holders at once in 65 of 100 such stampedes."""
    if whose == "a_strangers" and not witness.sees_everybody():
        pytest.skip("a stranger's death is only proven in the initial pid namespace")
    crowd = [run(WAITER, "race", path) for _ in range(8)]
    for waiter in crowd:
        waiter.hear("ready")
    rounds = 12
    for number in range(rounds):
        holder = (
            run(PEER, "hold", path) if whose != "ours" else run(WAITER, "hold", path, 60_000)
        )
        holder.hear("held")
        if number % 2:  # They come to a claim of a dead owner; or wait when it dies.
            holder.end()
        for waiter in crowd:
            waiter.go()
        holder.end()
        answers = [json.loads(waiter.line()) for waiter in crowd]
        assert answers == [{"alone": True}] * len(crowd)
    assert len(lines(path)) == rounds * len(crowd)


# ---------------------------------------------------------------------------- other users


def may_unshare(unshare: str) -> bool:
    return subprocess.run([unshare, "-m", "true"], check=False).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming other users takes root")
@pytest.mark.parametrize("hidden", [False, True], ids=["seen", "hidden"])
def test_the_live_claim_of_another_user_is_not_removed(hidden: bool, run: Any) -> None:
    """We may not signal it (EPERM), perhaps not even see it: it is alive all the same."""
    unshare = shutil.which("unshare")
    if hidden and (unshare is None or not may_unshare(unshare)):
        pytest.skip("no mount namespaces here")
    owner = subprocess.Popen(["sleep", "600"], user=NOBODY, group=NOBODY, extra_groups=[])
    directory = tempfile.mkdtemp(prefix="holdfast-users-")
    os.chmod(directory, 0o777)
    path = os.path.join(directory, "s.jsonl")
    try:
        claim = {"pid": owner.pid, "createdAt": "2026-01-01T00:00:00Z"}
        for name, text in (("s.jsonl", ""), ("s.jsonl.lock", json.dumps(claim))):
            with open(os.path.join(directory, name), "w") as file:
                file.write(text)
            os.chmod(os.path.join(directory, name), 0o666)
        prefix = [unshare, "-m"] if hidden else []
        argv = [*prefix, sys.executable, WAITER, "as", SOMEBODY, int(hidden), path, 0.2]
        said = subprocess.run(
            [str(word) for word in argv], check=True, capture_output=True, text=True
        ).stdout
        answer = json.loads(said)
        assert (answer["error"], answer["row"]) == ("lock_stale", "@F")
        assert os.path.exists(path + ".lock")
    finally:
        owner.kill()
        owner.wait()
        shutil.rmtree(directory)
