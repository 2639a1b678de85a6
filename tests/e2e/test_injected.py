"""
Real processes whose system calls fail: the disk that is full, the medium that errs, the write
that is short, and the death between any two calls.  Where strace is; else skipped.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import holdfast
from holdfast.testing import ScriptedModel
from support import oracle
from support.strace import calls_of, inject, needs_strace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHILD = os.path.join(os.path.dirname(__file__), "_injected_child.py")
HEADER = b'{"type":"session"}\n'


@pytest.fixture
def traced() -> None:
    needs_strace()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "s.jsonl"
    made.write_bytes(HEADER)
    return made


def appends(path: Path, count: int) -> list[str]:
    return [CHILD, "append", str(path), str(path.with_name("notes")), str(count)]


def notes(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines()]


def numbers(path: Path) -> list[int]:
    """Of the lines that stand, each of which must be whole."""
    data = path.read_bytes()
    assert data.startswith(HEADER)
    assert data.endswith(b"\n")
    return [json.loads(line)["n"] for line in data.splitlines()[1:]]


def the_next_one_gets_in(path: Path) -> None:
    before = numbers(path)
    with holdfast.WriteLock(path, timeout_s=0) as hold:
        hold.append(b'{"n":99}\n', sync=True)
    assert numbers(path) == [*before, 99]
    assert not [name for name in os.listdir(path.parent) if name.endswith(".lock")]


# --------------------------------------------------------------------- calls that fail


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("which", [1, 2, 3])
def test_a_sync_that_fails_is_told_as_unknown(path: Path, tmp_path: Path, which: int) -> None:
    inject(tmp_path / "log", f"fdatasync:error=EIO:when={which}", [path], appends(path, 3))
    told = notes(tmp_path / "notes")
    assert [note for note in told if "error" in note] == [
        {"n": which - 1, "error": "UnavailableError", "landed": None}
    ]
    assert numbers(path) == [0, 1, 2], "a failed sync is no reason to write twice, or to cut"
    the_next_one_gets_in(path)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("errno", "error"), [("ENOSPC", "DiskFullError"), ("EDQUOT", "DiskFullError"),
                         ("EIO", "UnavailableError"), ("EROFS", "ReadOnlyError")],
)  # fmt: skip
def test_a_write_that_fails_writes_nothing_and_says_why(
    path: Path, tmp_path: Path, errno: str, error: str
) -> None:
    inject(tmp_path / "log", f"write:error={errno}:when=2", [path], appends(path, 3))
    assert [n for n in notes(tmp_path / "notes") if "error" in n] == [
        {"n": 1, "error": error, "landed": False}
    ]
    assert numbers(path) == [0, 2]
    the_next_one_gets_in(path)


@pytest.mark.usefixtures("traced")
def test_a_write_that_says_it_was_short_is_cut_back(path: Path, tmp_path: Path) -> None:
    inject(tmp_path / "log", "write:retval=7:when=2", [path], appends(path, 3))
    assert [n for n in notes(tmp_path / "notes") if "error" in n] == [
        {"n": 1, "error": "DiskFullError", "landed": False}
    ]
    assert numbers(path) == [0, 2]
    the_next_one_gets_in(path)


def test_a_write_that_is_short_is_cut_back(path: Path, tmp_path: Path) -> None:
    """The kernel itself writes only a part: the file may not grow beyond a limit."""
    path.write_bytes(HEADER + b'{"n":-1,"pad":"%s"}\n' % (b"x" * 4000))
    room = path.stat().st_size + 90  # One line of about 60 bytes, and half of another.
    done = subprocess.run(
        [sys.executable, *appends(path, 2)],
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    assert done.returncode == 0
    told = notes(tmp_path / "notes")
    assert told[0] == {"n": 0}
    assert told[1] == {"n": 1, "error": "DiskFullError", "landed": False}
    assert numbers(path) == [-1, 0], "half a line was left"
    the_next_one_gets_in(path)


# ---------------------------------------------------------------------- death at each call


@pytest.mark.usefixtures("traced")
def test_killed_before_any_call_of_an_append_the_next_one_gets_in(tmp_path: Path) -> None:
    def fresh(name: str) -> tuple[Path, list[Path]]:
        directory = tmp_path / name
        directory.mkdir()
        path = directory / "s.jsonl"
        path.write_bytes(HEADER)
        return path, [
            path,
            *(path.with_name(path.name + e) for e in (".lock", ".gate", ".claim")),
        ]

    path, watched = fresh("counted")
    calls = calls_of(tmp_path / "log", watched, appends(path, 1))
    points = [call for call in calls if call[0] not in {"execve", "readlink"}]
    assert {"flock", "link", "write", "fdatasync", "unlink"} <= {name for name, _ in points}
    assert 20 <= len(points) <= 80
    torn_off = 0
    for name, number in points:
        where = f"{name}-{number}"
        path, watched = fresh(where)
        inject(tmp_path / "log", f"{name}:signal=KILL:when={number}", watched, appends(path, 1))
        told = [note["n"] for note in notes(path.with_name("notes"))]
        stands = numbers(path)
        assert stands in (told, [*told, len(told)]), f"{where}: told {told}, stands {stands}"
        torn_off += stands != told
        the_next_one_gets_in(path)
    assert torn_off, "nobody was killed between its write and its answer"


def spread(points: list[Any], count: int) -> list[Any]:
    """*count* of them, evenly."""
    return [points[position * len(points) // count] for position in range(count)]


def watched_in(state: Path) -> Iterator[Path]:
    """What strace can name before it is there: the control store's files."""
    for name in ("control.db", "control.db-wal", "control.gate", "control.wake"):
        yield state / name


