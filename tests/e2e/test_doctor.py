"""`holdfast doctor`: what is wrong with a store; and what --fix removes, and what never."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.backends.files import identity
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.cli import main
from support.crowd import Member
from support.serving import Served

LOCK_CHILD = Path(__file__).parent / "_lock_child.py"
WITHIN_S = 30.0

Out = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def talked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("doctor") / "state"
    assert main(["send", "main", "hello there", "--store", str(state)]) == 0
    return state


@pytest.fixture
def state(talked: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(talked, tmp_path / "state"))


@pytest.fixture
def path(state: Path) -> Path:
    (found,) = state.rglob("*.jsonl")
    return found


def doctor(state: Path, out: Out, *more: str) -> tuple[int, dict[str, Any]]:
    out.readouterr()
    code = main(["doctor", "--store", str(state), "--json", *more])
    told = json.loads(out.readouterr().out)
    assert told["ok"] is (code == 0)
    return code, told


def found(told: dict[str, Any], code: str) -> dict[str, Any]:
    (one,) = [each for each in told["findings"] if each["code"] == code]
    assert one["severity"] in {"error", "warning", "info"}
    assert one["detail"]
    return dict(one)


def codes(told: dict[str, Any]) -> set[str]:
    return {each["code"] for each in told["findings"]}


def everything(where: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(each): (each.read_bytes(), each.stat().st_mtime_ns)
        for each in sorted(where.rglob("*"))
        if each.is_file()
    }


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(LOCK_CHILD), "hold", str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


def killed_with_a_lock(path: Path) -> int:
    with holding(path) as child:
        child.kill()
        child.wait()
    assert Path(f"{path}.lock").exists()
    return child.pid


def test_a_store_in_order_is_healthy_and_looking_changes_nothing(
    state: Path, capsys: Out
) -> None:
    before = everything(state)
    code, told = doctor(state, capsys)
    assert (code, codes(told)) == (0, {"medium"})
    assert main(["doctor", "--store", str(state)]) == 0
    said = capsys.readouterr().out
    assert said.endswith("\nhealthy\n")
    assert "\x1b" not in said
    assert "local" in said
    assert everything(state) == before


def test_there_is_no_store(tmp_path: Path, capsys: Out) -> None:
    assert main(["doctor", "--store", str(tmp_path / "no")]) == 2
    assert not (tmp_path / "no").exists()


# ------------------------------------------------------------------------------- locks


def test_a_dead_owners_lock_is_named_and_removed_only_with_fix(
    state: Path, path: Path, capsys: Out
) -> None:
    pid, before = killed_with_a_lock(path), path.read_bytes()
    code, told = doctor(state, capsys)
    lock = found(told, "dead_lock")
    assert (code, lock["lock"]["row"], lock["lock"]["holder"]["pid"]) == (0, "@L", pid)
    assert "--fix" in lock["hint"]
    assert Path(f"{path}.lock").exists(), "looking has removed it"

    assert main(["doctor", "--store", str(state), "--fix"]) == 0
    assert "removed" in capsys.readouterr().out
    assert not Path(f"{path}.lock").exists()
    assert path.read_bytes() == before
    assert "dead_lock" not in codes(doctor(state, capsys)[1])


def test_what_a_live_process_owns_is_never_touched(
    state: Path, path: Path, capsys: Out
) -> None:
    with holding(path) as child:
        before = Path(f"{path}.lock").read_bytes(), Path(f"{path}.lock").stat().st_ino
        code, told = doctor(state, capsys, "--fix")
        assert (code, found(told, "lock")["lock"]["holder"]["pid"]) == (0, child.pid)
        assert (Path(f"{path}.lock").read_bytes(), Path(f"{path}.lock").stat().st_ino) == before
        assert child.poll() is None
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
        assert child.stdout is not None
        assert child.stdout.readline() == "released\n"


def test_a_live_stranger_that_overstays_is_an_error_and_stays(
    state: Path, path: Path, capsys: Out
) -> None:
    me = identity.me()
    claim = {"pid": me.pid, "createdAt": "2020-01-01T00:00:00Z", "starttime": me.start}
    Path(f"{path}.lock").write_text(json.dumps({**claim, "maxHoldMs": 1000}))
    for more in ([], ["--fix"]):
        code, told = doctor(state, capsys, *more)
        assert code == 1
        stale = found(told, "stale_lock")
        assert stale["lock"]["row"] == "@H"
        assert "locks show" in stale["hint"]
    assert Path(f"{path}.lock").exists()


def test_a_dead_lock_without_its_transcript_is_told_and_makes_none(
    state: Path, path: Path, capsys: Out
) -> None:
    killed_with_a_lock(path)
    path.unlink()
    code, told = doctor(state, capsys, "--fix")
    assert not path.exists(), "--fix has made a transcript"
    assert found(told, "missing")["severity"] == "error"
    assert code == 1


# ------------------------------------------------------------------- strays, transcripts


def test_strays_are_listed_and_only_those_go_that_provably_nobody_needs(
    state: Path, path: Path, capsys: Out
) -> None:
    claim = Path(f"{path}.lock.0123456789abcdef-7")
    dead = Path(f"{path}.lock.0123456789abcdef-8.dead")
    landed, unknown = Path(f"{path}.{'a' * 32}"), Path(f"{path}.{'b' * 32}")
    for each in (claim, dead, unknown):
        each.write_text("{}")
    os.link(path, landed)
    spare, gate = Path(f"{path}.gone.jsonl.claim"), Path(f"{path}.gone.jsonl.gate")
    spare.write_text(json.dumps({"pid": os.getpid()}))
    gate.write_bytes(bytes(40))
    strays = {str(each) for each in (claim, dead, landed, unknown, spare, gate)}

    code, told = doctor(state, capsys)
    assert code == 0
    assert {each["path"] for each in told["findings"] if each["code"] == "stray"} == strays
    assert all(Path(each).exists() for each in strays)

    with holding(path):  # Whoever has the lock may have made them, a moment ago.
        doctor(state, capsys, "--fix")
        assert claim.exists()
        assert dead.exists()
    for each in (claim, dead):
        assert each.exists()
    doctor(state, capsys, "--fix")
    assert {each for each in strays if Path(each).exists()} == {
        str(unknown), str(spare), str(gate)
    }  # fmt: skip
    assert path.exists()


def test_a_torn_tail_is_a_warning_and_damage_names_the_repair(
    state: Path, path: Path, capsys: Out
) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"type": "mess')
    code, told = doctor(state, capsys)
    assert (code, found(told, "torn_tail")["severity"]) == (0, "warning")
    path.write_bytes(whole + b"nonsense\n")
    code, told = doctor(state, capsys)
    assert code == 1
    damaged = found(told, "damaged")
    assert f"holdfast sessions repair {path}" in damaged["hint"]
    assert "unparsable" in damaged["detail"]


# ------------------------------------------------------------------------- control store


def test_a_damaged_control_store_is_an_error_and_the_rest_is_still_looked_at(
    state: Path, path: Path, capsys: Out
) -> None:
    killed_with_a_lock(path)
    database = state / "control.db"
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.write(b"this is no database at all")
    code, told = doctor(state, capsys)
    assert code == 1
    assert database.stat().st_size == size
    assert {"dead_lock"} < codes(told)
    assert "backup" in json.dumps(told["findings"])


def test_a_newer_store_is_named_and_not_touched(state: Path, capsys: Out) -> None:
    with closing(sqlite3.connect(state / "control.db")) as db:
        db.execute("PRAGMA user_version = 99")
        db.execute("PRAGMA journal_mode = DELETE")
    before = everything(state)
    code, told = doctor(state, capsys)
    assert (code, "newer_schema" in codes(told)) == (1, True)
    assert everything(state) == before


READER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN"); db.execute("SELECT count(*) FROM turns").fetchone()
print("reading", flush=True); sys.stdin.readline()
"""


