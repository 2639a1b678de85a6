"""One file is one lock, by whatever names its writers know it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.errors import DeadlockError, LockWaitError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHILD = os.path.join(os.path.dirname(__file__), "_names_child.py")
TIMES = 120
WITHIN_S = 90.0
IMAGE_BYTES = 16 << 20


@pytest.fixture
def path(tmp_path: Path) -> str:
    where = str(tmp_path / "s.jsonl")
    WriteLock(where).acquire_sync().release()
    return where


def run_all(command: list[str]) -> str | None:
    """Why it did not work; None: it did."""
    if shutil.which(command[0]) is None:
        return f"no {command[0]} here"
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stderr.strip() or f"{command[0]} failed" if done.returncode else None


@contextmanager
def mounted(*arguments: str) -> Iterator[None]:
    """Skips, with the reason, where nothing may be mounted."""
    refusal = run_all(["mount", *arguments])
    if refusal is not None:
        pytest.skip(f"not mounted: {refusal}")
    try:
        yield
    finally:
        subprocess.run(["umount", arguments[-1]], check=True)


def together(names: list[str], transcript: str, directory: Path) -> None:
    """Processes, one a name, that start at once; none may miss or overlap another."""
    total = directory / "sum"
    total.write_text("")
    with ExitStack() as stack:
        crowd = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, CHILD, name, str(total), str(TIMES), f"p{number}"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=directory,
                )
            )
            for number, name in enumerate(names)
        ]
        for child in crowd:
            stack.callback(child.kill)
        for child in crowd:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in crowd:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in crowd:
            assert child.communicate(timeout=WITHIN_S)[0] == "done\n"
    assert int(total.read_text()) == TIMES * len(names), "two were inside at once"
    with open(transcript, "rb") as file:
        found = [json.loads(each) for each in file]
    wanted = Counter((f"p{by}", n) for by in range(len(names)) for n in range(TIMES))
    assert Counter((each["by"], each["n"]) for each in found) == wanted


def one_in_process(names: list[str]) -> None:
    for mine in names:
        with WriteLock(mine):
            for other in names:
                with pytest.raises(DeadlockError):
                    WriteLock(other, timeout_s=5).acquire_sync()


def test_links_and_relative_names_are_one_lock(path: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.symlink(path, tmp_path / "soft.jsonl")
    os.symlink("soft.jsonl", tmp_path / "softer.jsonl")
    os.link(path, tmp_path / "hard.jsonl")
    os.link(path, tmp_path / "d" / "hard.jsonl")
    names = [
        path,
        str(tmp_path / "softer.jsonl"),
        str(tmp_path / "hard.jsonl"),
        str(tmp_path / "d" / "hard.jsonl"),
        "s.jsonl",
        "d/../s.jsonl",
    ]
    together(names, path, tmp_path)


def test_a_directory_that_is_mounted_elsewhere_too_is_one_lock(
    path: str, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    with mounted("--bind", str(tmp_path), str(tmp_path / "elsewhere")):
        names = [path, str(tmp_path / "elsewhere" / "s.jsonl")]
        one_in_process(names)
        together(names * 2, path, tmp_path)


def test_a_file_that_is_mounted_elsewhere_too_is_one_lock(path: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mounted.jsonl").touch()
    with mounted("--bind", path, str(tmp_path / "d" / "mounted.jsonl")):
        names = [path, str(tmp_path / "d" / "mounted.jsonl")]
        one_in_process(names)
        together(names * 2, path, tmp_path)


def test_names_that_differ_in_case_are_one_lock_where_the_file_system_says_so(
    tmp_path: Path,
) -> None:
    image, where = tmp_path / "image", tmp_path / "folded"
    where.mkdir()
    with open(image, "wb") as file:
        file.truncate(IMAGE_BYTES)
    refusal = run_all(["mkfs.ext4", "-q", "-O", "casefold", str(image)])
    if refusal is not None:
        pytest.skip(f"no file system that folds case: {refusal}")
    with mounted("-o", "loop", str(image), str(where)):
        folds = where / "d"
        folds.mkdir()
        refusal = run_all(["chattr", "+F", str(folds)])
        if refusal is not None:
            pytest.skip(f"no directory that folds case: {refusal}")
        names = [str(folds / "s.jsonl"), str(folds / "S.jsonl"), str(folds / "s.JSONL")]
        WriteLock(names[0]).acquire_sync().release()
        one_in_process(names)
        together(names, names[0], tmp_path)


def test_names_that_differ_in_case_are_two_locks_elsewhere(path: str, tmp_path: Path) -> None:
    with WriteLock(path), WriteLock(tmp_path / "S.jsonl", timeout_s=0):
        pass


def test_a_new_name_for_a_locked_file_lets_nobody_in(path: str, tmp_path: Path) -> None:
    with WriteLock(path) as hold:
        os.link(path, tmp_path / "late.jsonl")
        os.symlink(path, tmp_path / "later.jsonl")
        for name in ("late.jsonl", "later.jsonl"):
            command = (
                "import sys\n"
                "from holdfast.backends.files.lock.write_lock import WriteLock\n"
                "from holdfast.errors import LockWaitError\n"
                "try:\n"
                "    WriteLock(sys.argv[1], timeout_s=0.1).acquire_sync()\n"
                f"except {LockWaitError.__name__}:\n"
                "    print('waits')\n"
            )
            said = subprocess.run(
                [sys.executable, "-c", command, tmp_path / name],
                check=True,
                capture_output=True,
                text=True,
            )
            assert said.stdout == "waits\n"
        hold.append(b"{}\n", sync=False)
