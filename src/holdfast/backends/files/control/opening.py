"""
Opening the control store's database: made whole by one first starter, found by the others.

A new database is made aside and published by link, already in WAL mode and with its tables.
To switch a shared file to WAL fails at once, whatever the timeout, if another process is
looking at it: SQLite does not wait where two could wait for each other.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from holdfast._stamps import uuid7
from holdfast.backends.files import fs
from holdfast.backends.files.control import lineage, schema
from holdfast.backends.files.control.checkpoints import LOG_PAGES_MAX
from holdfast.backends.files.control.entrance import inside
from holdfast.errors import StoreError

if TYPE_CHECKING:
    import sqlite3

    from holdfast.backends.files.lock.gate import Gate

__all__ = ["connect", "prepare"]

OPEN_TIMEOUT_S: Final = 10.0
MIGRATION_TIMEOUT_S: Final = 30.0


def prepare(path: str, gate: Gate) -> None:
    """
    Create or migrate the database at *path*.  One of our version waits for nobody.

    Raises:
        NewerSchemaError: it is ahead of us; nothing was touched.
        StoreError: the medium fails.
        sqlite3.Error: SQLite failed.
    """
    if not os.path.lexists(path):
        _publish(path)
    db = connect(path)
    try:
        if schema.checked_version(db, path) < schema.VERSION:
            with inside(db, gate, path, MIGRATION_TIMEOUT_S):
                schema.migrate(db, path)
                db.execute("COMMIT")
    finally:
        db.close()


def _publish(path: str) -> None:
    new = f"{path}.{uuid7()}"
    try:
        # Private from its first byte; SQLite would ask the umask.
        fs.close_fd(fs.open_fd(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        db = connect(new)
        try:
            db.execute("BEGIN IMMEDIATE")
            schema.migrate(db, new)
            db.execute("COMMIT")
        finally:
            db.close()  # The last one out leaves no `-wal` behind: the file is whole.
        with suppress(FileExistsError):  # Another first starter was faster.
            fs.table.link(new, path)
        fs.sync_dir(os.path.dirname(path))
    except OSError as error:
        raise fs.store_error(error, path, "creating the control store") from error
    finally:
        fs.remove_own(new)


def connect(path: str, *, reading: bool = False) -> sqlite3.Connection:
    """
    A connection with our modes set, and read back.

    Raises:
        ForkedError: this is a forked child, and its parent had the database open.
        sqlite3.Error, StoreError: the medium fails.
    """
    # Whoever closes last holds SQLite's exclusive lock for a moment, outside the gate; to
    # open is to wait for that.  From then on the deadlines are ours.
    db = lineage.connect(
        path, timeout=OPEN_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    # The answer must be read: a failing switch raises only when its row is fetched, and the
    # database would silently stay in another mode.
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        db.close()
        raise StoreError(path=path, detail=f"journal mode is {mode}, not wal")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA busy_timeout = 0")
    db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES_MAX}")
    if reading:
        db.execute("PRAGMA query_only = ON")
    return db