def test_an_open_reader_is_named_by_its_pid(state: Path, capsys: Out) -> None:
    database = str(state / "control.db")
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("INSERT INTO aliases VALUES ('agent:main:x', 'agent:main:main')")
        with subprocess.Popen(
            [sys.executable, "-c", READER, database],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as reader:  # fmt: skip
            assert reader.stdout is not None
            assert reader.stdout.readline() == "reading\n"
            told = doctor(state, capsys)[1]
            assert told["control"]["oldest_reader"]["pid"] == reader.pid
            assert told["control"]["wal_bytes"] > 0
            assert str(reader.pid) in found(told, "open_reader")["detail"]
            reader.kill()
        assert doctor(state, capsys)[1]["control"]["oldest_reader"] is None


def test_a_dead_owner_with_a_lease_and_turns_that_nobody_runs_are_told(
    state: Path, capsys: Out
) -> None:
    plan: dict[str, Any] = {"state": str(state), "kill_at": ["append.checked", 1]}
    with Member(**plan) as member:
        member.until("ready")
        member.go()
        assert member.process.wait(WITHIN_S) == -signal.SIGKILL
        told = doctor(state, capsys)[1]
        assert found(told, "dead_owner")["pid"] == member.pid
        assert told["control"]["owners"] == {"dead": 1}
    assert main(["send", "main", "later", "--no-wait", "--store", str(state)]) == 0
    assert found(doctor(state, capsys)[1], "no_runner")["agent"] == "main"


def test_a_serving_process_is_a_runner_and_in_order(state: Path, capsys: Out) -> None:
    with Served(state):
        code, told = doctor(state, capsys)
        assert code == 0
        assert told["control"]["runners"] == [
            {"agent": "main", "permanent": True, "life": "alive"}
        ]
        assert codes(told) == {"medium"}


# -------------------------------------------------------------------------- the neighbours


def test_the_founding_system_on_this_machine_is_warned_of(state: Path, capsys: Out) -> None:
    with subprocess.Popen(["openclaw-gateway", "1000"], executable=shutil.which("sleep")) as it:
        deadline_s = time.monotonic() + WITHIN_S
        while True:
            code, told = doctor(state, capsys)
            if "founding_system" in codes(told) or time.monotonic() > deadline_s:
                break
        it.kill()
    warned = found(told, "founding_system")
    assert (code, warned["severity"], warned["pid"]) == (0, "warning", it.pid)
    assert "import" in warned["hint"]


def test_its_name_in_somebody_elses_arguments_is_not_it(state: Path, capsys: Out) -> None:
    words = ["less", "a", "b", "/srv/openclaw"]
    with subprocess.Popen([*words], executable=sys.executable, stdin=subprocess.PIPE) as it:
        assert "founding_system" not in codes(doctor(state, capsys)[1])
        it.kill()


def test_the_lock_is_free_after_a_fix(state: Path, path: Path, capsys: Out) -> None:
    killed_with_a_lock(path)
    doctor(state, capsys, "--fix")
    with WriteLock(path, timeout_s=1.0) as held:
        assert held.size() > 0
