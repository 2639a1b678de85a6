"""
A lone attempt on one transcript: the public, low-level heart, usable without the rest.

What it holds and how it gives everything back is the table in `_core.attempt`, performed by
`holder.py`; how a window opens and closes is `_core.window`.  Decided here is only this:

- transitions (opening and closing windows) happen one at a time, and wait for who writes
- who writes uses the lock that is held; while it is away, borrows it for one moment, and
  compares first; what it writes moves the mark, so it is nobody's takeover
- the first cause is the one raised; what fails on the way out is an echo in the log

**Order** (never leftwards): place in the line of windows → `_turn` → write lock.  Nothing
waits for a place while it holds the lock: the lock is given back first.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from holdfast._core.attempt import HOLDS, AttemptState, Signal
from holdfast._runtime.acting import Acting
from holdfast._runtime.attempt_facts import Counted, PromptView
from holdfast._runtime.holder import Holder
from holdfast._runtime.lending import Lending
from holdfast._runtime.to_the_end import to_the_end
from holdfast.errors import (
    AbortedError,
    BadRequestError,
    DeadlockError,
    HoldfastError,
    LockWaitError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from holdfast._runtime.attempt_facts import AttemptStatistics
    from holdfast._runtime.writer import Writer
    from holdfast.ports.attempts import AttemptFile
    from holdfast.types import Entry

__all__ = ["Attempt"]

_log = logging.getLogger("holdfast.attempt")


class Attempt(Acting):
    """
    One attempt on a transcript.  Loop-bound; used once, as an `async with` block.

    The block begins with the write lock held, eagerly: nobody prepares a prompt on a history
    that is about to change.  It ends with everything given back, whatever happened in it.
    """

    def __init__(
        self, file: AttemptFile, *, timeout_s: float, queue_timeout_s: float, settle_s: float
    ) -> None:
        self._file, self._settle_s = file, settle_s
        self._counted = Counted()
        self._lending = Lending(file, self._counted, self.check)
        self._holder = Holder(
            file,
            timeout_s=timeout_s,
            queue_timeout_s=queue_timeout_s,
            drain=self._lending.drain,
        )

    @property
    def path(self) -> str:
        return self._file.path

    @property
    def state(self) -> str:
        """Where it stands in the table of `_core.attempt`, in lower case."""
        return self._holder.life.state.name.lower()

    @property
    def holding(self) -> bool:
        return self._holder.life.state in HOLDS

    async def __aenter__(self) -> Self:
        """
        Take the write lock.

        Raises:
            LockTimeoutError, LockStaleError: not within `timeout_s`.
            DeadlockError: this very task holds it.
            BadTranscriptError, StoreError: not a transcript, or its medium failed.

        Cancellation:
            Nothing stays held.
        """
        try:
            await self._holder.call(Signal.ENTER)
            self._lending.see_head(self._holder.held)
        except BaseException:
            await self._holder.dispose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.dispose()

    # ------------------------------------------------------------------------ windows

    @asynccontextmanager
    async def prompt_window(self) -> AsyncGenerator[PromptView]:
        """
        Give the write lock back while a model talks, and take it again afterwards.

        Windows of one transcript stand in line, first in, first out, among all of ours.  The
        first window of an attempt takes a place; it is kept until the attempt is over.

        Yields:
            What came in while we stood in line (`before`: build the prompt on it) and, once
            the block is over, while the model talked (`entries`).

        Raises:
            OwnerWaitError: those before ours did not end within `queue_timeout_s`.
            LockTimeoutError, LockStaleError: the lock was not had again.  Contention: the
                place and the mark are kept, and `append` tries again.
            TakeoverError: the transcript was rewritten.  For good; see `salvage`.
            AbortedError: aborted or disposed of meanwhile.
            What the block itself raised comes first, always.

        Cancellation:
            In the block: the lock is not waited for; the place is kept until `dispose`.

        Cost:
            About 150 µs for giving back and taking again, whatever the transcript's size.
        """
        began_s = monotonic()
        if self._holder.life.state is AttemptState.ADRIFT:
            await self._step(Signal.BACK)
        await self._step(Signal.PROMPT)
        opened_s = monotonic()
        self._counted.windows += 1
        self._counted.in_line_s += opened_s - began_s
        view = PromptView(before=tuple(self._holder.before))
        try:
            yield view
        except BaseException as error:
            await self._torn(error)
            raise
        finally:
            self._counted.window_s += monotonic() - opened_s
        await self._step(Signal.BACK)
        view.entries = self._holder.news()

    @asynccontextmanager
    async def idle_wait(self) -> AsyncGenerator[None]:
        """
        Give the write lock back for a wait that is no prompt, such as a compaction's.

        Takes no place in line, so it queues nobody (#86067).  Otherwise as `prompt_window`.
        """
        await self._step(Signal.REST)
        self._counted.rests += 1
        try:
            yield
        except BaseException as error:
            await self._torn(error)
            raise
        await self._step(Signal.BACK)

    # ------------------------------------------------------------------------- writes

    @asynccontextmanager
    async def locked_write(self) -> AsyncGenerator[Writer]:
        """
        The write lock for a few local writes, wherever the attempt stands.

        Held already: it is lent, and windows wait until it is back.  In a window: it is
        borrowed for the block, compared first, and what is written moves the mark.  Nested
        in the same task, it is the same writer; several tasks may write side by side.

        Raises:
            AbortedError, TakeoverError, LockLostError: this attempt may not write any more.
            LockTimeoutError, LockStaleError: contention; try again.
            StoreError: the medium failed.
        """
        async with self._lending.lend(self._holder) as writer:
            yield writer

    async def append(
        self, entries: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, final: bool = True
    ) -> list[Entry]:
        """
        Append finished entries after whatever came in between.  See `Writer.append`.

        Cancelled while it waits for the lock, it has written nothing.
        """
        async with self.locked_write() as writer:
            return writer.append(entries, final=final)

    def post(self, entry: Mapping[str, Any]) -> None:
        """
        Leave *entry* to be written when the lock is next ours, at the latest in `dispose`.

        For handlers of session events, which may not wait.  Written before a mark is left, so
        that no window takes it for a stranger's, and when a stream ends (#86572).
        """
        self.check()
        self._lending.posted.append(entry)

    async def history(self) -> tuple[Mapping[str, Any], ...]:
        """The messages of the active branch, oldest first."""
        async with self.locked_write() as writer:
            return writer.history()

    @asynccontextmanager
    async def cleanup(self) -> AsyncGenerator[Writer | None]:
        """
        As `locked_write`, for the way out: what it needs, or nothing.

        Yields None if it may not write any more, or the lock is not had within the settle
        bound: a cleanup is no reason to fail, nor to wait.
        """
        async with self._lending.cleanup(self._holder, self._settle_s) as writer:
            yield writer

    async def salvage(
        self, entries: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    ) -> list[Entry] | str:
        """
        Keep finished entries that have lost their place, after TakeoverError.

        Returns:
            The entries, as a side branch of what the transcript has become (marked
            ``salvaged``, never its leaf); or, if it is no transcript any more, the path of
            the file beside it that has them.

        Raises:
            LockWaitError, StoreError: not kept; the caller still has them.
        """
        return await self._lending.salvage(self._holder.timeout_s, entries)

    # --------------------------------------------------------------------- ways out

    def check(self) -> None:
        """
        Whether this attempt may still act: show a token, start a tool, run a hook, write.

        Raises:
            AbortedError: aborted, or disposed of.
            TakeoverError, LockLostError: as they were found; for good.
        """
        for error in (self._holder.takeover_error, self._lending.lost):
            if error is not None:
                raise error.with_traceback(None)
        if self._holder.ended_by is not None:
            raise AbortedError(path=self.path, reason=self._holder.ended_by)

    async def abort(self, reason: str = "aborted") -> bool:
        """
        End it from outside, within the settle bound.  Idempotent; never raises.

        Who has begun a `locked_write` may finish it within the bound; after it the lock is
        taken from them.  Nothing else begins any more.

        Returns:
            True: nothing is held any more.  False: a write call is under way, which nothing
            can recall; it gives the lock back when it ends, and writes no further.
        """
        return await self._over(reason, self._settle_s, flush=False)

    async def dispose(self) -> None:
        """
        Give everything back: lock, window, place.  Idempotent, from every state; never raises.

        What was posted is written first, if the lock can be had within the settle bound.

        Cancellation:
            Finishes all the same, at once; then raises.
        """
        cancelled: list[BaseException] = []
        over = self._over("disposed", self._settle_s, flush=True)
        await to_the_end(over, cancelled=cancelled.append)
        if cancelled:
            await self._over("disposed", 0, flush=False)
            raise cancelled[0]

    def statistics(self) -> AttemptStatistics:
        """What this attempt has done and waited for, so far."""
        return self._counted.frozen(
            state=self.state,
            leaks=self._holder.leaks,
            foreign=self._holder.foreign_count,
            posted=len(self._lending.posted),
            ended_by=self._holder.ended_by,
        )

    # ------------------------------------------------------------------------- inside

    async def _step(self, signal: Signal) -> None:
        """One transition of the table, when nobody writes.  Raises its first cause."""
        if self._lending.writes(asyncio.current_task()):
            raise DeadlockError(
                what=f"the write lock of {self.path}", hint="leave locked_write first"
            )
        async with self._lending.turn:
            self.check()
            if not self._holder.life.allows(signal):
                raise BadRequestError(
                    detail=f"this attempt is not to be asked now: {self.state}"
                )
            await self._lending.until_quiet(self._holder)
            try:
                await self._holder.call(signal)
            except LockWaitError:
                self._counted.late += 1
                raise
            self._lending.see_head(self._holder.held)

    async def _torn(self, cause: BaseException) -> None:
        """The block of a window raised: come back if that is quick.  Never raises."""
        self._counted.torn += 1
        if self._holder.life.state is AttemptState.WINDOW and isinstance(
            cause, asyncio.CancelledError | GeneratorExit
        ):
            await self._holder.call(Signal.DRIFT)
            return
        try:
            async with asyncio.timeout(self._settle_s):
                await self._step(Signal.BACK)
        except (HoldfastError, TimeoutError) as echo:
            _log.info("%s: after %r: %s", self.path, cause, echo)

    async def _over(self, reason: str, settle_s: float, *, flush: bool) -> bool:
        if flush and self._holder.ended_by is None:
            await self._lending.flush(self._holder, settle_s)
        self._holder.end(reason)
        released = await self._lending.force_quiet(self._holder, settle_s, reason)
        async with self._lending.turn:
            await self._holder.dispose()
        if left := len(self._lending.posted):
            _log.error("%s: %d posted entries were not written", self.path, left)
        return released
