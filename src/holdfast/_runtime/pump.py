"""
The pump: looks at the store when something may have changed, and at least so often.

Hints make it fast; polling is the truth, twenty times a second while somebody waits.  While
nobody does, the keeper's look wakes it if there is something to find.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Pump"]

POLL_WAITING_S: Final = 0.05

_log = logging.getLogger("holdfast")


class Pump:
    """
    Loop-bound.

    Args:
        look: one look; its errors are logged and the next look comes all the same.
        waits: whether somebody waits for what a look may find.
    """

    def __init__(self, look: Callable[[], Awaitable[None]], waits: Callable[[], bool]) -> None:
        self._look, self._waits = look, waits
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._due = False  #: It was woken to look, not only to ask anew who waits.
        self._changed = asyncio.Event()  #: Set, and made anew, at each look.
        self.awaited = 0  #: Who waits in `change`.
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._pump(), name="holdfast pump")

    async def stop(self) -> None:
        """Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def wake(self) -> None:
        """Look now."""
        self._due = True
        self._wake.set()

    def attend(self) -> None:
        """Somebody waits from now on, and has looked: poll."""
        self._wake.set()

    def wake_from_thread(self) -> None:
        self._loop.call_soon_threadsafe(self.wake)

    async def change(self) -> None:
        """Until the next look; one follows soon, though what it is for was told before."""
        self.awaited += 1
        self.attend()
        try:
            await self._changed.wait()
        finally:
            self.awaited -= 1

    def _poll_s(self) -> float | None:
        return POLL_WAITING_S if self.awaited or self._waits() else None

    async def _pump(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._poll_s()):
                    await self._wake.wait()
            except TimeoutError:
                self._due = True
            self._wake.clear()
            if not self._due:
                continue
            self._due = False
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
            try:
                await self._look()
            except HoldfastError as error:
                _log.warning("the store did not serve this look: %s", error)
            except Exception:  # noqa: BLE001  A runtime that looks no more hangs.
                _log.exception("a look failed")
