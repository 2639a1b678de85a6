"""
The write lock on files: the right to append to one transcript, across processes.

**Acquisition order** (released in reverse; never leftwards):

    line  →  gate  →  latch  →  claim
    FIFO     FIFO     flock      the record
    here     among    on the     for strangers,
             ours     inode      at <transcript>.lock

- the *line* is this process's own queue: only its head goes on (`line.py`)
- the *gate* is order, and only a courtesy (`gate.py`)
- the *latch* is the exclusion among ours (`latch.py`); the kernel drops it with its owner
- the *claim* is the exclusion towards programs that only know lock files (`claim.py`)

Who may touch what: a transcript's bytes are written by the holder of all four, and by
nobody else; a claim of ours is removed by its own hold, or by whoever holds the latch; a
stranger's claim by whoever holds the latch, and only when its owner is proven dead
(`_core.staleness`); the gate file is never removed.

The lock is held for local input and output, never across an await on a model, a tool or a
channel.  That is what the turn's lease is for.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import TYPE_CHECKING, Final

from holdfast.backends.files import fs, identity
from holdfast.backends.files.lock import farewell, line, pump, tally
from holdfast.backends.files.lock.claim import now_iso, pretty
from holdfast.backends.files.lock.climb import Climb, MovedError, Names, Request
from holdfast.backends.files.lock.gate import pause
from holdfast.backends.files.lock.hold import Ascent, Hold, Terms
from holdfast.backends.files.lock.refusal import refused, stale_error
from holdfast.backends.files.lock.tally import statistics
from holdfast.errors import LockStaleError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Hold", "WriteLock", "statistics"]

TIMEOUT_S: Final = 60.0
MAX_HOLD_MS: Final = 30_000
STALE_MS: Final = 1_800_000
#: How often who is in line behind others of this process looks whether to fail fast.
LOOK_S: Final = 0.25


class WriteLock:
    """
    The write lock of the transcript at *path*.

    One object may be used many times, by many tasks and threads at once.  Not re-entrant:
    the task (or, blocking, the thread) that holds it gets DeadlockError at once; any other
    queues.

    Args:
        path: the transcript, by any of its names.
        timeout_s: one total deadline: line, gate, latch and claim together.
        max_hold_ms:
            what the claim promises to others.  Our own watchdog ends a hold that passes it;
            then its next use raises LockLostError.
        stale_ms:
            the age at which a holder that lives, or may live, is reported although it
            promised nothing, or more.  Age removes no claim: only proof of death does.
        fail_fast:
            whether to raise LockStaleError as soon as the holder is to be reported, instead
            of at the deadline.
        lane, run_id, session_id, token: for the claim, so that a waiter can name the holder.
        header:
            makes the first bytes of a transcript that does not exist; called in a worker
            thread, or in this one when blocking.  None: it starts empty.
        names: of *path*, from whoever has just resolved it.

    Cost:
        About 55 µs to take and release on a local disk when nobody else wants it; that is
        done on the loop.  All waiting is done in the line (asleep) or by the pump's thread.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout_s: float = TIMEOUT_S,
        max_hold_ms: int = MAX_HOLD_MS,
        stale_ms: int = STALE_MS,
        fail_fast: bool = False,
        lane: str | None = None,
        run_id: str | None = None,
        session_id: str | None = None,
        token: int | None = None,
        header: Callable[[], bytes] | None = None,
        names: Names | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.timeout_s = timeout_s
        self.token = token
        self._header = header
        self._terms = Terms(max_hold_ms, run_id, lane)
        self._stale_ms = stale_ms
        self._fail_fast = fail_fast
        self._about = {"token": token, "runId": run_id, "sessionId": session_id, "lane": lane}
        self._given = names
        self._names: Names | None = None
        self._inode: line.Inode | None = None  #: As last seen, with `_names`.
        self._key: str | None = None  #: Of its line.
        self._payload_of: identity.Identity | None = None
        self._payload_parts = ("", "")
        self._entered: dict[object, Hold] = {}  #: Holds of `with` blocks, by task or thread.

    async def acquire(self) -> Hold:
        """
        Wait for the lock.

        Returns:
            The hold; call its `release`.

        Raises:
            LockTimeoutError: not within `timeout_s`; names the holder.
            LockStaleError: nor that, and the holder overstays, or cannot be proven dead.
            DeadlockError: this very task holds it.
            BadTranscriptError: not a regular file that we may read and write.
            ClaimUnknownError: the file system did not say whether our claim landed.
            StoreError: anything else that the file system refused.

        Cancellation:
            At any await; nothing stays behind, and the line moves on.
        """
        deadline_s = fs.table.monotonic() + self.timeout_s
        while True:
            try:
                return await self._acquire_once(deadline_s)
            except MovedError:
                self._names = None
            except LockStaleError:
                tally.add_stale_report()
                raise

    def acquire_sync(self) -> Hold:
        """
        As `acquire`, blocking this thread.

        Raises:
            As `acquire`; DeadlockError also when a task of this thread's own event loop
            holds the lock or waits for it, because it could not go on while we block.
        """
        deadline_s = fs.table.monotonic() + self.timeout_s
        while True:
            try:
                return self._acquire_sync_once(deadline_s)
            except MovedError:
                self._names = None
            except LockStaleError:
                tally.add_stale_report()
                raise

    async def __aenter__(self) -> Hold:
        hold = await self.acquire()
        self._entered[asyncio.current_task()] = hold
        return hold

    async def __aexit__(self, *_: object) -> None:
        self._entered.pop(asyncio.current_task()).release()

    def __enter__(self) -> Hold:
        hold = self.acquire_sync()
        self._entered[threading.get_ident()] = hold
        return hold

    def __exit__(self, *_: object) -> None:
        self._entered.pop(threading.get_ident()).release()

    # ------------------------------------------------------------------ inside

    async def _acquire_once(self, deadline_s: float) -> Hold:
        request = self._request(deadline_s)
        place = line.Place(blocking=False, key=self._key)
        await _stand_in_line(request, place)
        climb = Climb(request, place)
        try:
            wait_s = climb.step(may_block=False)
            if wait_s is None:
                return self._hold(climb)
            ascent = Ascent(climb, self._hold)
            await pump.finish(ascent, wait_s)
        except asyncio.CancelledError:
            raise  # The pump has abandoned it, or will.
        except BaseException:
            climb.abandon()
            raise
        assert ascent.hold is not None
        return ascent.hold

    def _acquire_sync_once(self, deadline_s: float) -> Hold:
        request = self._request(deadline_s)
        place = line.Place(blocking=True, key=self._key)
        _stand_in_line_blocking(request, place)
        climb = Climb(request, place)
        try:
            while (wait_s := climb.step(may_block=True)) is not None:
                pause(wait_s)
            return self._hold(climb)
        except BaseException:
            climb.abandon()
            raise

    def _hold(self, climb: Climb) -> Hold:
        grip = climb.grip
        assert grip.latch is not None
        if grip.latch.inode != self._inode:  # Made, or replaced, since we looked.
            self._inode = grip.latch.inode
            self._key = key = line.key_of(self._inode)
            assert key is not None
            line.move(grip.place, key)
        return Hold(grip, self.token, self._terms, contended=climb.contended)

    def _request(self, deadline_s: float) -> Request:
        if not farewell.ready:
            farewell.prepare()
        if self._names is None:
            try:
                self._names, self._given = self._given or Names.of(self.path), None
                self._inode = line.inode_of(self._names.resolved)
                self._key = line.key_of(self._inode)
            except OSError as error:
                raise fs.store_error(error, self.path, "resolving the path") from error
        return Request(
            self._names,
            self.timeout_s,
            deadline_s,
            self._header,
            self._payload,
            self._stale_ms,
            self._fail_fast,
        )

    def _payload(self, claim_id: str) -> bytes:
        """Pretty JSON and a newline.  All but two fields are rendered once an object."""
        if self._payload_of is not identity.me():
            self._render()
        before, after = self._payload_parts
        return f'{before}{now_iso()}{after}{claim_id}"\n}}\n'.encode()

    def _render(self) -> None:
        ours = identity.me()
        fields = {
            "pid": ours.pid,
            "createdAt": "\0",
            "maxHoldMs": self._terms.max_hold_ms,
            "starttime": ours.start,
            **self._about,
            "host": ours.host,
            "bootId": ours.boot,
            "pidNamespace": ours.pid_ns,
            "claimId": "\0",
        }
        before, after, _ = pretty(fields).split(json.dumps("\0")[1:-1])
        self._payload_parts, self._payload_of = (before, after), ours


