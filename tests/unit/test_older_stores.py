"""Stores of earlier versions: read as they are, migrated in order, and newer ones met live."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

import holdfast
from holdfast._assemble_reading import open_reading
from holdfast._core.settings import LANES
from holdfast.backends.files.control import schema
from holdfast.backends.files.control.older import shadow
from holdfast.backends.files.control.opening import connect
from holdfast.testing import ScriptedModel

if TYPE_CHECKING:
    from pathlib import Path

TURN = """
INSERT INTO turns (turn_id, session_id, session_key, agent_id, lane, source, priority, policy,
                   state, text, accepted_at, token, owner_id)
  VALUES (?, ?, ?, 'main', ?, 'cli', ?, 'enqueue', ?, ?, '2026-11-20T11:02:03.456Z', ?, ?)
"""
#: Turn, session, lane, priority, state; in the order of admission.
TURNS = [
    ("t-1", "s-1", "user", 100, "accepted"),
    ("t-2", "s-1", "cron", 40, "accepted"),
    ("t-3", "s-1", "user", 100, "accepted"),
    ("t-4", "s-2", "user", 100, "running"),
    ("t-5", "s-2", "user", 100, "accepted"),
]


def store_of(version: int, state: Path) -> Path:
    """A state directory as *version* left it: turns wait, and one runs."""
    path = state / "control.db"
    with closing(connect(str(path))) as db:
        for script in schema.MIGRATIONS[:version]:
            db.executescript(script)
        for session in ("s-1", "s-2"):
            key = f"agent:main:{session}"
            db.execute(
                "INSERT INTO sessions VALUES (?, 'main', ?, 1, 3, 0, 't')",
                (session, f"agents/main/sessions/{session}.jsonl"),
            )
            db.execute("INSERT INTO keys VALUES (?, ?, 't')", (key, session))
        for turn, session, lane, priority, state_ in TURNS:
            held = (3, "o-1") if state_ == "running" else (None, None)
            db.execute(
                TURN,
                (turn, session, f"agent:main:{session}", lane, priority, state_, turn, *held),
            )
        db.execute("INSERT INTO leases VALUES ('s-2', 't-4', 3, 'o-1', 1, 0, 't')")
        db.execute("INSERT INTO slots VALUES ('t-4', 'user', 'o-1')")
        db.execute("INSERT INTO owners VALUES ('o-1', 1, 0, 'gone', 0, 'elsewhere', 0, 0, 't')")
        db.execute(
            "INSERT INTO events (at, kind, session_id, turn_id) VALUES ('t', 'lease', 's-2', 't-4')"
        )
        db.execute(f"PRAGMA user_version = {version}")
    return path


def files_of(state: Path) -> dict[str, str]:
    return {
        str(path.relative_to(state)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(state.rglob("*"))
        if path.is_file()
    }


OLDER = range(1, schema.VERSION)


@pytest.mark.parametrize("version", OLDER)
def test_whoever_only_looks_reads_an_older_store_and_leaves_every_byte(
    version: int, tmp_path: Path
) -> None:
    store_of(version, tmp_path)
    before = files_of(tmp_path)
    reading = open_reading(tmp_path)
    found = {turn.turn_id: place for turn, place in reading.turns(LANES)}
    assert list(found) == [row[0] for row in TURNS]
    sessions = {session.session_id: facts for session, facts in reading.sessions()}
    assert [sessions[s]["waiting"] for s in ("s-1", "s-2")] == [3, 1]
    assert sessions["s-2"]["running"] == "t-4"
    assert [event.kind for event in reading.events()] == ["lease"]
    session = reading.session("agent:main:s-2")
    why, _ = reading.why(session, LANES, stale_ms=1_000)
    assert why.holder is not None
    assert why.holder.turn.turn_id == "t-4"
    assert [waiting.turn.turn_id for waiting in why.waiting] == ["t-5"]
    assert reading.facts(session)["turns"] == 2
    assert files_of(tmp_path) == before


COMMANDS = [
    ["sessions", "list", "--json"],
    ["sessions", "show", "agent:main:s-2", "--json"],
    ["sessions", "verify", "--json"],
    ["turns", "list", "--json"],
    ["turns", "list", "--session", "agent:main:s-1", "--json"],
    ["locks", "list", "--json"],
    ["doctor", "--json"],
    ["why", "agent:main:s-2", "--json"],
]


@pytest.mark.parametrize("version", OLDER)
def test_every_command_that_only_looks_does(version: int, tmp_path: Path) -> None:
    store_of(version, tmp_path)
    before = files_of(tmp_path)
    plain = {n: v for n, v in os.environ.items() if not n.startswith("HOLDFAST_")}
    for words in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "holdfast", *words],
            env={**plain, "HOLDFAST_STORE": str(tmp_path)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode in {0, 1}, (words, done.stderr)
        assert "no such" not in done.stderr, (words, done.stderr)
        json.loads(done.stdout)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("version", OLDER)
def test_an_older_store_is_read_where_nothing_can_be_written(
    version: int, tmp_path: Path
) -> None:
    path = store_of(version, tmp_path)
    path.chmod(stat.S_IRUSR)
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert len(list(open_reading(tmp_path).turns(LANES))) == len(TURNS)
    finally:
        tmp_path.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("version", OLDER)
def test_what_an_older_store_looks_like_is_what_its_migration_makes(
    version: int, tmp_path: Path
) -> None:
    """The views that readers see, against the tables that a writer would have made."""
    path = store_of(version, tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA temp_store = MEMORY")
        shadow(db)
        seen = contents(db)
    with closing(connect(str(path))) as db:
        db.execute("BEGIN IMMEDIATE")
        schema.migrate(db, str(path))
        db.execute("COMMIT")
        made = contents(db)
    assert seen == made
    assert len(seen["queues"]) == 3


def contents(db: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """Every table, its columns by name."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as ours:
        schema.migrate(ours, ":memory:")
        tables = {
            name: sorted(row[1] for row in ours.execute(f"PRAGMA table_info({name})"))
            for (name,) in ours.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table'"
                " AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
        }
    return {
        name: sorted(
            db.execute(f"SELECT {', '.join(columns)} FROM {name}").fetchall(), key=repr
        )
        for name, columns in tables.items()
    }


@pytest.mark.parametrize("version", OLDER)
async def test_waiting_turns_of_an_older_store_are_answered_in_their_order(
    version: int, tmp_path: Path
) -> None:
    """And what a process that is gone had running is ended or run again, as always."""
    path = store_of(version, tmp_path)
    with closing(sqlite3.connect(path)) as db:  # No cron turn between: people's order is asked.
        db.execute("UPDATE turns SET lane = 'user', priority = 100")
        db.execute("DELETE FROM owners")
        db.commit()
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model) as hf:
        for row in TURNS:
            assert (await (await hf.receipt(row[0])).outcome(60)).kind == "replied"
    asked = [prompt.text for prompt in model.prompts]
    assert [text for text in asked if text in {"t-1", "t-2", "t-3"}] == ["t-1", "t-2", "t-3"]
    assert [text for text in asked if text in {"t-4", "t-5"}] == ["t-4", "t-5"]
