"""The control store is set up as it promises, and no read lives long."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path

import pytest

import holdfast
from holdfast._stamps import uuid7
from holdfast.backends.files.control import schema
from holdfast.backends.files.control.reader import Reader
from holdfast.backends.files.control.store import FilesControl
from holdfast.errors import UnavailableError

COUNT_FOR_EVER = (
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c"
)


async def test_it_is_a_synced_write_ahead_log_of_our_version(tmp_path: Path) -> None:
    control = FilesControl(str(tmp_path))
    seen = control._look_up(
        lambda db: [db.execute(f"PRAGMA {name}").fetchone()[0]
                    for name in ("journal_mode", "synchronous", "user_version", "busy_timeout")]
    )  # fmt: skip
    await control.close()
    assert seen == ["wal", 2, schema.VERSION, 0]


async def test_the_nullable_columns_of_later_versions_are_there(tmp_path: Path) -> None:
    control = FilesControl(str(tmp_path))
    columns = control._look_up(
        lambda db: {row[1]: row[3] for row in db.execute("PRAGMA table_info(turns)")}
    )
    await control.close()
    assert {columns[name] for name in ("attachments", "approvals", "usage")} == {0}


def test_no_read_lives_longer_than_its_bound(tmp_path: Path) -> None:
    reader = Reader("db", sqlite3.connect(tmp_path / "db", check_same_thread=False))
    with pytest.raises(UnavailableError, match="interrupted"):
        reader.read(lambda db: db.execute(COUNT_FOR_EVER).fetchone())
    assert reader.read(lambda db: db.execute("SELECT 1").fetchone()) == (1,)
    reader.close()


def test_ids_are_uuids_of_version_7_in_order() -> None:
    ids = [uuid7() for _ in range(10_000)]
    assert ids == sorted(set(ids))
    assert {(uuid.UUID(i).version, uuid.UUID(i).variant) for i in ids} == {(7, uuid.RFC_4122)}


async def test_sessions_are_listed_from_either_end(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path) as hf:
        for n in range(5):
            await hf.submit(f"agent:main:s{n}", "x")
        control = hf.store.control
        oldest = [session.session_id for session, _ in await control.sessions()]
        newest = [
            session.session_id for session, _ in await control.sessions(newest_first=True)
        ]
        assert newest == oldest[::-1] == sorted(oldest, reverse=True)
        rest = await control.sessions(newest[1], newest_first=True)
        assert [session.session_id for session, _ in rest] == newest[2:]
        assert [s.session_id for s, _ in await control.sessions(oldest[1])] == oldest[2:]
