"""
The line in front of a transcript's gate, inside this process.

One FIFO per file, whatever it is called, for all threads and event loops.  Only its head
goes to the gate; the others sleep without polling.  Ownership moves in `leave`, before the
next one is woken: whoever is next in line never finds the place taken by somebody who came
later.

A line is found by a key: device and inode, as last seen; of a file that does not exist yet,
its resolved path.  The key may be out of date (the file was made, or replaced, since): then
the line moves when its head has the lock (`move`).  Until then two lines may lead to one
file: that costs order, never exclusion, which is the latch's.

Who may touch: `_lines`, `_inodes` and the keys of places under `_mutex` only.  Nothing is
called under it.  A line that is empty is forgotten.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING

from holdfast.backends.files import fs
from holdfast.errors import DeadlockError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Inode",
    "Place",
    "forget_inode",
    "inode_of",
    "join",
    "join_empty",
    "key_of",
    "leave",
    "lines",
    "move",
    "note_inode",
    "refuse_deadlock",
]

Inode = tuple[int, int]


class Place:
    """One waiter, later perhaps the head.  Belongs to the task, or thread, that made it."""

    __slots__ = ("blocking", "granted", "key", "path", "task", "thread", "wake")

    def __init__(self, *, blocking: bool, key: str | None = None) -> None:
        """
        Args:
            blocking: whether it waits by blocking its thread.
            key: of its line, see `key_of`; None: the line of the path that it joins by.
        """
        self.blocking = blocking  #: It waits by blocking its thread.
        self.thread = threading.get_ident()
        self.task = _running_task()
        self.granted = False
        self.wake: Callable[[], None] | None = None  #: Must not block.  Set before `join`.
        self.key = key
        self.path: str  #: By what name it came: set by `join`.

    def would_wait_for_itself(self, other: Place) -> bool:
        """Whether *other* cannot get any further while this one waits."""
        if self.blocking and other.thread == self.thread:
            return True
        return self.task is not None and other.task is self.task

    def disown(self) -> None:
        """It is nobody's any more: whoever waits for it waits for an append to finish."""
        self.thread, self.task = -1, None


_mutex = threading.Lock()
_lines: dict[str, deque[Place]] = {}
_inodes: dict[Inode, Place] = {}  #: Latches held by this process, whatever their name.


def inode_of(resolved: str) -> Inode | None:
    """Of the file at *resolved*; None: there is none.  One stat.  Raises OSError."""
    try:
        found = fs.table.stat(resolved)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def key_of(inode: Inode | None) -> str | None:
    """Of its line; a string, because a string keeps its hash."""
    return None if inode is None else f"{inode[0]}:{inode[1]}"


def move(place: Place, key: str) -> None:
    """The line of *place*, its head, leads to the file of *key*; move it, if that has none."""
    with _mutex:
        before = place.key
        if before is None or key in _lines or before not in _lines:
            return
        line = _lines[key] = _lines.pop(before)
        for one in line:
            one.key = key


def join_empty(path: str, place: Place) -> bool:
    """Be the head if nobody is there.  False: somebody is, and we are not in line."""
    place.path, key = path, place.key
    if key is None:
        key = place.key = path
    with _mutex:
        if key in _lines or path in _lines:
            return False
        _lines[key] = deque((place,))
        place.granted = True
        return True


def join(path: str, place: Place) -> bool:
    """
    Get in line.

    Returns:
        True: head at once.  False: `place.wake` is called when it is.

    Raises:
        DeadlockError: somebody before us can't move while we wait.  Not in line.
    """
    place.path, key = path, place.key
    if key is None:
        key = place.key = path
    with _mutex:
        if key not in _lines and path in _lines:
            key = place.key = path  # Who stands there is making the file at this moment.
        line = _lines.get(key)
        if line is None:
            _lines[key] = deque((place,))
            place.granted = True
            return True
        # A blocked thread stalls every task of its loop, not only the head.
        before = line if place.blocking else (line[0],)
        if any(place.would_wait_for_itself(other) for other in before):
            raise DeadlockError(what=f"the write lock of {path}")
        line.append(place)
        return False


def leave(path: str, place: Place) -> None:
    """
    Get out of line; a head hands over.  Idempotent.

    Args:
        path: what it was called when it joined.  Its line is known by its key.
        place: whoever leaves.

    A successor that cannot be woken any more (its loop is closed) is left out, and the
    one behind it is tried: a dead waiter never breaks the chain.
    """
    del path
    with _mutex:
        line = None if place.key is None else _lines.get(place.key)
        if line is not None and len(line) == 1 and line[0] is place:
            assert place.key is not None
            del _lines[place.key]
            return
    following: Place | None = place
    while following is not None:
        following = _hand_over(following)
        if following is None or following.wake is None:
            return
        try:
            following.wake()
        except RuntimeError:
            continue
        return


def _hand_over(place: Place) -> Place | None:
    """Take *place* out.  Returns the new head, if *place* was the head and had a successor."""
    with _mutex:
        key = place.key
        line = None if key is None else _lines.get(key)
        if key is None or line is None or place not in line:
            return None
        was_head = line[0] is place
        line.remove(place)
        if not line:
            del _lines[key]
            return None
        if not was_head:
            return None
        line[0].granted = True
        return line[0]


def note_inode(inode: Inode, place: Place) -> None:
    with _mutex:
        _inodes[inode] = place


def forget_inode(inode: Inode, place: Place) -> None:
    with _mutex:
        if _inodes.get(inode) is place:
            del _inodes[inode]


def refuse_deadlock(inode: Inode, place: Place, path: str) -> None:
    """Two lines may lead to one file for a while; the latch is one.  Raises DeadlockError."""
    with _mutex:
        holder = _inodes.get(inode)
    if holder is not None and place.would_wait_for_itself(holder):
        raise DeadlockError(what=f"the write lock of {path}")


def lines() -> dict[str, int]:
    """How many are in each line, the head included, by the name under which that one came."""
    with _mutex:
        counted: Counter[str] = Counter()
        for line in _lines.values():
            counted[line[0].path] += len(line)
        return dict(counted)


def _running_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _start_afresh() -> None:
    global _mutex  # noqa: PLW0603
    _mutex = threading.Lock()  # Another thread of the parent may have held it.
    _lines.clear()
    _inodes.clear()


os.register_at_fork(after_in_child=_start_afresh)
