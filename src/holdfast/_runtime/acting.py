"""
What an attempt does with the write lock free: streams, hooks, tools.

Each checks the right to act first (#82891): a superseded attempt shows no further token,
starts no tool and runs no hook.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

__all__ = ["Acting"]

T = TypeVar("T")


class Acting(ABC):
    """The half of `Attempt` that holds nothing."""

    @abstractmethod
    def check(self) -> None: ...
    @abstractmethod
    def prompt_window(self) -> AbstractAsyncContextManager[Any]: ...
    @abstractmethod
    def idle_wait(self) -> AbstractAsyncContextManager[None]: ...
    @property
    @abstractmethod
    def holding(self) -> bool:
        """Whether the write lock is held, and nobody is giving it back."""

    async def stream(self, source: AsyncIterator[T]) -> AsyncGenerator[T]:
        """
        Everything *source* yields, inside one prompt window around the whole of it.

        Checks before each item: an attempt that is over shows nothing more.  To be used
        within ``contextlib.aclosing``, so that leaving early closes the source too.
        """
        async with self.prompt_window(), aclosing(source) as items:  # type: ignore[type-var]
            async for item in items:
                self.check()
                yield item

    async def act(self, work: Callable[[], Awaitable[T]]) -> T:
        """
        Run a hook or a tool: the right to act is checked first, and the lock is not held.

        Inside a window *work* runs as it is; where the lock is held it is given back
        meanwhile, as in `idle_wait`.

        Raises:
            AbortedError, TakeoverError, LockLostError: not run.
            What *work* raises; and as `idle_wait`.
        """
        self.check()
        if not self.holding:
            return await work()
        async with self.idle_wait():
            self.check()
            return await work()
