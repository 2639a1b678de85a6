"""
Who may write, and with which hold: an attempt's write lock lent out, or borrowed.

Held: it is lent, to several tasks side by side.  Away (a window is open): one borrower at a
time takes it for one moment, compares first, and moves the mark past what it wrote.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.attempt import HOLDS, AttemptState
from holdfast._runtime.writer import Writer, beside, several
from holdfast.errors import (
    AbortedError,
    BadTranscriptError,
    CoordinationError,
    HoldfastError,
    LockTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from holdfast._runtime.attempt_facts import Counted
    from holdfast._runtime.holder import Holder
    from holdfast.errors import LockLostError
    from holdfast.ports.attempts import AttemptFile, HeldAlone
    from holdfast.types import Entry

__all__ = ["Lending"]

_log = logging.getLogger("holdfast.attempt")

#: The lock is away, and there is a mark to compare with.
_AWAY: Final = frozenset(
    {
        AttemptState.WINDOW,
        AttemptState.ADRIFT,
        AttemptState.RESTING,
        AttemptState.RESTING_PLACED,
    }
)


class Lending:
    """The writers of one attempt.  Loop-bound."""

    def __init__(self, file: AttemptFile, counted: Counted, check: Callable[[], None]) -> None:
        self._file, self._path = file, file.path
        self._counted, self._check = counted, check
        self._turn = asyncio.Lock()
        #: By task; nested writes share one.  None: it waits for the lock.
        self._writers: dict[object, Writer | None] = {}
        self._borrowing = asyncio.Lock()  #: One borrower at a time.
        self._quiet = asyncio.Event()  #: Nobody writes; or it is over.
        self._quiet.set()
        self._heads: set[str] = set()  #: Leaves that a caller may have built on.
        self.posted: list[Mapping[str, Any]] = []
        self.lost: LockLostError | None = None  #: For good.
        self._forced: str | None = None  #: The lock was taken from who still wrote, and why.

    @property
    def turn(self) -> asyncio.Lock:
        """Whoever has it is in a transition: no writer begins, but while it stands in line."""
        return self._turn

    def writes(self, task: object) -> bool:
        return task in self._writers

    @asynccontextmanager
    async def lend(self, holder: Holder) -> AsyncGenerator[Writer]:
        """See `Attempt.locked_write`."""
        task = asyncio.current_task()
        if (nested := self._writers.get(task)) is not None:
            self._may_finish()
            yield nested
            return
        await self._until_writable(holder)  # What follows happens without an await.
        lent = holder.held if holder.life.state in HOLDS else None
        self._quiet.clear()
        self._writers[task] = None if lent is None else self.writer(lent)
        try:
            if lent is None:
                async with self._borrowed(holder) as writer:
                    self._writers[task] = writer
                    yield writer
            else:
                self._counted.lent += 1
                yield self.writer(lent)
        finally:
            del self._writers[task]
            if not self._writers:
                self._quiet.set()

    async def _until_writable(self, holder: Holder) -> None:
        """Wait out transitions, but not a stand in line: the lock is away meanwhile."""
        while True:
            self._check()
            state = holder.life.state
            if state is AttemptState.IN_LINE:
                return
            if state in HOLDS | _AWAY and not self._turn.locked():
                return
            if state in {AttemptState.NEW, AttemptState.GONE}:
                raise AbortedError(path=self._path, reason="nothing is held")
            async with self._turn:
                pass

    @asynccontextmanager
    async def _borrowed(self, holder: Holder) -> AsyncGenerator[Writer]:
        async with self._borrowing:
            self._check()
            held = await holder.borrow()
            self._counted.borrowed += 1
            try:
                yield self.writer(held, holder)
            finally:
                holder.give_back(held)

    async def until_quiet(self, holder: Holder) -> None:
        """Wait for who writes; bounded.  Raises LockTimeoutError; and what `check` raises."""
        if not self._writers:
            return
        try:
            async with asyncio.timeout(holder.timeout_s):
                while self._writers and holder.ended_by is None:
                    await self._quiet.wait()
        except TimeoutError as error:
            raise LockTimeoutError(
                path=self._path,
                timeout_s=holder.timeout_s,
                holder="a locked_write of this attempt",
            ) from error
        self._check()

    async def force_quiet(self, holder: Holder, settle_s: float, reason: str) -> bool:
        """
        Let who writes finish, for no longer than *settle_s*; then take the lock from them.

        Returns:
            False: a write call is under way; it gives the lock back when it ends.
        """
        released = True
        try:
            async with asyncio.timeout(settle_s):
                while self._writers:
                    await self._quiet.wait()
        except TimeoutError:
            self._forced = reason
            for held in (holder.held, holder.borrowed):
                released = (held is None or held.abort(reason)) and released
        self._quiet.set()  # A transition that waits for writers finds that it is over.
        return released

    @asynccontextmanager
    async def cleanup(self, holder: Holder, settle_s: float) -> AsyncGenerator[Writer | None]:
        """See `Attempt.cleanup`."""
        entered = self.lend(holder)
        try:
            async with asyncio.timeout(settle_s):
                writer = await entered.__aenter__()
        except (CoordinationError, TimeoutError) as echo:
            _log.info("%s: nothing to clean up with: %s", self._path, echo)
            yield None
            return
        try:
            yield writer
        finally:
            await entered.__aexit__(None, None, None)

    async def salvage(
        self, timeout_s: float, entries: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    ) -> list[Entry] | str:
        """See `Attempt.salvage`."""
        given = several(entries)
        held = await self._file.acquire(timeout_s)
        try:
            batch = beside(given, held.branch().leaf)
            held.append(batch, final=True)
        except BadTranscriptError:
            return self._file.set_aside(beside(given, None))
        finally:
            held.release()
        return batch

    async def flush(self, holder: Holder, settle_s: float) -> None:
        """On the way out: write what was posted, if the lock can be had.  Never raises."""
        if not self.posted:
            return
        try:
            async with self.cleanup(holder, settle_s) as writer:
                if writer is not None and self.posted:
                    writer.append(self.posted, final=False)
                    self.posted = []
        except HoldfastError as echo:
            _log.warning("%s: posted entries: %s", self._path, echo)

    def drain(self, held: HeldAlone) -> None:
        """Write what was posted.  Raises StoreError, LockLostError; then it stays posted."""
        if self.posted:
            self.writer(held).append(self.posted, final=False)
            self.posted = []

    def writer(self, held: HeldAlone, borrower: Holder | None = None) -> Writer:
        def wrote(batch: list[Entry]) -> None:
            self._counted.appended += len(batch)
            self._heads.add(batch[-1]["id"])
            if borrower is not None:
                borrower.wrote(batch)

        return Writer(
            held, check=self._may_finish, wrote=wrote, lost=self._lose, ours=self._heads
        )

    def _may_finish(self) -> None:
        """Who had begun to write may finish, while the settle bound lasts."""
        if self.lost is not None:
            raise self.lost.with_traceback(None)
        if self._forced is not None:
            raise AbortedError(path=self._path, reason=self._forced)

    def see_head(self, held: HeldAlone | None) -> None:
        if held is not None and (leaf := held.leaf()) is not None:
            self._heads.add(leaf)

    def _lose(self, error: LockLostError) -> None:
        self.lost = error
