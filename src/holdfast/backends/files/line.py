"""
The line in front of a transcript's gate, inside this process.

One FIFO per resolved path, for all threads and event loops.  Only its head goes to the
gate; the others sleep without polling.  Ownership moves in `leave`, before the next one is
woken: whoever is next in line never finds the place taken by somebody who came later.

Who may touch: `_lines` and `_inodes` under `_mutex` only.  Nothing is called under it.
A path whose line is empty is forgotten.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from holdfast.errors import DeadlockError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Place",
    "forget_inode",
    "join",
    "join_empty",
    "leave",
    "lines",
    "note_inode",
    "refuse_deadlock",
]

Inode = tuple[int, int]


class Place:
    """One waiter, later perhaps the head.  Belongs to the task, or thread, that made it."""

    __slots__ = ("blocking", "granted", "task", "thread", "wake")

    def __init__(self, *, blocking: bool) -> None:
        self.blocking = blocking  #: It waits by blocking its thread.
        self.thread = threading.get_ident()
        self.task = _running_task()
        self.granted = False
        self.wake: Callable[[], None] | None = None  #: Must not block.  Set before `join`.

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


def join_empty(path: str, place: Place) -> bool:
    """Be the head if nobody is there.  False: somebody is, and we are not in line."""
    with _mutex:
        if path in _lines:
            return False
        _lines[path] = deque((place,))
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
    with _mutex:
        line = _lines.get(path)
        if line is None:
            _lines[path] = deque((place,))
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

    A successor that cannot be woken any more (its loop is closed) is left out, and the
    one behind it is tried: a dead waiter never breaks the chain.
    """
    following: Place | None = place
    while following is not None:
        following = _hand_over(path, following)
        if following is None or following.wake is None:
            return
        try:
            following.wake()
        except RuntimeError:
            continue
        return


def _hand_over(path: str, place: Place) -> Place | None:
    """Take *place* out.  Returns the new head, if *place* was the head and had a successor."""
    with _mutex:
        line = _lines.get(path)
        if line is None or place not in line:
            return None
        was_head = line[0] is place
        line.remove(place)
        if not line:
            del _lines[path]
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
    """Two names of one file have two lines; the latch is one.  Raises DeadlockError."""
    with _mutex:
        holder = _inodes.get(inode)
    if holder is not None and place.would_wait_for_itself(holder):
        raise DeadlockError(what=f"the write lock of {path}")


def lines() -> dict[str, int]:
    """How many are in each line, the head included."""
    with _mutex:
        return {path: len(line) for path, line in _lines.items()}


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
