"""
The thread that waits on behalf of event loops.

A loop's own timers are no finer than a millisecond, and a lock changes hands in a tenth of
one.  So a climb that did not succeed at once is stepped here: one thread for the whole
process, started when it is needed, asleep between looks and gone when there is nothing to
wait for.  Each look is a few microseconds of system calls that do not wait; for the next in
line, several of them in a row, for SPIN_S at most.

Who may touch: the heap and `_thread` under `_wakeup` only; a job's climb under the job's
mutex only.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import threading
from itertools import count
from typing import Final, Protocol

from holdfast.backends.files import fs
from holdfast.backends.files.lock.gate import pause

__all__ = ["Climbing", "finish"]

LOOK_MIN_S: Final = 0.00005  #: Between two looks: the loop's own thread wants to run.
SPIN_S: Final = 0.0001  #: One look.  A sleep, however short, takes the kernel as long.
IDLE_S: Final = 2.0  #: The thread outlives its last job by this, because jobs come in herds.


class Climbing(Protocol):
    """What is stepped here, by one thread at a time."""

    def step(self, *, may_block: bool) -> float | None:
        """Get as far as possible without waiting.  None: done; else seconds to wait."""
        ...

    def abandon(self) -> None:
        """Give back all that was taken.  Idempotent."""
        ...


class _Job:
    """One climb, its loop, and the future that its task awaits."""

    def __init__(self, climb: Climbing) -> None:
        self.climb = climb
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.mutex = threading.Lock()
        self.cancelled = False

    def step(self) -> float | None:
        """Seconds until the next look; None: over, one way or another."""
        with self.mutex:
            if self.cancelled:
                self.climb.abandon()
                return None
            error: BaseException | None = None
            try:
                wait_s = self.climb.step(may_block=True)
                if wait_s is not None:
                    return wait_s
            except BaseException as caught:  # noqa: BLE001
                error = caught
                self.climb.abandon()
            try:
                self.loop.call_soon_threadsafe(self._deliver, error)
            except RuntimeError:  # The loop is closed: nobody is there to take it.
                self.climb.abandon()
            return None

    def cancel(self) -> None:
        """
        Abandon the climb; without waiting, because this is a loop's thread.

        If the pump is in the middle of a step it abandons the climb itself, right after.
        """
        self.cancelled = True
        if self.mutex.acquire(blocking=False):
            try:
                self.climb.abandon()
            finally:
                self.mutex.release()

    def _deliver(self, error: BaseException | None) -> None:
        if self.future.done():  # Cancelled while the answer was on its way.
            self.climb.abandon()
        elif error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


class _Pump:
    def __init__(self) -> None:
        self._wakeup = threading.Condition()
        self._heap: list[tuple[float, int, _Job]] = []
        self._numbers = count()
        self._thread: threading.Thread | None = None

    def put(self, job: _Job, wait_s: float) -> None:
        with self._wakeup:
            if self._thread is None:  # First: if it cannot start, nothing is on the heap.
                thread = threading.Thread(target=self._run, name="holdfast-pump", daemon=True)
                thread.start()
                self._thread = thread
            heapq.heappush(
                self._heap, (fs.table.monotonic() + wait_s, next(self._numbers), job)
            )
            self._wakeup.notify()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            until_s = fs.table.monotonic() + SPIN_S
            while (wait_s := job.step()) == 0 and fs.table.monotonic() < until_s:
                pause(0)
            if wait_s is not None:
                with self._wakeup:
                    due_s = fs.table.monotonic() + max(wait_s, LOOK_MIN_S)
                    heapq.heappush(self._heap, (due_s, next(self._numbers), job))

    def _next(self) -> _Job | None:
        """The next job when it is due; None when there was none for a while."""
        with self._wakeup:
            while True:
                if not self._heap:
                    if not self._wakeup.wait(IDLE_S) and not self._heap:
                        self._thread = None
                        return None
                    continue
                wait_s = self._heap[0][0] - fs.table.monotonic()
                if wait_s <= 0:
                    return heapq.heappop(self._heap)[2]
                self._wakeup.wait(wait_s)


_pump = _Pump()


async def finish(climb: Climbing, wait_s: float) -> None:
    """
    Wait until *climb* is done, looking first after *wait_s* seconds.

    Raises:
        What `Climb.step` raises; the climb is abandoned then.

    Cancellation:
        At any moment.  The climb is abandoned, or will be within microseconds.
    """
    job = _Job(climb)
    _pump.put(job, wait_s)
    try:
        await job.future
    except asyncio.CancelledError:
        job.cancel()
        raise


def _start_afresh() -> None:
    global _pump  # noqa: PLW0603
    _pump = _Pump()  # Threads do not survive a fork.


os.register_at_fork(after_in_child=_start_afresh)
