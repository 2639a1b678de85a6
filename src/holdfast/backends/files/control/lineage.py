"""
Which databases this process has open; and which of them a forked child must not touch.

SQLite keeps, per process, what it knows of the locks on each database file.  A forked child
inherits that knowledge without the locks.  A connection that it then opens itself believes
that it holds what only its parent holds, so the parent may delete the write-ahead log under
it: the child's COMMITs succeed and are gone (measured: an accepted message, lost).  Nothing a
library can do makes SQLite forget; so a child is refused every database that was open in its
parent at the fork, and is told to start anew.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from holdfast.errors import ForkedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["START_ANEW", "connect", "refuse_inherited"]

START_ANEW = (
    "open your own in a process that was started, not forked (multiprocessing: spawn), or"
    " fork before anything is open"
)

Inode = tuple[int, int]

# Who may touch: under `_guard` only.  Re-entrant, because a signal handler may fork while its
# own thread is inside.
_guard = threading.RLock()
_open: Counter[Inode] = Counter()
_inherited: set[Inode] = set()


class _Connection(sqlite3.Connection):
    """A connection that is counted until it is closed."""

    inode: Inode | None = None

    def close(self) -> None:
        super().close()
        with _guard:
            inode, self.inode = self.inode, None
            if inode is not None:
                _open[inode] -= 1


def connect(path: str, where: str | None = None, **options: Any) -> sqlite3.Connection:
    """
    Open the database at *path*.

    Args:
        where: how it is spelled for SQLite, if not as *path*: a URI.
        options: as of `sqlite3.connect`.

    Raises:
        ForkedError: a forked child, and its parent had it open.
        sqlite3.Error: SQLite failed.
    """
    refuse_inherited(path)
    factory: Callable[..., _Connection] = _Connection
    db: _Connection = sqlite3.connect(where or path, factory=factory, **options)  # type: ignore[call-overload]
    inode = _inode(path)
    if inode is not None:
        with _guard:
            db.inode = inode
            _open[inode] += 1
    return db


def refuse_inherited(path: str) -> None:
    """Raises ForkedError if *path* was open in the parent of this forked process."""
    if _inherited and _inode(path) in _inherited:
        raise ForkedError(what=path, hint=START_ANEW)


def _inode(path: str) -> Inode | None:
    try:
        found = os.stat(path)  # Only its name; the file itself is SQLite's to open.
    except OSError:
        return None  # What is not there is nobody's; what is wrong SQLite will say.
    return found.st_dev, found.st_ino


def _after_fork_in_child() -> None:
    _inherited.update(inode for inode, count in _open.items() if count > 0)
    _open.clear()
    _guard.release()


os.register_at_fork(
    before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_after_fork_in_child
)
