"""
What stands in the log goes into the database while nobody waits for it; the log has a bound.

Method: the real database.  How long its log is, SQLite says: (busy, pages in it, of those copied).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.backends.files.control import checkpoints, lineage, opening
from holdfast.backends.files.control.checkpoints import EVERY_ROWS, LOG_PAGES_MAX, Checkpoints
from holdfast.backends.files.control.writer import Writer
from holdfast.backends.files.lock.gate import Gate
from holdfast.backends.files.wake import Wake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = 4_096
WAIT_S = 30.0


class Seen(lineage._Connection):
    """A connection of the checkpoints', that says what each has come to."""

    done: threading.Semaphore
    told: list[tuple[int, int, int]]
    threads: set[str]
    gate: Gate
    fails: list[sqlite3.Error]

    def execute(self, sql: str, *values: Any) -> Any:
        if "wal_checkpoint" not in sql:
            return super().execute(sql, *values)
        assert self.gate.holder() is None, "it stands at the gate"
        try:
            if self.fails:
                raise self.fails.pop()
            row = super().execute(sql, *values).fetchone()
            self.told.append(row)
            return super().execute("SELECT 1")
        finally:
            self.threads.add(threading.current_thread().name)
            self.done.release()


class World:
    def __init__(self, root: Path) -> None:
        self.path, self.gate = str(root / "control.db"), Gate(str(root / "gate"))
        db = opening.connect(self.path)
        db.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB)")
        db.close()
        self.seen = type("Here", (Seen,), {
            "done": threading.Semaphore(0), "told": [], "threads": set(), "gate": self.gate,
            "fails": [],
        })  # fmt: skip
        self.wake = Wake(str(root / "wake"))
        self.checkpoints = Checkpoints(self._connect)
        self.writer = Writer(
            self.path, partial(opening.connect, self.path), self.gate, self.wake,
            timeout_s=WAIT_S, wrote=self.checkpoints.wrote,
        )  # fmt: skip

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, isolation_level=None, factory=self.seen)

    def insert(self, rows: int) -> None:
        self.writer.submit(
            lambda db: db.executemany("INSERT INTO rows (body) VALUES (?)", [(b"x",)] * rows)
        ).result(WAIT_S)

    def close(self) -> None:
        self.writer.close()
        self.checkpoints.close()
        self.wake.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_what_was_written_is_copied_by_a_thread_of_its_own_outside_the_gate(
    world: World,
) -> None:
    world.insert(EVERY_ROWS - 1)
    assert world.checkpoints._thread is None, "nothing to do yet"
    world.insert(1)
    assert world.seen.done.acquire(timeout=WAIT_S)
    ((busy, pages, copied),) = world.seen.told
    assert busy == 0
    assert pages == copied > 0
    assert world.seen.threads == {"holdfast-checkpoints"}
    world.insert(EVERY_ROWS)
    assert world.seen.done.acquire(timeout=WAIT_S)
    assert len(world.seen.told) == 2


def test_one_that_fails_costs_nothing_and_the_next_one_copies_it_all(world: World) -> None:
    world.seen.fails.append(sqlite3.OperationalError("disk I/O error"))
    world.insert(EVERY_ROWS)
    assert world.seen.done.acquire(timeout=WAIT_S)
    assert world.seen.told == []
    world.insert(EVERY_ROWS)
    assert world.seen.done.acquire(timeout=WAIT_S)
    ((_, pages, copied),) = world.seen.told
    assert pages == copied > 0


def test_closed_it_leaves_no_thread_no_connection_and_no_log(world: World) -> None:
    world.insert(EVERY_ROWS)
    assert world.seen.done.acquire(timeout=WAIT_S)
    thread = world.checkpoints._thread
    assert thread is not None
    world.close()
    assert not thread.is_alive()
    assert not os.path.exists(world.path + "-wal"), "somebody still has it open"
    world.checkpoints.wrote(EVERY_ROWS)
    assert world.checkpoints._thread is thread, "one that was closed begins nothing"


def filled(path: str, pages: int) -> sqlite3.Connection:
    """A connection of ours that has written so many pages, and nobody has copied them."""
    db = opening.connect(path)
    db.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, body BLOB)")
    for _ in range(0, pages, 100):
        db.execute("INSERT INTO rows (body) VALUES (zeroblob(?))", (100 * PAGE,))
    return db


def test_a_commit_copies_nothing_while_the_log_is_within_its_bound(tmp_path: Path) -> None:
    path = str(tmp_path / "control.db")
    db = filled(path, LOG_PAGES_MAX // 2)
    try:
        assert os.path.getsize(path) < 10 * PAGE
    finally:
        db.close()


def test_the_log_has_a_bound_though_nobody_else_ever_copies_it(tmp_path: Path) -> None:
    path = str(tmp_path / "control.db")
    db = filled(path, 4 * LOG_PAGES_MAX)
    try:
        log = os.path.getsize(path + "-wal")
        assert log < 1.2 * LOG_PAGES_MAX * (PAGE + 24)
    finally:
        db.close()


async def test_an_open_store_has_them(tmp_path: Path) -> None:
    import holdfast

    begun = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "EVERY_ROWS", 1)
        work = Checkpoints._work

        def noted(self: Checkpoints) -> None:
            begun.set()
            work(self)

        patch.setattr(Checkpoints, "_work", noted)
        async with holdfast.open(str(tmp_path / "state")) as hf:
            await hf.submit("main", "hello")
            assert begun.wait(WAIT_S)
    assert not [t for t in threading.enumerate() if t.name == "holdfast-checkpoints"]
