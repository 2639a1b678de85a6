"""
Tending the transcripts of a state directory: repair, import, delete.  Blocking; for commands.

Delete: rows first.  Once they are committed nobody finds the session any more, and the file
is moved.  A crash in between leaves a file that no session names, which `verify` calls an
orphan.  Nothing that was promised is lost in either order; in the other one, a session that
lives would be without its transcript.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from holdfast import _points
from holdfast.backends.files import fs
from holdfast.backends.files.control import queries
from holdfast.backends.files.control import tending as rows
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.backends.files.tending import importing as tending_import
from holdfast.backends.files.tending.repairing import LANE, MAX_HOLD_MS, repair_file
from holdfast.types.tending import Deleted

if TYPE_CHECKING:
    from holdfast.backends.files.lock.hold import Hold
    from holdfast.backends.files.store import FilesStore
    from holdfast.types.tending import Belonging, Imported, Repaired

__all__ = ["FilesTending", "state_of"]

DATABASE: Final = "control.db"
STATE_DEPTH: Final = 4  #: A transcript stands in agents/<id>/sessions of its store.


class FilesTending:
    """The `Tending` port on a state directory that this process has open."""

    def __init__(self, store: FilesStore) -> None:
        self._store, self._control = store, store.control
        self._state = os.path.realpath(store.where)

    def repair(self, path: str, *, timeout_s: float) -> Repaired:
        resolved = fs.table.realpath(path)
        session = None
        if resolved.startswith(self._state + os.sep):
            name = os.path.relpath(resolved, self._state)
            session = self._control.tend(lambda db: rows.owner_of(db, name))
        if session is None:
            return repair_file(path, timeout_s=timeout_s)
        session_id = session.session_id

        def look() -> Belonging:
            return self._control.tend(lambda db: rows.belonging(db, session_id))

        def book(generation: int, end: int, counts: dict[str, int]) -> int:
            return self._control.tend(
                lambda db: rows.raise_generation(db, session_id, generation, end, counts)
            )

        return repair_file(path, timeout_s=timeout_s, look=look, book=book)

    def bring(self, path: str, key: str | None) -> Imported:
        return tending_import.bring(self._control, self._state, path, key)

    def delete(self, key: str, *, purge: bool, timeout_s: float) -> Deleted:
        session = self._control.tend(lambda db: queries.session_of_key(db, key))
        path = self._store.transcripts.path(session)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(fs.table.time_ns() // 10**9))
        there = f"{session.transcript}{rows.DELETED}{stamp}-{uuid4().hex[:8]}"
        hold = None
        if os.path.lexists(path):
            hold = WriteLock(
                path,
                timeout_s=timeout_s,
                max_hold_ms=MAX_HOLD_MS,
                lane=LANE,
                session_id=session.session_id,
            ).acquire_sync()
        try:
            keys = self._control.tend(
                lambda db: rows.mark_deleted(db, session.session_id, there, purge=purge)
            )
            _points.reach("delete.marked")
            moved = None
            if hold is not None:
                moved = None if purge else os.path.join(self._state, there)
                _take_away(hold, moved)
        finally:
            if hold is not None:
                hold.release()
        turns = self._control.tend(lambda db: rows.turns_of(db, session.session_id))
        return Deleted(session.session_id, keys, turns, moved)


def _take_away(hold: Hold, moved: str | None) -> None:
    """
    Move or remove the transcript, then what stands beside it.  Needs the write lock.

    The gate goes while we are inside: whoever waits at it finds no transcript behind it.
    """
    path = hold.path
    try:
        if moved is None:
            for name in _copies(path):
                fs.table.unlink(name)
            fs.table.unlink(path)
        else:
            fs.table.rename(path, moved)
        fs.sync_dir(os.path.dirname(path))
    except OSError as error:
        # The rows are committed: the session is gone, whatever stands here.
        raise fs.store_error(error, path, "taking its file away", landed=None) from error
    for beside in (".claim", ".gate"):
        with suppress(OSError):
            fs.table.unlink(path + beside)


def _copies(path: str) -> list[str]:
    """What repairs of this transcript have kept."""
    directory, name = os.path.split(path)
    found = fs.table.listdir(directory)
    return [os.path.join(directory, each) for each in found if each.startswith(f"{name}.bak-")]


def state_of(path: str) -> str | None:
    """The state directory that the file at *path* stands in; None: in none."""
    here = os.path.dirname(fs.table.realpath(path))
    for _ in range(STATE_DEPTH):
        if os.path.isfile(os.path.join(here, DATABASE)):
            return here
        here = os.path.dirname(here)
    return None
