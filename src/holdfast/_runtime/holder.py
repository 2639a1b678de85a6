"""
Performing what `_core.attempt` asks for: one attempt's lock, window and place in line.

One call at a time (`controller.py` sees to that); any other task may cut the call in flight
short by `end`.  After any exception from `call` the machine is settled: what it says is held
is held, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast._core.attempt import Effect, Life, Signal
from holdfast._core.fence import Ledger
from holdfast._runtime.to_the_end import to_the_end
from holdfast._runtime.window import PromptWindow
from holdfast.errors import (
    AbortedError,
    ClaimUnknownError,
    HoldfastError,
    LockWaitError,
    TakeoverError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from holdfast.ports.attempts import AttemptFile, HeldAlone
    from holdfast.types import Advance, Change, Entry, Mark

__all__ = ["Holder"]

T = TypeVar("T")

_log = logging.getLogger("holdfast.attempt")


class Holder:
    """What one attempt holds.  Loop-bound; used once."""

    def __init__(
        self,
        file: AttemptFile,
        *,
        timeout_s: float,
        queue_timeout_s: float,
        drain: Callable[[HeldAlone], None],
    ) -> None:
        self._file, self._drain = file, drain
        self.timeout_s, self.queue_timeout_s = timeout_s, queue_timeout_s
        self.life = Life()
        self.held: HeldAlone | None = None
        self.borrowed: HeldAlone | None = None
        self.mark: Mark | None = None
        self.own = Ledger()  #: What we have written behind the mark.
        self.foreign: list[Entry] = []  #: What others appended since the mark was left.
        self.foreign_count = 0
        self.before: list[Entry] = []  #: The same, as of when the window was opened.
        self.leaks = 0
        self.ended_by: str | None = None
        self.takeover_error: TakeoverError | None = None  #: For good.
        self._window: PromptWindow | None = None
        self._flights: set[asyncio.Task[Any]] = set()
        self._cause: BaseException | None = None  # The first; what follows is an echo.
        self._late: LockWaitError | None = None
        self._detail = ""

    # -------------------------------------------------------------------------- calls

    async def call(self, signal: Signal) -> None:
        """Take the step that *signal* asks for.  Raises the first cause, if it failed."""
        self._cause = None
        await self._settle(self.life.receive(signal))
        if self._cause is not None:
            raise self._cause

    def end(self, reason: str) -> None:
        """No step begins any more; the one in flight is cut short.  Idempotent."""
        if self.ended_by is None:
            self.ended_by = reason
        for flight in self._flights:
            flight.cancel()

    async def dispose(self) -> None:
        """Give everything back.  Idempotent; never raises; nothing in it waits."""
        await self._settle(self.life.dispose())

    async def borrow(self) -> HeldAlone:
        """
        The lock, for one write while it is away; compared, and not yet marked anew.

        Raises:
            LockWaitError, StoreError: nothing is held, nothing was lost.
            TakeoverError: the transcript was rewritten; for good.
        """
        cancelled: list[BaseException] = []
        held, failure = await self._guarded(self._borrow(), cancelled.append)
        if cancelled and held is not None:
            self.give_back(held)
        if cancelled:
            raise cancelled[0]
        if isinstance(failure, asyncio.CancelledError):
            raise self._ended()
        if failure is not None:
            raise failure
        assert held is not None
        return held

    async def _borrow(self) -> HeldAlone:
        held = await self._file.acquire(self.timeout_s)
        try:
            assert self.mark is not None
            if self.note(await held.advance(self.mark, self.own)) == "rewritten":
                raise self.takeover()
        except BaseException:
            held.release()
            raise
        self.borrowed = held
        return held

    def give_back(self, held: HeldAlone) -> None:
        """End a `borrow`: what was written meanwhile is ours, and moves the mark."""
        self.borrowed = None
        try:
            if self.ended_by is None:
                self._leave_mark(held)
        except HoldfastError as echo:  # The old mark stays, with the ledger beside it.
            _log.info("%s: not marked anew: %s", self._file.path, echo)
        finally:
            held.release()

    def wrote(self, batch: Iterable[Entry]) -> None:
        """Entries of ours that stand behind the mark."""
        self.own.add(batch)

    def _leave_mark(self, held: HeldAlone) -> None:
        self.mark = held.mark()
        self.own = Ledger()

    def news(self) -> tuple[Entry, ...]:
        """What others have appended and nobody was told of yet."""
        told, self.foreign = tuple(self.foreign), []
        return told

    def note(self, change: Change) -> Advance:
        self.foreign.extend(change.entries)
        self.foreign_count += len(change.entries)
        self._detail = change.detail
        return change.kind

    # --------------------------------------------------------------- the window's port

    def take_mark(self) -> None:
        assert self.held is not None
        self._leave_mark(self.held)
        self.before, self.foreign = self.foreign, []

    def release(self) -> None:
        held, self.held = self.held, None
        if held is not None:
            held.release()

    async def acquire(self) -> None:
        try:
            self.held = await self._file.acquire(self.timeout_s)
        except LockWaitError as error:
            self._late = error
            raise

    async def compare(self) -> Advance:
        assert self.held is not None
        assert self.mark is not None
        return self.note(await self.held.advance(self.mark, self.own))

    def takeover(self) -> TakeoverError:
        self.takeover_error = TakeoverError(path=self._file.path, detail=self._detail)
        return self.takeover_error

    async def keep(self) -> None:
        """The whole deadline is over: the caller keeps its reply, and may come back."""
        assert self._late is not None
        raise self._late

    def report_leak(self) -> None:
        self.leaks += 1
        _log.error("%s: our claim could not be removed", self._file.path)

    # ------------------------------------------------------------------------ effects

    async def _settle(self, effects: tuple[Effect, ...]) -> None:
        while effects:
            signal = None
            for effect in effects:
                signal = await self._perform(effect)
            if signal is None:
                return
            effects = self.life.receive(signal)

    async def _perform(self, effect: Effect) -> Signal | None:
        match effect:
            case Effect.VACATE:
                self._file.vacate()
                return None
            case Effect.REPORT_LEAK:
                self.report_leak()
                return None
        try:
            return await self._answer(effect)
        except ClaimUnknownError as error:
            self._blame(error)
            return Signal.UNKNOWN
        except BaseException as error:  # noqa: BLE001  `call` raises the first cause.
            self._blame(error)
            return Signal.BAD

    async def _answer(self, effect: Effect) -> Signal:
        match effect:
            case Effect.ACQUIRE:  # In the caller's own task: it may be its own deadlock.
                self.held = await self._file.acquire(self.timeout_s)
            case Effect.RELEASE:
                self.release()
            case Effect.JOIN if not self._file.join():
                return Signal.BUSY
            case Effect.WAIT:
                await self._fly(self._file.wait(self.queue_timeout_s))
            case Effect.OPEN:
                await self._open()
            case Effect.CLOSE:
                return await self._close()
        return Signal.OK

    async def _open(self) -> None:
        assert self.held is not None
        self._window = PromptWindow(self)
        try:
            self._drain(self.held)  # Before the mark, which would take it for a stranger's.
            await self._window.open()
        except BaseException:
            await self._window.leave()
            raise

    async def _close(self) -> Signal:
        assert self._window is not None
        try:
            await self._fly(self._window.close())
        except (LockWaitError, AbortedError, asyncio.CancelledError) as error:
            self._blame(error)
            self._window = PromptWindow(self, opened=True)  # As it stood; the mark stays.
            return Signal.LATE
        try:
            assert self.held is not None
            self._drain(self.held)
        except BaseException as error:  # noqa: BLE001  The lock is ours all the same.
            self._blame(error)
        return Signal.OK

    async def _fly(self, work: Coroutine[Any, Any, T]) -> T:
        """Await *work* to its end; it may be cut short by us, our caller, or `end`."""
        if self.ended_by is not None:
            work.close()
            raise self._ended()
        result, failure = await self._guarded(work, self._blame)
        if failure is None:
            return result  # type: ignore[return-value]
        if isinstance(failure, asyncio.CancelledError) and self._cause is None:
            raise self._ended()
        raise failure

    async def _guarded(
        self, work: Coroutine[Any, Any, T], cancelled: Callable[[BaseException], None]
    ) -> tuple[T | None, BaseException | None]:
        flights: list[asyncio.Task[Any]] = []

        def started(flight: asyncio.Task[Any]) -> None:
            flights.append(flight)
            self._flights.add(flight)

        try:
            return await to_the_end(work, cancelled=cancelled, started=started)
        finally:
            self._flights.difference_update(flights)

    def _ended(self) -> AbortedError:
        return AbortedError(path=self._file.path, reason=self.ended_by or "disposed")

    def _blame(self, error: BaseException) -> None:
        if self._cause is None:
            self._cause = error
        elif error is not self._cause:
            _log.info("%s: an echo: %s", self._file.path, error)
