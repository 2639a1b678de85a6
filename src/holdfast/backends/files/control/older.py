"""
Reading a store of an earlier version as if it were of ours, without changing it.

Who only looks must not migrate.  So what an older store lacks stands in this connection's own
memory, in front of its tables:

    a column that came later    a view with its default, or with what its migration fills in
    a table that came later     what its migration makes of the turns that wait: these are
                                copied into a database in memory, and migrated there
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import Final

from holdfast.backends.files.control import schema

__all__ = ["shadow"]

#: (table, column) → what its migration puts there, as SQL; any other has its default.
_FILLED: Final = {
    ("turns", "accepted_ms"): (
        "CASE t.state WHEN 'accepted' THEN strftime('%s', t.accepted_at) * 1000 ELSE 0 END"
    ),
}


def shadow(db: sqlite3.Connection) -> None:
    """
    Let *db* look like a store of our version.  Writes its own memory alone: *db* keeps its
    temporary tables there.
    """
    with closing(_migrated(db)) as ours:
        for (table,) in ours.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall():
            columns = {
                row[1]: row[4] or "NULL" for row in ours.execute(f"PRAGMA table_info({table})")
            }
            theirs = _columns(db, table)
            if not theirs:
                _make(db, ours, table, list(columns))
            elif not theirs >= columns.keys():
                told = [
                    f"t.{name}"
                    if name in theirs
                    else f"{_FILLED.get((table, name), default)} AS {name}"
                    for name, default in columns.items()
                ]
                rows = f"SELECT {', '.join(told)} FROM main.{table} AS t"
                db.execute(f"CREATE TEMP VIEW {table} AS {rows}")


def _migrated(db: sqlite3.Connection) -> sqlite3.Connection:
    """A store of our version in memory, made of *db*'s waiting turns and nothing else."""
    ours = sqlite3.connect(":memory:", isolation_level=None)
    found = schema.schema_version(db)
    schema.migrate(ours, ":memory:", upto=found)
    columns = sorted(_columns(db, "turns"))
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    ours.executemany(
        f"INSERT INTO turns ({names}) VALUES ({marks})",
        db.execute(f"SELECT {names} FROM main.turns WHERE state = 'accepted'"),
    )
    schema.migrate(ours, ":memory:")
    return ours


def _make(
    db: sqlite3.Connection, ours: sqlite3.Connection, table: str, columns: list[str]
) -> None:
    db.execute(f"CREATE TEMP TABLE {table} ({', '.join(columns)})")
    marks = ", ".join("?" * len(columns))
    db.executemany(
        f"INSERT INTO temp.{table} VALUES ({marks})",
        ours.execute(f"SELECT {', '.join(columns)} FROM {table}"),
    )
    for (index,) in ours.execute(
        "SELECT sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = ? AND sql NOTNULL",
        (table,),
    ):  # Some queries name theirs.
        db.execute(re.sub(r"\bINDEX\s+", "INDEX temp.", index, count=1))


def _columns(db: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in db.execute(f"PRAGMA main.table_info({table})")}
