"""How its program uses an `OwnTurn`: when it did so last, and whether it still may."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from holdfast._core.handover import Facts
from holdfast._runtime.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.errors import LeaseLostError

__all__ = ["Use"]


class Use:
    """Loop-bound; every call on the turn goes through `call` or `touch`."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._since_s = self._last_s = now_s()
        self._inside = self._waits = 0
        self.progress = Progress(now_s)  #: For the keeper's thread.
        self._asked = asyncio.Event()
        self.abort: str | None = None  #: Why somebody wants the turn ended: `turns.ABORTS`.
        self.over: LeaseLostError | None = None  #: It was handed over; set once.

    def begin(self) -> None:
        """The block is entered."""
        self._since_s = self._last_s = self._now_s()
        self.progress = Progress(self._now_s)
        self.progress.used()

    def touch(self) -> None:
        """Raises LeaseLostError once the turn was handed over."""
        if self.over is not None:
            raise self.over.with_traceback(None)
        self._last_s = self._now_s()
        self.progress.used()

    @contextmanager
    def call(self) -> Iterator[None]:
        """As `touch`; and until it is left, the block is at work."""
        self.touch()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._last_s = self._now_s()
            self.progress.used()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Until it is left, the block waits for a turn that it has asked for."""
        self._waits += 1
        self.progress.waits_for_child(+1)
        try:
            yield
        finally:
            self._waits -= 1
            self._last_s = self._now_s()
            self.progress.waits_for_child(-1)

    def facts(self, *, finishing: bool) -> Facts:
        """For who asks for its session."""
        now_s = self._now_s()
        return Facts(
            own=True,
            finishing=finishing or self._inside > 0,
            waits=self._waits > 0,
            still_ms=int((now_s - self._last_s) * 1000),
            run_ms=int((now_s - self._since_s) * 1000),
        )

    def see_abort(self, reason: str) -> None:
        """Somebody wants the turn ended.  The first reason stays."""
        if self.abort is None:
            self.abort = reason
            self._asked.set()

    async def aborted(self) -> str:
        """Until then; says why."""
        await self._asked.wait()
        assert self.abort is not None
        return self.abort
