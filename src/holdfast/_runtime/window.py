"""
Perform a prompt window's effects on an event loop.

Everything about asyncio is here, everything about the protocol in `_core.window`.  The one
decision made here is how cancellation becomes an abort: it is noted at once, and acted on
when the effect in flight has been answered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

from holdfast._core.window import Effect, Signal, State, Window
from holdfast.errors import LockWaitError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from holdfast.errors import TakeoverError
    from holdfast.types import Advance

__all__ = ["PromptWindow", "WindowPort"]


#: What a comparison says to the machine.
_SAID: Final[Mapping[Advance, Signal]] = {
    "same": Signal.OK,
    "appended": Signal.APPENDED,
    "rewritten": Signal.REWRITTEN,
}


class WindowPort(Protocol):
    """What a window gives back and takes again.  Each call is bounded by its performer."""

    def take_mark(self) -> None: ...
    def release(self) -> None: ...
    async def acquire(self) -> None:
        """Raises LockWaitError when it was not had within the settle bound."""
        ...

    async def compare(self) -> Advance:
        """What has happened since the mark.  Under the lock; may hash a file, off the loop."""
        ...

    def takeover(self) -> TakeoverError:
        """After `compare` has said ``rewritten``: what to raise."""
        ...

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

    def __init__(self, port: WindowPort, *, opened: bool = False) -> None:
        """*opened*: it stands open already, after a `close` that contention refused."""
        self._port = port
        self._window = Window(State.OPEN if opened else State.HELD)
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
                await self._answered(self._keep())
                return None
            case Effect.ACQUIRE if self._cause is None:
                return await self._answered(self._acquire())
            case Effect.COMPARE:
                return await self._answered(self._compare())
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
            case Effect.ACQUIRE:
                return Signal.BAD  # KEEP has ended the wait.
        return Signal.OK

    async def _keep(self) -> Signal:
        await self._port.keep()
        return Signal.OK

    async def _acquire(self) -> Signal:
        try:
            await self._port.acquire()
        except LockWaitError:
            return Signal.SLOW
        return Signal.OK

    async def _compare(self) -> Signal:
        self._advance = await self._port.compare()
        if self._advance == "rewritten":
            self._blame(self._port.takeover())
        return _SAID[self._advance]

    async def _answered(self, work: Coroutine[Any, Any, Signal]) -> Signal:
        """
        What *work* answers; BAD for what it raises.  Our own cancellation becomes an abort.

        What is awaited here can be cancelled at any moment, and then holds nothing.
        """
        try:
            return await work
        except asyncio.CancelledError as error:
            self._blame(error)
            self._window.abort()
        except BaseException as error:  # noqa: BLE001  The first cause is raised by open/close.
            self._blame(error)
        return Signal.BAD

    def _blame(self, error: BaseException) -> None:
        if self._cause is None:
            self._cause = error
