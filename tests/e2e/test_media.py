"""State directories on what they should not be on; and on what can only be read."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import main
from support.crowd import Member

FUSE = Path(__file__).parents[1] / "support" / "fuse.py"
NOBODY = 65_534
WITHIN_S = 60

READING = (
    ["sessions", "list"],
    ["sessions", "show", "main"],
    ["sessions", "tail", "main"],
    ["sessions", "verify"],
    ["turns", "list"],
    ["locks", "list"],
    ["doctor"],
)

#: Makes a mount namespace of its own, and in it a directory read-only; then runs the rest.
READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 77
touch "$1/x" 2>/dev/null && exit 78
shift; exec "$@"
"""


def run(
    *words: str, ahead: tuple[str, ...] = (), **more: Any
) -> subprocess.CompletedProcess[str]:
    plain = {name: of for name, of in os.environ.items() if not name.startswith("HOLDFAST_")}
    return subprocess.run(
        [*ahead, sys.executable, "-m", "holdfast", *words],
        env=plain, capture_output=True, text=True, timeout=WITHIN_S, check=False, **more,
    )  # fmt: skip


# ------------------------------------------------------------------------ shared by many


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A FUSE file system."""
    where = tmp_path / "mounted"
    where.mkdir()
    with subprocess.Popen(
        [sys.executable, str(FUSE), str(where)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as serving:  # fmt: skip
        assert serving.stdout is not None
        if serving.stdout.readline() != "mounted\n":
            assert serving.stderr is not None
            pytest.skip(f"FUSE cannot be mounted here: {serving.stderr.read()[-200:]}")
        try:
            yield where
        finally:
            assert serving.stdin is not None
            serving.stdin.close()
            serving.wait(WITHIN_S)


def test_a_state_directory_on_fuse_is_refused_by_name(mounted: Path) -> None:
    sent = run("send", "main", "hello", "--store", str(mounted), "--json")
    assert sent.returncode == 3, sent.stderr
    error = json.loads(sent.stdout)["error"]
    assert (error["code"], error["filesystem"]) == ("shared_filesystem", "fuse.holdfasttest")
    assert "allow_shared_filesystem" in sent.stderr
    (line,) = sent.stderr.splitlines()
    assert "fuse.holdfasttest" in line
    inside = run("send", "main", "hello", "--store", str(mounted / "a" / "b"))
    assert inside.returncode == 3


# ------------------------------------------------------------------------------ read-only


def can_make_read_only(where: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(
        ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", str(where), "true"],
        capture_output=True, check=False,
    )  # fmt: skip
    return tried.returncode == 0


def read_only(where: Path) -> tuple[str, ...]:
    return ("unshare", "-m", "sh", "-c", READ_ONLY, "sh", str(where))


@pytest.fixture(params=["closed", "crashed", "crashed, its index gone"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A store with one answered turn, as its last process left it."""
    where = tmp_path / "state"
    assert main(["send", "main", "hello there", "--store", str(where)]) == 0
    if request.param != "closed":
        with Member(state=str(where), kill_at=["stream.first_text", 1]) as member:
            member.until("ready")
            member.go()
            assert member.process.wait(WITHIN_S) == -signal.SIGKILL
        assert (where / "control.db-wal").stat().st_size > 0
    if request.param == "crashed, its index gone":
        (where / "control.db-shm").unlink()
    return where


def everything(where: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(each): (each.read_bytes(), each.stat().st_mtime_ns)
        for each in sorted(where.rglob("*"))
        if each.is_file()
    }


def turns(told: str) -> int:
    return len(json.loads(told)["turns"])


def test_everything_that_only_reads_works_on_a_read_only_medium(state: Path) -> None:
    if not can_make_read_only(state):
        pytest.skip("no mount namespace can be made here")
    crashed = (state / "control.db-wal").exists()
    before = everything(state)
    for words in READING:
        read = run(*words, "--json", "--store", str(state), ahead=read_only(state))
        assert read.returncode == 0, (words, read.stdout, read.stderr)
        assert read.stdout.startswith("{")
        if words[0] == "turns":  # Not an older state: what stands in the log counts.
            assert turns(read.stdout) == 1 + crashed
        if words[0] == "doctor":
            (medium,) = [f for f in json.loads(read.stdout)["findings"] if "read_only" in f]
            assert medium["read_only"] is True
    assert everything(state) == before
    sent = run("send", "main", "hello", "--store", str(state), ahead=read_only(state))
    assert sent.returncode == 3
    assert "read-only" in sent.stderr.lower() or "cannot be written" in sent.stderr


def test_who_may_only_read_a_store_can_read_it(state: Path) -> None:
    """It is another user's, by owner and modes; and root's right to ignore that is dropped."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root, who gives its files away, and setpriv")
    for each in (state, *state.rglob("*")):
        os.chown(each, NOBODY, NOBODY)
        each.chmod(0o755 if each.is_dir() else 0o644)
    plain = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner,-chown")
    refused = subprocess.run(
        [*plain, "touch", str(state / "x")], check=False, capture_output=True
    )
    if refused.returncode == 0 or b"Permission denied" not in refused.stderr:
        pytest.skip(f"the right cannot be dropped here: {refused.stderr.decode()}")
    before = everything(state)
    for words in READING:
        read = run(*words, "--json", "--store", str(state), ahead=plain)
        assert read.returncode == 0, (words, read.stdout, read.stderr)
    assert everything(state) == before
