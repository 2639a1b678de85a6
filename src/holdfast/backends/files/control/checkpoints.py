"""
Checkpoints: what stands in the database's log goes into the database itself.

Left to itself SQLite does that in whoever commits when the log has got long: milliseconds,
inside the gate.  So every process that writes has a thread for it:

    so many rows changed since the last one ─▶ a PASSIVE checkpoint, outside the gate

It waits for nobody and nobody waits for it; two at a time are one.  What it has copied whole,
the next writer begins anew.  Under writers that never pause there is always a rest: where the
log has `LOG_PAGES_MAX` SQLite's own checkpoint, inside a commit, copies that rest and no more.
That is also the bound for whoever has no such thread.  Only an open reader, who lives for a
quarter of a second, lets the log grow beyond it.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from typing import TYPE_CHECKING, Final

from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LOG_PAGES_MAX", "Checkpoints"]

EVERY_ROWS: Final = 256  #: About 700 pages of admissions.
#: As SQLite has it, too: until the log is begun anew its file grows, and to sync a file that
#: grows takes longer than to sync one that is written over.
LOG_PAGES_MAX: Final = 1_000

_log = logging.getLogger("holdfast.store")


class Checkpoints:
    """
    One process's.  Its thread and its connection begin with the first checkpoint.

    Args:
        connect: a connection of its own.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._rows = 0
        self._due = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def wrote(self, rows: int) -> None:
        """So many rows were changed and committed.  Called by the one writer; never waits."""
        self._rows += rows
        if self._rows < EVERY_ROWS or self._closing:
            return
        self._rows = 0
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work, name="holdfast-checkpoints", daemon=True
            )
            self._thread.start()
        self._due.set()

    def close(self) -> None:
        """Once the writer has ended.  Blocks for at most one checkpoint.  Idempotent."""
        self._closing = True
        self._due.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        db: sqlite3.Connection | None = None
        try:
            while True:
                self._due.wait()
                self._due.clear()
                if self._closing:
                    break
                try:
                    db = self._connect() if db is None else db
                    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                except (sqlite3.Error, HoldfastError) as error:  # The log keeps it all.
                    _log.info("store: no checkpoint: %s", error)
        finally:
            if db is not None:
                db.close()
