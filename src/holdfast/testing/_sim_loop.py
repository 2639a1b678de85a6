"""
An event loop inside a simulated process.

The real asyncio loop, whose clock, sleep and wake-up are the simulated world's.  So the
asynchronous code runs as it is, the pump's thread among it; there are no sockets.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from holdfast.testing._sim_kernel import CLOCK_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from holdfast.testing._sim_process import Process
    from holdfast.testing._sim_world import World

__all__ = ["Loop", "run_loop", "runner_of"]

_TELLS: Final = "_log_destroy_pending"  #: Whether a task that is dropped says so.


class Loop(asyncio.BaseEventLoop):
    """Its `select` blocks a simulated thread."""

    def __init__(self, world: World, process: Process) -> None:
        super().__init__()
        self._world, self._process = world, process
        self._woken = False
        self._selector = self
        self._clock_resolution = 1e-6
        self.set_exception_handler(lambda _, context: self._told(context))
        self.all: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._made)

    def _made(self, loop: Any, work: Any, **named: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **named)
        self.all.append(task)
        return task

    def _told(self, context: dict[str, Any]) -> None:
        if not self._process.dead:
            self._world.broken = self._world.broken or f"the loop says: {context}"

    def time(self) -> float:
        self._world.now_ns += CLOCK_NS  # As `fs.table.monotonic`; it is asked very often.
        return self._process.clock_ns() / 1e9

    def select(self, timeout: float | None) -> list[Any]:
        """Wait for a wake-up from another thread, or for the next timer."""
        if self._woken or (timeout is not None and timeout <= 0):
            self._world.step("loop", ())
        else:
            left_s = -1.0 if timeout is None else timeout / self._process.rate
            self._world.block(self, left_s)
        self._woken = False
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        self._woken = True
        self._world.unblock(self)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Done at once, by the caller."""
        assert executor is None
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001
            done.set_exception(error)
        return done


def run_loop(world: World, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run *main* to its end, in the process that runs now."""
    _made(world).run_until_complete(main())


def _made(world: World) -> Loop:
    process = world.process
    loop = Loop(world, process)
    process.leftovers.append(lambda: _forget(loop))
    return loop


class _Runner:
    """What `asyncio.Runner` is to a thread, without signals."""

    def __init__(self, world: World) -> None:
        self._loop = _made(world)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get_loop(self) -> Loop:
        return self._loop

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        """Cancel what is left, and wait for it, as the real one does."""
        left = [task for task in self._loop.all if not task.done()]
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()


def runner_of(world: World) -> Callable[..., _Runner]:
    """Stands in for `asyncio.Runner`."""
    return lambda **_: _Runner(world)


def _forget(loop: Loop) -> None:
    """What tasks of a dead process would still do has no effect; but let them do it now."""
    for task in loop.all:
        setattr(task, _TELLS, False)
        if not task.done():
            with suppress(BaseException):
                task.get_coro().close()
    with suppress(BaseException):
        loop.close()
