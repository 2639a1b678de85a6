"""What can be known about another process, and what can't."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from holdfast.backends.files import fs, identity

ME = identity.me()


def test_this_process_is_alive() -> None:
    assert identity.facts_about(ME) == "alive"
    assert ME.pid == os.getpid()
    assert None not in (ME.start, ME.boot, ME.pid_ns, ME.host)


@pytest.mark.parametrize(
    ("other", "life"),
    [
        (replace(ME, host="elsewhere"), "unknown"),
        (replace(ME, host=None), "unknown"),
        (replace(ME, boot="another-boot"), "dead"),
        (replace(ME, boot=None), "unknown"),
        (replace(ME, boot="another-boot", host="elsewhere"), "unknown"),
        (replace(ME, pid_ns=1), "unknown"),
        (replace(ME, pid_ns=None), "unknown"),
        (replace(ME, start=1), "dead"),
        (replace(ME, start=None), "alive"),
        (replace(ME, pid=0), "unknown"),
        (replace(ME, pid=-1), "unknown"),
        (replace(ME, pid=2**22 + 1), "dead"),
    ],
)
def test_what_is_known_of(other: identity.Identity, life: str) -> None:
    assert identity.facts_about(other) == life


def test_a_process_that_is_gone_is_dead_and_so_is_its_zombie() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    _, start = identity._stat_of(f"/proc/{child.pid}/stat")
    other = replace(ME, pid=child.pid, start=start)
    assert identity.facts_about(other) == "alive"

    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # Dead, not reaped.
    assert identity._stat_of(f"/proc/{child.pid}/stat")[0] == "Z"
    assert identity.facts_about(other) == "dead"

    child.communicate()
    assert identity.facts_about(other) == "dead"


def test_a_leader_that_exited_before_its_threads_is_alive() -> None:
    code = (
        "import ctypes, threading, sys\n"
        "def go():\n"
        "    print('up', flush=True); sys.stdin.read()\n"
        "threading.Thread(target=go).start()\n"
        "ctypes.CDLL(None).syscall(60, 0)\n"  # exit(2): this thread only
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    while True:  # The leader's exit follows the line; its state is the event.
        state, start = identity._stat_of(f"/proc/{child.pid}/stat")
        if state == "Z":
            break
    assert identity.facts_about(replace(ME, pid=child.pid, start=start)) == "alive"
    child.kill()
    child.communicate()


def refuse(error: type[OSError]) -> Any:
    def call(*_: object) -> Any:
        raise error

    return call


@pytest.mark.parametrize(
    ("reading", "signalling", "life"),
    [
        (FileNotFoundError, PermissionError, "alive"),  # hidepid, and another user's
        (FileNotFoundError, ProcessLookupError, "dead"),
        (PermissionError, ProcessLookupError, "alive"),
        (InterruptedError, ProcessLookupError, "unknown"),
    ],
)
def test_a_process_that_may_not_be_looked_at(
    monkeypatch: pytest.MonkeyPatch,
    reading: type[OSError],
    signalling: type[OSError],
    life: str,
) -> None:
    monkeypatch.setattr(fs.table, "open", refuse(reading))
    monkeypatch.setattr(fs.table, "kill", refuse(signalling))
    assert identity.facts_about(replace(ME, pid=1)) == life


def test_a_claim_names_its_owner_or_nobody() -> None:
    claim = {"pid": ME.pid, "starttime": ME.start, "bootId": ME.boot, "host": ME.host}
    assert identity.owner_life(claim) == "unknown"  # No pid namespace.
    assert identity.owner_life(claim | {"pidNamespace": ME.pid_ns}) == "alive"
    assert identity.identity_of({"pid": True}) is None
    assert identity.owner_life({"pid": "1"}) == "unknown"


def test_a_forked_child_is_somebody_else() -> None:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        who = identity.me()
        os.write(write_end, f"{who.pid} {who.start}".encode())
        os._exit(0)
    os.close(write_end)
    said = os.read(read_end, 100).decode()
    os.close(read_end)
    assert said.split()[0] == str(child)
    assert said != f"{ME.pid} {ME.start}"
    os.waitpid(child, 0)


def test_a_name_with_spaces_and_brackets_does_not_shift_the_fields(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    after = " ".join(["S", *map(str, range(4, 53))])
    monkeypatch.setattr(fs, "read_small", lambda _: f"42 (a) b) (c) {after}".encode())
    assert identity._stat_of("/proc/42/stat") == ("S", 22)
