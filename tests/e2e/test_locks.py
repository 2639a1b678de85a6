"""`holdfast locks` and `GET /v1/locks`: who has which write lock, and what a waiter would get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.backends.files import identity
from holdfast.backends.files.lock import witness
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.cli import main
from support.serving import Served

WITHIN_S = 30.0
LOCK_CHILD = Path(__file__).parent / "_lock_child.py"
FIELDS = {"path", "holder", "age_ms", "reasons", "verdict", "row"}
MINUTES = 60_000

Out = pytest.CaptureFixture[str]


@pytest.fixture
async def state(tmp_path: Path) -> Path:
    where = tmp_path / "state"
    async with holdfast.open(where):
        pass
    (where / "agents" / "main" / "sessions").mkdir(parents=True)
    return where


@pytest.fixture
def path(state: Path) -> Path:
    found = state / "agents" / "main" / "sessions" / "s.jsonl"
    with WriteLock(found):
        pass
    return found


@contextmanager
def child(what: str, path: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(LOCK_CHILD), what, str(path), *more],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def stand(path: Path, **fields: Any) -> None:
    Path(f"{path}.lock").write_text(json.dumps(fields))


def shown(path: Path | str, out: Out) -> dict[str, Any]:
    out.readouterr()
    assert main(["locks", "show", str(path), "--json"]) == 0
    (lock,) = json.loads(out.readouterr().out)["locks"]
    assert lock.keys() >= FIELDS
    assert lock["holder"].keys() >= {"pid", "host", "run_id", "lane"}
    return dict(lock)


def until(true: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.02)


def everything(where: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        str(each): (each.read_bytes(), each.stat().st_mtime_ns, each.stat().st_ino)
        for each in sorted(where.rglob("*"))
        if each.is_file()
    }


def test_nobody_has_a_lock(state: Path, path: Path, capsys: Out) -> None:
    assert main(["locks", "list", "--store", str(state), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"locks": []}
    assert main(["locks", "show", str(path)]) == 0
    assert "nobody has its write lock" in capsys.readouterr().out


def test_a_live_holder_is_named_and_a_waiter_waits(
    state: Path, path: Path, capsys: Out
) -> None:
    with child("hold", path) as holder:
        before = everything(state)
        lock = shown(path, capsys)
        assert (lock["verdict"], lock["row"]) == ("wait", "@G")
        assert lock["holder"] == {
            "pid": holder.pid, "host": os.uname().nodename, "run_id": "child", "lane": "user",
            "stopped": False,
        }  # fmt: skip
        assert lock["latch"] == {"state": "held", "pids": [holder.pid]}
        assert 0 <= lock["age_ms"] < WITHIN_S * 1000
        assert main(["locks", "list", "--store", str(state), "--json"]) == 0
        (listed,) = json.loads(capsys.readouterr().out)["locks"]
        assert listed | {"age_ms": 0} == lock | {"age_ms": 0}
        assert main(["locks", "list", "--store", str(state)]) == 0
        assert f"pid {holder.pid}" in capsys.readouterr().out
        assert everything(state) == before, "looking has changed something"


def test_a_lock_is_shown_by_any_name_of_its_transcript(path: Path, capsys: Out) -> None:
    alias = path.parent / "alias.jsonl"
    alias.symlink_to(path)
    with child("hold", path):
        assert shown(alias, capsys)["path"] == str(path)


def test_who_waits_at_the_gate_is_counted(path: Path, capsys: Out) -> None:
    with child("hold", path), child("queue", path, "a"), child("queue", path, "b"):
        until(lambda: shown(path, capsys)["waiting"] == 2)


def test_looking_does_not_stand_in_the_way(path: Path, capsys: Out) -> None:
    """A lock is taken and given back, again and again, while somebody looks."""
    over = threading.Event()

    def work() -> None:
        for _ in range(300):
            with WriteLock(path, timeout_s=WITHIN_S) as held:
                held.append(b"{}\n", sync=False)
        over.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not over.is_set():
        assert main(["locks", "show", str(path), "--json"]) == 0
    thread.join()
    assert path.read_bytes() == b"{}\n" * 300


def test_a_claim_of_ours_that_nobody_latches_is_replaced(path: Path, capsys: Out) -> None:
    with child("hold", path) as holder:
        holder.kill()
        holder.wait()
        lock = shown(path, capsys)
        assert (lock["verdict"], lock["row"]) == ("reclaim", "@L")
        assert lock["holder"]["pid"] == holder.pid
        assert lock["latch"] == {"state": "free", "pids": []}
        assert "replaces it" in lock["outlook"]
    WriteLock(path, timeout_s=1.0).acquire_sync().release()


def test_a_live_stranger_that_overstays_is_reported_never_removed(
    path: Path, capsys: Out
) -> None:
    me = identity.me()
    stand(path, pid=me.pid, createdAt="2020-01-01T00:00:00Z", maxHoldMs=1, starttime=me.start)
    lock = shown(path, capsys)
    assert (lock["verdict"], lock["row"]) == ("report", "@H")
    assert "hold_exceeded" in lock["reasons"]
    assert lock["promised_ms"] == 1
    assert "LockStaleError" in lock["outlook"]
    assert lock["age_ms"] > 30 * MINUTES


@pytest.mark.skipif(not witness.sees_everybody(), reason="no death is proven from here")
def test_a_dead_stranger_is_replaced(path: Path, capsys: Out) -> None:
    stand(path, pid=2**22 + 1, createdAt="2020-01-01T00:00:00Z", maxHoldMs=1, starttime=1)
    lock = shown(path, capsys)
    assert (lock["verdict"], lock["row"]) == ("reclaim", "@D")


def test_a_latch_without_its_claim_is_a_lock_too(state: Path, path: Path, capsys: Out) -> None:
    with child("hold", path) as holder:
        Path(f"{path}.lock").unlink()
        lock = shown(path, capsys)
        assert (lock["verdict"], lock["row"], lock["claim"]) == ("wait", None, None)
        assert lock["holder"]["pid"] == holder.pid
        assert main(["locks", "list", "--store", str(state), "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["locks"]) == 1


def test_a_lock_without_its_transcript_is_listed(state: Path, path: Path, capsys: Out) -> None:
    stand(path, pid=os.getpid(), createdAt="2020-01-01T00:00:00Z")
    path.unlink()
    assert main(["locks", "list", "--store", str(state), "--json"]) == 0
    (lock,) = json.loads(capsys.readouterr().out)["locks"]
    assert lock["path"] == str(path)


@pytest.mark.parametrize("what", ["nothing", "directory"])
def test_what_is_no_transcript_is_refused(what: str, tmp_path: Path, capsys: Out) -> None:
    where = tmp_path if what == "directory" else tmp_path / "nothing.jsonl"
    code = main(["locks", "show", str(where)])
    assert code == (3 if what == "directory" else 2)
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.glob("*.gate"))


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, capsys: Out) -> None:
    assert main(["locks", "list", "--store", str(tmp_path / "no")]) == 2
    assert "no such store" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_the_server_tells_the_same(state: Path, path: Path, capsys: Out) -> None:
    with Served(state) as served, child("hold", path) as holder:
        with served.client() as http:
            told = http.get("/v1/locks").json()["locks"]
        assert main(["locks", "list", "--store", str(state), "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)["locks"]
        assert [lock["holder"]["pid"] for lock in told] == [holder.pid]
        assert [lock | {"age_ms": 0} for lock in told] == [
            lock | {"age_ms": 0} for lock in listed
        ]
