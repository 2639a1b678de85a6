"""
The write lock of one transcript: who has it, and who waits, first come, first served.

Ownership moves before anybody is woken: whoever is next never finds the place taken by
somebody who came later.  Nobody polls.  Not thread-safe: see `world`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.types import OwnerId

__all__ = ["Line", "Waiter"]


class Waiter:
    """One who wants to write, later perhaps the one who may.  Made by the task that waits."""

    __slots__ = ("_granted", "_loop", "owner_id", "said", "task")

    def __init__(self, owner_id: OwnerId, said: str) -> None:
        self.owner_id = owner_id
        self.said = said  #: Who it is, in words.
        self.task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._granted: asyncio.Future[None] = self._loop.create_future()

    async def wait(self, timeout_s: float) -> None:
        """Until it is woken, for at most *timeout_s*."""
        timer = self._loop.call_later(max(timeout_s, 0), self._settle)
        try:
            await self._granted
        finally:
            timer.cancel()

    def wake(self) -> bool:
        """From any thread.  False: its loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._settle)
        except RuntimeError:
            return False
        return True

    def _settle(self) -> None:
        if not self._granted.done():
            self._granted.set_result(None)


class Line:
    """At most one has it; the others stand behind, in the order in which they came."""

    __slots__ = ("_waiting", "holder")

    def __init__(self) -> None:
        self.holder: Waiter | None = None
        self._waiting: deque[Waiter] = deque()

    def join(self, waiter: Waiter) -> bool:
        """Whether *waiter* has it at once; if not it stands in line."""
        if self.holder is None:  # Then nobody waits: see `grant`.
            self.holder = waiter
            return True
        self._waiting.append(waiter)
        return False

    def leave(self, waiter: Waiter) -> None:
        """Have it no more, or wait no more.  Idempotent.  To be followed by `grant`."""
        if self.holder is waiter:
            self.holder = None
        elif waiter in self._waiting:
            self._waiting.remove(waiter)

    def leave_all(self, owner_id: OwnerId) -> list[Waiter]:
        """As `leave`, for all that *owner_id* has or waits for.  Returns who waited."""
        if self.holder is not None and self.holder.owner_id == owner_id:
            self.holder = None
        gone = [each for each in self._waiting if each.owner_id == owner_id]
        for each in gone:
            self._waiting.remove(each)
        return gone

    def grant(self) -> Waiter | None:
        """
        Give what is free to whoever is next, in the same block under the mutex.

        Returns:
            The new holder, which must be told; None: nobody waits, or it is taken.
        """
        if self.holder is not None or not self._waiting:
            return None
        self.holder = self._waiting.popleft()
        return self.holder