@pytest.mark.usefixtures("traced")
async def test_killed_before_a_call_of_its_turn_the_message_is_answered_once(
    tmp_path: Path,
) -> None:
    """Two dozen deaths, spread over all calls that a turn makes about the control store."""
    counted = tmp_path / "counted"
    calls = await asyncio.to_thread(
        calls_of, tmp_path / "log", list(watched_in(counted)), turn(counted)
    )
    writes = [
        c for c in calls if c[0] in {"pwrite64", "fdatasync", "fcntl", "openat", "ftruncate"}
    ]
    assert len(writes) >= 60
    accepted = 0
    for name, number in spread(writes[:-4], 24):
        state = tmp_path / f"{name}-{number}"
        await asyncio.to_thread(
            kill_or_finish, tmp_path / "log", f"{name}:signal=KILL:when={number}", state
        )
        accepted += bool(notes(state.with_name(state.name + ".notes")))
        await check_survivor(state)
    assert 3 <= accepted < 24, "the deaths were not spread over the turn"


def turn(state: Path) -> list[str]:
    return [CHILD, "turn", str(state), str(state) + ".notes"]


def kill_or_finish(log: Path, what: str, state: Path) -> None:
    """How often a call is made depends on the moment: the last ones may not be reached."""
    try:
        inject(log, what, list(watched_in(state)), turn(state))
    except AssertionError:
        told = notes(state.with_name(state.name + ".notes"))
        assert told, "it was neither killed nor did it finish"
        assert told[-1].get("kind") == "replied", told


async def check_survivor(state: Path) -> None:
    """Who comes afterwards, and sends the same again, sees one message and one reply."""
    told = notes(state.with_name(state.name + ".notes"))
    async with holdfast.open(state, agent=ScriptedModel()) as hf:
        receipt = await hf.submit("main", "hello", idempotency_key="m-1")
        outcome = await receipt.outcome(30)
        assert outcome.kind == "replied"
        assert len(await hf.store.control.turns()) == 1
    for note in told:
        assert note.get("accepted", receipt.turn_id) == receipt.turn_id, "accepted, and gone"
        assert note.get("text", outcome.text) == outcome.text, "another reply than was told"
    entries = oracle.read(oracle.only_transcript(state))
    oracle.check_whole(entries)
    assert oracle.check_answers(entries) == {"hello": outcome.text}
    assert len(oracle.finals(entries)) == 1


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("which", [1, 2, 3, 4, 5])
async def test_a_control_store_whose_sync_fails_loses_no_message(
    tmp_path: Path, which: int
) -> None:
    """EIO from the log's sync: whatever the sender was told, the next process agrees."""
    state = tmp_path / "state"
    await asyncio.to_thread(
        inject,
        tmp_path / "log",
        f"fdatasync:error=EIO:when={which}",
        [state / "control.db-wal"],
        turn(state),
    )
    await check_survivor(state)
