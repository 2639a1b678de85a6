"""SQLite's failures, as ours.  By result code, never by text."""

from __future__ import annotations

import sqlite3

from holdfast.errors import DiskFullError, ReadOnlyError, StoreError, UnavailableError

__all__ = ["translated"]


def translated(error: sqlite3.Error, path: str, *, landed: bool | None = False) -> StoreError:
    """
    The typed error for *error*.

    Args:
        landed: what is known of the write: False = it did not happen, None = unknown.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    detail = f"the control store failed: {error}"
    if code == sqlite3.SQLITE_FULL:
        return DiskFullError(path=path, detail=detail)
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
        return ReadOnlyError(path=path, detail=detail)
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return StoreError(
            path=path, detail=detail, hint="restore the state directory from a backup"
        )
    return UnavailableError(path=path, detail=detail, landed=landed)
