"""What a waiter would get for a claim that stands, and why."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from holdfast._core.staleness import REASONS
from holdfast.backends.files import fs, identity
from holdfast.backends.files.lock import standing, witness
from holdfast.backends.files.lock.standing import Judged, judged
from holdfast.backends.files.lock.write_lock import WriteLock
from support.locks import DEAD, leaving_nothing, read, stand

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ME = identity.me()
GONE = DEAD["pid"]
needs_all = pytest.mark.skipif(
    not witness.sees_everybody(),
    reason="not in the initial pid namespace, or /proc hides processes: no death is proven",
)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    with leaving_nothing(tmp_path) as where:
        WriteLock(where).acquire_sync().release()
        yield where
        if os.path.lexists(where + ".lock"):
            os.unlink(where + ".lock")


def ago(**past: float) -> str:
    return (datetime.now(UTC) - timedelta(**past)).isoformat().replace("+00:00", "Z")


def look(path: str, *, latched: bool = True, **more: Any) -> Judged:
    found = judged(path, latched=latched, stale_ms=more.pop("stale_ms", 1_800_000), **more)
    assert found is not None
    assert set(found.reasons) <= set(REASONS)
    return found


def test_where_no_claim_stands_nobody_is_judged(path: str) -> None:
    assert judged(path, latched=False, stale_ms=1) is None


# ---------------------------------------------------------------------------- strangers


@needs_all
@pytest.mark.parametrize(
    ("fields", "row", "verdict", "reason"),
    [
        ({"pid": GONE, "starttime": 1}, "@D", "reclaim", "dead_pid"),
        ({"pid": GONE}, "@D", "reclaim", "dead_pid"),
        ({"pid": ME.pid, "starttime": 1}, "@E", "reclaim", "recycled_pid"),
        ({"pid": ME.pid, "starttime": ME.start}, "@G", "wait", None),
        ({"pid": ME.pid}, "@G", "wait", "unknown_start"),
        ({"pid": ME.pid, "createdAt": ago(hours=1)}, "@F", "report", "too_old"),
        ({"pid": ME.pid, "starttime": ME.start, "createdAt": ago(seconds=2), "maxHoldMs": 1000},
         "@H", "report", "hold_exceeded"),
        ({"pid": ME.pid, "starttime": ME.start, "createdAt": ago(hours=1)},
         "@H", "report", "too_old"),
        ({"pid": GONE, "pidNamespace": 1}, "@A", "wait", "other_namespace"),
        ({"pid": GONE, "pidNamespace": 1, "createdAt": ago(hours=1)}, "@B", "report", "too_old"),
        ({"pid": GONE, "host": "another"}, "@A", "wait", "other_host"),
        ({"pid": GONE, "host": ME.host, "bootId": "an earlier"}, "@C", "reclaim", "other_boot"),
    ],
)  # fmt: skip
def test_a_strangers_claim(
    path: str, fields: dict[str, Any], row: str, verdict: str, reason: str | None
) -> None:
    stand(path, **{"createdAt": ago(seconds=0)} | fields)
    found = look(path)
    assert (found.row, found.verdict) == (row, verdict)
    assert reason in found.reasons if reason else found.reasons == ()
    assert (found.pid, found.payload) == (fields["pid"], json.loads(read(path + ".lock")))


def test_age_is_what_it_says_else_what_its_file_says(path: str) -> None:
    stand(path, pid=ME.pid, createdAt=ago(seconds=100))
    assert 100_000 <= (look(path).age_ms or 0) < 200_000
    for unsaid in ("yesterday", 7, None, ago(seconds=-1000)):
        stand(path, pid=ME.pid, createdAt=unsaid)
        os.utime(path + ".lock", (time.time() - 50,) * 2)
        assert 50_000 <= (look(path).age_ms or 0) < 100_000
    os.utime(path + ".lock", (time.time() + 1000,) * 2)
    assert look(path).age_ms is None


@pytest.mark.parametrize("promised", [0, -1, "5", True, 1.5, float("nan"), None])
def test_a_promise_that_is_none(path: str, promised: object) -> None:
    stand(path, pid=ME.pid, maxHoldMs=promised, createdAt=ago(seconds=5))
    assert look(path).promised_ms is None
    assert look(path).verdict == "wait"


@needs_all
def test_on_a_shared_file_system_no_witness_proves_death(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "_is_local", lambda _: False)
    stand(path, pid=GONE, starttime=1, host=ME.host)
    assert (look(path).row, look(path).verdict) == ("@N", "report")
    stand(path, pid=GONE, starttime=1)  # Any machine's.
    assert look(path).row == "@A"


def test_from_another_namespace_an_unnamed_pid_proves_nothing(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "sees_everybody", lambda: False)
    stand(path, pid=GONE, starttime=1, createdAt=ago(seconds=0))
    assert (look(path).row, look(path).reasons) == ("@A", ("unknown_namespace",))
    stand(path, pid=GONE, starttime=1, createdAt=ago(hours=1))
    assert (look(path).row, look(path).verdict) == ("@B", "report")
    # But it may well be alive: the very pid with the very start time is found here.
    stand(path, pid=ME.pid, starttime=ME.start, createdAt=ago(seconds=0))
    assert look(path).row == "@G"


def test_a_program_that_is_not_the_founding_one_keeps_its_claim(path: str) -> None:
    """The founding system removes live owners whose command line is not its own."""
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        _, start = identity._stat_of(f"/proc/{other.pid}/stat")
        stand(path, pid=other.pid, starttime=start)
        assert look(path).row == "@G"
        assert witness.program_of(other.pid) == "python" or "python" in (
            witness.program_of(other.pid) or ""
        )
    finally:
        other.kill()
        other.communicate()


# ------------------------------------------------------------------- claims that name nobody


@pytest.mark.parametrize("content", [b"", b"\xff{", b"[" * 60_000, b"[]", b'{"pid": "1"}'])
def test_what_names_nobody_has_a_grace_and_is_then_reported(path: str, content: bytes) -> None:
    with open(path + ".lock", "wb") as file:
        file.write(content)
    assert (look(path).row, look(path).verdict) == ("@A", "wait")
    assert "missing_pid" in look(path).reasons
    os.utime(path + ".lock", (time.time() - 10,) * 2)
    assert look(path).verdict == "wait"
    assert (look(path, grace_s=5).row, look(path, grace_s=5).verdict) == ("@J", "report")
    assert look(path, stale_ms=1000).verdict == "report", "never longer than stale_ms"
    os.utime(path + ".lock", (time.time() - 31,) * 2)
    assert look(path).verdict == "report"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda name: os.symlink("gone", name)])
def test_what_is_no_file_is_reported_and_stays(path: str, make: Any) -> None:
    name = path + ".lock"
    make(name)
    assert look(path).verdict == "wait"
    found = look(path, stale_ms=-1)
    assert (found.row, found.verdict) == ("@J", "report")
    assert os.path.lexists(name)
    if os.path.isdir(name) and not os.path.islink(name):
        os.rmdir(name)


def test_after_a_power_cut_our_empty_claim_is_replaced(path: str) -> None:
    """Claims are not synced: the name may be on the disk and the contents not."""
    os.truncate(path + ".claim", 0)
    os.link(path + ".claim", path + ".lock")
    found = look(path)
    assert (found.row, found.verdict) == ("@C", "reclaim")
    WriteLock(path, timeout_s=0).acquire_sync().release()


# ---------------------------------------------------------------------------------- ours


def test_a_holder_of_ours_as_a_reader_sees_it(path: str) -> None:
    with WriteLock(path, run_id="r1", lane="user", session_id="s1", max_hold_ms=7000):
        found = look(path, latched=False)
        assert (found.row, found.verdict, found.reasons) == ("@G", "wait", ())
        assert (found.run_id, found.lane, found.session_id) == ("r1", "user", "s1")
        assert (found.pid, found.host, found.promised_ms) == (ME.pid, ME.host, 7000)
        assert found.facts.latch == "owner"


def test_reading_takes_no_lock_and_changes_nothing(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changes(*_: Any, **__: Any) -> Any:
        pytest.fail("that changes something")

    with WriteLock(path):
        for call in ("flock", "fcntl", "write", "pwrite", "unlink", "rename", "link"):
            monkeypatch.setattr(fs.table, call, changes)
        look(path, latched=False)
        monkeypatch.undo()


@needs_all
def test_a_reader_sees_that_a_waiter_would_replace_a_dead_claim(path: str) -> None:
    stand(path, **DEAD | {"bootId": ME.boot})
    found = look(path, latched=False)
    assert (found.row, found.verdict, found.facts.latch) == ("@L", "reclaim", "free")


@needs_all
def test_a_dead_claim_under_somebody_elses_latch_is_being_replaced(path: str) -> None:
    with WriteLock(path):
        os.unlink(path + ".lock")
        whole = {"host": ME.host, "bootId": ME.boot, "pidNamespace": ME.pid_ns}
        stand(path, **DEAD | whole)
        assert (look(path, latched=False).row, look(path, latched=False).verdict) == (
            "@M",
            "wait",
        )
        stand(path, **DEAD | whole | {"bootId": "an earlier boot"})
        assert look(path, latched=False).row == "@M"


def test_our_own_leak_on_a_shared_file_system_is_ours_to_remove(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "_is_local", lambda _: False)
    mine = {"host": ME.host, "bootId": ME.boot, "pidNamespace": ME.pid_ns}
    stand(path, pid=ME.pid, starttime=ME.start, claimId="x", **mine)
    assert look(path).row == "@I"
    assert look(path, latched=False).verdict == "wait"


# -------------------------------------------------------------------------- the witnesses


def test_who_may_not_be_signalled_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(name: str, *_: Any) -> int:
        raise FileNotFoundError(2, "hidepid", name)

    def refused(*_: Any) -> None:
        raise PermissionError(1, "not yours")

    monkeypatch.setattr(fs.table, "open", hidden)
    monkeypatch.setattr(fs.table, "kill", refused)
    assert witness.process_here(1, 1) == "unsure"


@pytest.mark.parametrize("options", ["rw,hidepid=2", "rw,hidepid=invisible"])
def test_where_proc_hides_processes_only_the_true_root_sees_everybody(
    monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    real, links = fs.read_small, fs.table.readlink
    mounts = f"proc /proc proc {options} 0 0\n".encode()
    monkeypatch.setattr(
        fs, "read_small", lambda name: mounts if name.endswith("mounts") else real(name)
    )
    initial = {"/proc/self": str(ME.pid), "/proc/self/ns/user": "user:[4026531837]"}
    monkeypatch.setattr(fs.table, "readlink", lambda name: initial.get(name) or links(name))
    monkeypatch.setattr(witness, "INITIAL_PID_NAMESPACE", ME.pid_ns)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert witness.sees_everybody()
    initial["/proc/self/ns/user"] = "user:[1]"
    assert not witness.sees_everybody()
    initial["/proc/self/ns/user"] = "user:[4026531837]"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not witness.sees_everybody()
    initial["/proc/self"] = "1"
    monkeypatch.setattr(fs, "read_small", lambda _: b"proc /proc proc rw 0 0\n")
    assert not witness.sees_everybody(), "somebody else's /proc is mounted here"


def test_a_start_time_is_not_compared_across_time_namespaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = fs.table.readlink
    assert witness.process_here(ME.pid, 1) == "recycled"
    monkeypatch.setattr(
        fs.table,
        "readlink",
        lambda name: "time:[1]" if name == f"/proc/{ME.pid}/ns/time" else real(name),
    )
    assert witness.process_here(ME.pid, 1) == "unsure"


@pytest.mark.parametrize(("offset", "process"), [(b"0", "recycled"), (b"5", "unsure")])
def test_nor_with_another_users_whose_namespace_may_not_be_seen(
    monkeypatch: pytest.MonkeyPatch, offset: bytes, process: str
) -> None:
    links, real = fs.table.readlink, fs.read_small

    def refused(name: str) -> str:
        if name == f"/proc/{ME.pid}/ns/time":
            raise PermissionError(13, "not yours")
        return links(name)

    def told(name: str) -> bytes:
        if name.endswith("timens_offsets"):
            return b"0" if "self" in name else offset
        return real(name)

    monkeypatch.setattr(fs.table, "readlink", refused)
    monkeypatch.setattr(fs, "read_small", told)
    assert witness.process_here(ME.pid, 1) == process


# ------------------------------------------------------------------------ setting aside


@needs_all
def test_a_strangers_dead_claim_is_replaced_at_once(path: str) -> None:
    stand(path, pid=GONE, createdAt=ago(seconds=0), starttime=1, maxHoldMs=300_000)
    with WriteLock(path, timeout_s=5) as hold:
        hold.check()
        assert json.loads(read(path + ".lock"))["pid"] == ME.pid


@needs_all
async def test_and_so_it_is_for_a_task(path: str) -> None:
    stand(path, pid=GONE, createdAt=ago(seconds=0), starttime=1, maxHoldMs=300_000)
    async with WriteLock(path, timeout_s=5) as hold:
        hold.check()


@needs_all
@pytest.mark.parametrize("stands", [True, False], ids=["dead-claim", "no-file"])
async def test_with_no_time_to_wait_a_task_gets_what_is_free(path: str, stands: bool) -> None:
    if stands:
        stand(path, pid=GONE, starttime=1)
    else:
        os.unlink(path)
    async with WriteLock(path, timeout_s=0) as hold:
        hold.append(b"{}\n", sync=False)


@needs_all
def test_a_stranger_that_dies_while_we_wait_is_replaced(path: str) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    _, start = identity._stat_of(f"/proc/{other.pid}/stat")
    stand(path, pid=other.pid, starttime=start)
    took: list[int] = []

    def take() -> None:
        with WriteLock(path, timeout_s=60):
            took.append(json.loads(read(path + ".lock"))["pid"])

    waiter = threading.Thread(target=take)
    waiter.start()
    with open(path, "rb") as file:
        while True:  # Until it has the latch, and so has judged the claim or is about to.
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                break
            fcntl.flock(file, fcntl.LOCK_UN)
    assert json.loads(read(path + ".lock"))["pid"] == other.pid
    assert not took
    other.kill()
    other.communicate()
    waiter.join()
    assert took == [ME.pid]


def test_a_live_claim_that_came_after_judging_is_not_even_moved(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand(path, **DEAD)
    dead = standing.read_standing(path + ".lock")
    assert dead is not None
    os.unlink(path + ".lock")
    stand(path, pid=1)
    monkeypatch.setattr(fs.table, "rename", lambda *_: pytest.fail("it was moved"))
    assert not standing.set_aside(path + ".lock", dead, "c1")
    dead.close()
