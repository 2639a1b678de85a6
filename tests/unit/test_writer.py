"""
The writer answers with the truth: done, not done, or unknown; and each request for itself.

Method: the real writer on a real database, with a connection whose COMMIT can be made to fail
before or after it takes effect.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from holdfast.backends.files.control.writer import Writer
from holdfast.backends.files.lock.gate import Gate
from holdfast.backends.files.wake import Wake
from holdfast.errors import DiskFullError, QueueFullError, UnavailableError

DISK_IO, FULL = sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL


class Connection:
    """A connection whose next COMMIT fails with *code*, before or after its effect."""

    def __init__(self, path: str, faults: list[tuple[int, bool]]) -> None:
        self._db = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=0
        )
        self._faults = faults

    def execute(self, sql: str, *values: Any) -> Any:
        if sql == "COMMIT" and self._faults:
            code, landed = self._faults.pop()
            if landed:
                self._db.execute(sql)
            error = sqlite3.OperationalError("injected")
            error.sqlite_errorcode = code
            raise error
        return self._db.execute(sql, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


class World:
    def __init__(self, root: Path, timeout_s: float = 10.0) -> None:
        self.path = str(root / "control.db")
        with sqlite3.connect(self.path) as db:
            db.execute("PRAGMA journal_mode = WAL").fetchone()
            db.execute("CREATE TABLE rows (id TEXT PRIMARY KEY)")
        db.close()
        self.faults: list[tuple[int, bool]] = []
        self.wake = Wake(str(root / "wake"))
        self.writer = Writer(
            self.path,
            lambda: Connection(self.path, self.faults),  # type: ignore[arg-type,return-value]
            Gate(str(root / "gate")),
            self.wake,
            timeout_s=timeout_s,
        )

    def insert(self, row: str, *, looks: bool = False) -> Any:
        def found(db: sqlite3.Connection) -> str | None:
            return (
                db.execute("SELECT id FROM rows WHERE id = ?", (row,)).fetchone() or [None]
            )[0]

        def run(db: sqlite3.Connection) -> str:
            db.execute("INSERT INTO rows VALUES (?)", (row,))
            return row

        return self.writer.submit(run, landed=found if looks else None)

    def rows(self) -> list[str]:
        db = sqlite3.connect(self.path)
        try:
            return [row[0] for row in db.execute("SELECT id FROM rows ORDER BY id")]
        finally:
            db.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.writer.close()
    made.wake.close()


def blocked(world: World) -> tuple[Any, threading.Event]:
    """Hold the writer inside a transaction, so that what follows is queued together."""
    inside, go = threading.Event(), threading.Event()

    def wait(_: sqlite3.Connection) -> None:
        inside.set()
        assert go.wait(10)

    answer = world.writer.submit(wait)
    assert inside.wait(10)
    return answer, go


def test_a_refused_request_leaves_its_neighbours_alone(world: World) -> None:
    first, go = blocked(world)

    def refused(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO rows VALUES ('never')")
        raise QueueFullError(session="s", limit=1)

    answers = [world.insert("a"), world.writer.submit(refused), world.insert("b")]
    go.set()
    first.result(10)
    assert answers[0].result(10) == "a"
    with pytest.raises(QueueFullError):
        answers[1].result(10)
    assert answers[2].result(10) == "b"
    assert world.rows() == ["a", "b"]


def test_a_bug_in_one_request_is_its_callers_alone(world: World) -> None:
    with pytest.raises(ZeroDivisionError):
        world.writer.submit(lambda _: 1 // 0).result(10)
    assert world.insert("a").result(10) == "a"


@pytest.mark.parametrize(("landed", "looks"), [(a, b) for a in (0, 1) for b in (0, 1)])
def test_a_failed_commit_is_looked_up_by_id(world: World, landed: int, looks: int) -> None:
    world.faults.append((DISK_IO, bool(landed)))
    answer = world.insert("a", looks=bool(looks))
    if looks and landed:
        assert answer.result(10) == "a"
    else:
        with pytest.raises(UnavailableError) as caught:
            answer.result(10)
        assert caught.value.landed is (False if looks else None), "two answers instead of three"
    assert world.rows() == (["a"] if landed else [])
    assert world.insert("b").result(10) == "b"


def test_a_full_disk_is_called_that(world: World) -> None:
    world.faults.append((FULL, False))
    with pytest.raises(DiskFullError):
        world.insert("a", looks=True).result(10)


def test_nobody_is_answered_before_the_commit(world: World) -> None:
    first, go = blocked(world)
    answer = world.insert("a")
    assert not answer.done()
    assert world.rows() == []
    go.set()
    first.result(10)
    answer.result(10)
    assert world.rows() == ["a"]


def test_what_is_cancelled_before_it_begins_does_not_happen(world: World) -> None:
    first, go = blocked(world)
    answer = world.insert("a")
    assert answer.cancel()
    go.set()
    first.result(10)
    world.insert("b").result(10)
    assert world.rows() == ["b"]
    with pytest.raises(CancelledError):
        answer.result(0)


def test_a_closed_writer_finishes_its_queue_and_refuses_the_rest(world: World) -> None:
    first, go = blocked(world)
    answer = world.insert("a")
    go.set()
    world.writer.close()
    first.result(0)
    assert answer.result(0) == "a"
    with pytest.raises(UnavailableError, match="closed"):
        world.insert("b").result(10)


def test_a_process_frozen_in_a_transaction_is_waited_for_named_and_survived(
    tmp_path: Path,
) -> None:
    """It cannot be fenced, only waited for; the wait is bounded and says who it waits for."""
    script = (
        "import os, signal, sys\n"
        "from holdfast import _points\n"
        "from holdfast.backends.files.control.store import FilesControl\n"
        "control = FilesControl(sys.argv[1])\n"
        "_points.install('control.begun', lambda: os.kill(os.getpid(), signal.SIGSTOP))\n"
        "control._writer.submit(lambda db: db.execute('DELETE FROM agents').rowcount).result()\n"
        "control.close_now()\n"
    )
    frozen = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    try:
        _, status = os.waitpid(frozen.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        wake = Wake(str(tmp_path / "control.wake"))
        path = str(tmp_path / "control.db")
        writer = Writer(
            path,
            lambda: sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=0
            ),
            Gate(str(tmp_path / "control.gate")),
            wake,
            timeout_s=0.3,
        )
        with pytest.raises(UnavailableError) as caught:
            writer.submit(lambda db: db.execute("DELETE FROM agents").rowcount).result(10)
        assert str(frozen.pid) in str(caught.value), "the wait does not name who it waits for"
        assert caught.value.landed is False
        os.kill(frozen.pid, signal.SIGCONT)
        assert frozen.wait(10) == 0
        assert (
            writer.submit(lambda db: db.execute("DELETE FROM agents").rowcount).result(10) == 0
        )
        writer.close()
        wake.close()
    finally:
        if frozen.poll() is None:
            frozen.kill()
            frozen.wait()