async def _stand_in_line(request: Request, place: line.Place) -> None:
    """Return as the head of the line, or raise and be out of it."""
    path = request.names.resolved
    if line.join_empty(path, place):
        return
    loop = asyncio.get_running_loop()
    granted: asyncio.Future[None] = loop.create_future()
    place.wake = lambda: _wake(loop, granted)
    if line.join(path, place):
        return
    timers: list[asyncio.Handle] = [loop.call_later(_left_s(request), _settle, granted)]
    if request.fail_fast:
        timers.append(loop.call_soon(_look, request, loop, granted, timers))
    try:
        await granted
        if place.granted:
            return
        tally.add_timeout()
        raise refused(request, latched=False, busy=False)
    except BaseException:
        line.leave(path, place)
        raise
    finally:
        for timer in timers:
            timer.cancel()


def _look(
    request: Request,
    loop: asyncio.AbstractEventLoop,
    granted: asyncio.Future[None],
    timers: list[asyncio.Handle],
) -> None:
    """Whether to fail fast; every LOOK_S."""
    if granted.done():
        return
    stale = _stale(request)
    if stale is not None:
        granted.set_exception(stale)
    else:
        timers[-1] = loop.call_later(LOOK_S, _look, request, loop, granted, timers)


def _stale(request: Request) -> LockStaleError | None:
    try:
        return stale_error(request, latched=False, busy=False)
    except OSError:
        return None  # The head of the line meets it as well, and says so.


def _left_s(request: Request) -> float:
    return max(request.deadline_s - fs.table.monotonic(), 0)


def _wake(loop: asyncio.AbstractEventLoop, granted: asyncio.Future[None]) -> None:
    loop.call_soon_threadsafe(_settle, granted)


def _settle(granted: asyncio.Future[None]) -> None:
    if not granted.done():
        granted.set_result(None)


def _stand_in_line_blocking(request: Request, place: line.Place) -> None:
    path = request.names.resolved
    if line.join_empty(path, place):
        return
    granted = threading.Event()
    place.wake = granted.set
    if line.join(path, place):
        return
    try:
        while request.fail_fast and not place.granted and _left_s(request) > 0:
            stale = _stale(request)
            if stale is not None:
                raise stale
            granted.wait(min(_left_s(request), LOOK_S))
        granted.wait(_left_s(request))
        if not place.granted:
            tally.add_timeout()
            raise refused(request, latched=False, busy=False)
    except BaseException:
        line.leave(path, place)
        raise
