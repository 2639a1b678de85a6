"""
Perform a prompt window's effects on an event loop.

Everything about asyncio is here, everything about the protocol in `_core.window`.  The one
decision made here is how cancellation becomes an abort: it is noted at once, and acted on
when the effect in flight has been answered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from holdfast._core.window import Effect, Signal, State, Window
from holdfast.errors import LockWaitError, TakeoverError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from holdfast.types import Advance

__all__ = ["PromptWindow", "WindowPort"]


class WindowPort(Protocol):
    """What a window gives back and takes again.  Each call is bounded by its performer."""

    def take_mark(self) -> None: ...
    def release(self) -> None: ...
    async def acquire(self) -> None:
        """Raises LockWaitError when it was not had within the settle bound."""
        ...

    def compare(self) -> Advance: ...
    async def keep(self) -> None:
        """
        The lock is slow: store what is finished, and say whether to go on waiting.

        Raises whatever ends the wait: fenced, lease lost, out of time.
        """
        ...

    def report_leak(self) -> None: ...


class PromptWindow:
    """
    One window: `open`, let the model talk, `close`.  After any exception nothing is held.
    """

    def __init__(self, port: WindowPort) -> None:
        self._port = port
        self._window = Window()
        self._cause: BaseException | None = None  # The first; what follows is an echo.
        self._advance: Advance = "same"

    @property
    def state(self) -> State:
        return self._window.state

    async def open(self) -> None:
        """Leave the mark and give the write lock back.  The model may be called after it."""
        await self._settle(self._window.receive(Signal.OPEN))
        self._raise_unless(State.OPEN)

    async def close(self) -> Advance:
        """
        Take the write lock back, and say what has happened meanwhile.  Returns holding it.

        Raises:
            TakeoverError: the transcript was rewritten.
            FencedError, LeaseLostError: from the port's `keep`, while waiting.
        """
        await self._settle(self._window.receive(Signal.CLOSE))
        self._raise_unless(State.RETURNED)
        return self._advance

    async def leave(self) -> None:
        """Close without wanting the lock: the attempt is over.  Idempotent."""
        await self._settle(self._window.abort())

    def _raise_unless(self, state: State) -> None:
        if self._window.state is not state:
            assert self._cause is not None
            raise self._cause

    async def _settle(self, effects: tuple[Effect, ...]) -> None:
        while effects:
            signal = None
            for effect in effects:
                signal = await self._perform(effect)
            if signal is None:
                return
            effects = self._window.receive(signal)

    async def _perform(self, effect: Effect) -> Signal | None:
        match effect:
            case Effect.KEEP:
                return await self._guarded(self._port.keep(), None)
            case Effect.ACQUIRE if self._cause is None:
                return await self._guarded(self._port.acquire(), Signal.OK)
            case Effect.ACQUIRE:  # KEEP has ended the wait.
                return Signal.BAD
            case Effect.REPORT_LEAK:
                self._port.report_leak()
                return None
        try:
            return self._at_once(effect)
        except BaseException as error:  # noqa: BLE001  The first cause is raised by open/close.
            self._blame(error)
            return Signal.BAD

    def _at_once(self, effect: Effect) -> Signal:
        match effect:
            case Effect.TAKE_MARK:
                self._port.take_mark()
            case Effect.RELEASE:
                self._port.release()
            case Effect.COMPARE:
                self._advance = self._port.compare()
                if self._advance == "rewritten":
                    self._blame(TakeoverError(path="", detail="our question is gone from it"))
                    return Signal.REWRITTEN
                if self._advance == "appended":
                    return Signal.APPENDED
        return Signal.OK

    async def _guarded(
        self, work: Coroutine[Any, Any, None], done: Signal | None
    ) -> Signal | None:
        """Await *work* to its end; our own cancellation becomes an abort, not a tear."""
        task = asyncio.create_task(work)
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                self._blame(error)
                self._window.abort()
                task.cancel()
        if task.cancelled():
            self._blame(asyncio.CancelledError())
            return Signal.BAD if done is not None else None
        failure = task.exception()
        if failure is None:
            return done
        if isinstance(failure, LockWaitError) and done is not None:
            return Signal.SLOW
        self._blame(failure)
        return Signal.BAD if done is not None else None

    def _blame(self, error: BaseException) -> None:
        if self._cause is None:
            self._cause = error
