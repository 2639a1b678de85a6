"""A store of an earlier version is brought to ours when it is opened, and read as it is."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import holdfast
from holdfast._assemble_reading import open_reading
from holdfast._core.settings import LANES
from holdfast.backends.files.control import schema
from holdfast.backends.files.control.opening import connect
from holdfast.testing import ScriptedModel

KEY = "agent:main:main"
ROWS = """
INSERT INTO sessions VALUES ('s-1', 'main', 'agents/main/sessions/s-1.jsonl', 1, 0, 0, 't');
INSERT INTO keys VALUES ('agent:main:main', 's-1', 't');
INSERT INTO turns (turn_id, session_id, session_key, agent_id, lane, source, priority, policy,
                   state, text, accepted_at)
  VALUES ('t-1', 's-1', 'agent:main:main', 'main', 'user', 'cli', 100, 'enqueue',
          'accepted', 'from before', '2026-11-20T11:02:03.456Z');
PRAGMA user_version = 1;
"""


def store_of_version_1(state: Path) -> Path:
    """A state directory as the first version left it, with one turn waiting."""
    path = state / "control.db"
    with closing(connect(str(path))) as db:
        db.executescript(schema.MIGRATIONS[0])
        db.executescript(ROWS)
    return path


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_a_migration_that_was_shipped_does_not_change() -> None:
    """Stores were made with it; what it lacks comes with the next one."""
    digest = hashlib.sha256(schema.MIGRATIONS[0].encode()).hexdigest()
    assert digest.startswith("736368572f1a8dd1")


async def test_a_store_of_version_1_is_migrated_and_its_turn_is_answered(
    tmp_path: Path,
) -> None:
    path = store_of_version_1(tmp_path)
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model) as hf:
        old = await (await hf.receipt("t-1")).outcome(30)
        new = await hf.submit(
            "agent:main:other", "new", instructions="Be brief.",
            seed=[{"role": "user", "content": "earlier"}],
        )  # fmt: skip
        assert (await new.outcome(30)).kind == "replied"
    assert (old.kind, old.text) == ("replied", "reply to: from before")
    assert [(p.text, p.instructions, len(p.history)) for p in model.prompts] == [
        ("from before", None, 0),
        ("new", "Be brief.", 1),
    ]
    assert version(path) == schema.VERSION > 1


OPEN = """
import asyncio, sys, holdfast

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with holdfast.open(sys.argv[1]) as hf:
        print((await hf.store.control.turn("t-1")).text)

asyncio.run(main())
"""


def test_processes_that_open_it_at_once_migrate_it_once(tmp_path: Path) -> None:
    path = store_of_version_1(tmp_path)
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("go\n")
        opener.stdin.flush()
    said = [opener.communicate(timeout=60)[0] for opener in openers]
    assert said == ["from before\n"] * 4
    assert version(path) == schema.VERSION


def test_who_only_looks_reads_a_store_of_version_1_and_leaves_it_so(tmp_path: Path) -> None:
    path = store_of_version_1(tmp_path)
    [(turn, place)] = open_reading(tmp_path).turns(LANES)
    assert (turn.text, place.waiting_for) == ("from before", "no_runner")
    assert version(path) == 1
