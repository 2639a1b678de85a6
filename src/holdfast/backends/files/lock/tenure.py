"""
How a hold ends: by its release, by an abort, by the watchdog, or with its process.

**Poison and write share one mutex.**  A writer enters under it and is counted, or is refused;
whoever ends the hold sets the poison under it.  So a write that is under way finishes first
and gives the lock back itself, and afterwards nobody writes: never two writers.

Who may touch: `_users`, the poison `_closing`, and with them the reason, under the hold's
`_mutex` only.  The thread that brings (`_users`, `_closing`) to (none, its number) lets go,
and no other does.
"""

from __future__ import annotations

import logging
import threading
import weakref
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final

from holdfast.backends.files import fs
from holdfast.backends.files.lock import own, tally, watchdog
from holdfast.errors import ForkedError, LockLostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.backends.files.lock.climb import Grip
    from holdfast.backends.files.lock.latch import Latch

__all__ = ["Tenure", "Terms"]

log = logging.getLogger("holdfast.write_lock")

_OVERSTAYED: Final = (
    "the watchdog ends whatever is held longer than max_hold_ms = {}: hold it for writes only,"
    " or raise session.write_lock.max_hold_ms"
)


class Terms:
    """What holds of one lock promise, and whose they are.  Made once a `WriteLock`."""

    __slots__ = ("lane", "max_hold_ms", "max_hold_s", "run_id")

    def __init__(self, max_hold_ms: int, run_id: str | None, lane: str | None) -> None:
        self.max_hold_ms, self.max_hold_s = max_hold_ms, max_hold_ms / 1000
        self.run_id, self.lane = run_id, lane


class _End:
    """What there is to know about a hold that was ended before its release."""

    __slots__ = ("given_back", "hint", "reason", "returned")

    def __init__(self, reason: str, hint: str) -> None:
        self.reason, self.hint = reason, hint
        self.returned = False  #: Its owner has said `release`.
        self.given_back = False  #: The lock is somebody else's, or may be.


class Tenure:
    """The life of a hold, without what it is good for: see `Hold`."""

    __slots__ = (
        "__weakref__", "_closing", "_contended", "_end", "_generation", "_grip", "_mutex",
        "_users", "due_s", "on_lost", "path", "since_s", "terms", "token",
    )  # fmt: skip

    def __init__(self, grip: Grip, token: int | None, terms: Terms, *, contended: bool) -> None:
        self.path = grip.names.resolved  #: The transcript, resolved.
        self.token = token  #: The fencing token that the claim names; None = none was given.
        self.terms = terms
        #: Called with the reason, once, by the thread that ended this hold, after it was
        #: given back (or, with a write under way, before).  Must not block.
        self.on_lost: Callable[[str], None] | None = None
        self._grip = grip
        self._contended = contended
        self._generation = fs.fork_generation()
        # Re-entrant: a signal's handler may have interrupted its own thread in here.
        self._mutex = threading.RLock()
        self._users: list[int] | None = None  #: Threads that have a write under way.
        self._closing = 0  #: The poison, ended or released: by which thread.  0: held.
        self._end: _End | None = None
        self.since_s = since_s = fs.table.monotonic()
        self.due_s = due_s = since_s + terms.max_hold_s  #: Infinite: over.
        assert grip.claim is not None
        own.roll.claims[grip.claim] = self
        if due_s < watchdog.dog.look_s:
            watchdog.dog.hurry(due_s)

    @property
    def aborted(self) -> str | None:
        """Why this hold was ended before its release; None: it was not."""
        return None if self._end is None else self._end.reason

    def release(self) -> None:
        """
        Give the lock back: claim, latch, gate, place in line.  Idempotent.

        Never raises over a result: what fails is logged.  Bounded: about ten system calls,
        none of which waits.  If an append is under way in another thread, that thread
        releases when it is done.
        """
        if self._generation != fs.fork_generation():
            return  # Nor the mutex: another thread of the parent may have had it.
        with self._mutex:
            if self._closing:
                if self._end is not None:
                    self._end.returned = True
                    self._bury(self._end)
                return
            self._closing = threading.get_ident()
            if self._users:
                self.due_s = inf
                self._grip.place.disown()
                return
        self._let_go()

    def abort(self, reason: str) -> bool:
        """
        End this hold, whoever has it: it can write no more, and the lock is given back.

        Its next use raises LockLostError.  A descriptor that is being read from stays open
        until `release`.  Idempotent: the first reason stays.

        Returns:
            True: given back.  False: a write is under way, and gives it back when it is done.
        """
        released = self._abort(reason, "take the write lock again, if you still need it")
        return not self._users if released is None else released

    def overstayed(self) -> bool | None:
        """As `abort`, for the watchdog; None: it was over already."""
        most_ms = self.terms.max_hold_ms
        return self._abort(
            f"the watchdog ended it: max_hold_ms = {most_ms} is over",
            _OVERSTAYED.format(most_ms),
        )

    def forsake(self) -> bool:
        """
        Withdraw the claim and write no more: the process is ending, the kernel does the rest.

        For a handler that interrupted this thread anywhere, and that never returns.  What
        this thread had under way is over; what others have, is not.  Takes no mutex but the
        hold's own.

        Returns:
            False: another thread is writing, or is giving it back.  Ask again.
        """
        us, claim = threading.get_ident(), self._grip.claim
        if self._elsewhere() or claim is None:
            return True
        with self._mutex:
            self._closing, self.due_s = self._closing or us, inf
            self._end = self._end or _End("the process is ending", "start it again")
            if self._closing != us or any(user != us for user in self._users or ()):
                return False
        with suppress(OSError):
            claim.withdraw()
        return True

    # ------------------------------------------------------------------ inside

    def _elsewhere(self) -> bool:
        """In a forked child; the pid, because a fork in C runs none of our hooks."""
        return self._generation != fs.fork_generation() or own.roll.pid != fs.table.getpid()

    def _ours(self) -> None:
        if self._elsewhere():
            raise ForkedError(what=f"the write lock of {self.path}")

    def _fd(self) -> int:
        latch = self._grip.latch
        assert latch is not None
        return latch.fd

    def _lost(self) -> LockLostError:
        if self._end is None:
            detail, hint = "this hold was released already", "take the write lock again"
        else:
            detail, hint = self._end.reason, self._end.hint
        return LockLostError(path=self.path, detail=detail, hint=hint)

    def _enter(self) -> None:
        self._ours()
        with self._mutex:
            if self._closing:
                raise self._lost()
            if self._users is None:
                self._users = []
            self._users.append(threading.get_ident())

    def _leave(self) -> None:
        assert self._users is not None
        with self._mutex:
            us = threading.get_ident()
            self._users.remove(us)
            if self._users or not self._closing:
                return
            self._closing = us
        self._let_go()

    def _abort(self, reason: str, hint: str) -> bool | None:
        if self._elsewhere():
            return None
        latch, place = self._grip.latch, self._grip.place
        assert latch is not None
        with self._mutex:
            self.due_s = inf
            if self._closing:
                return None
            # Whoever held it may ask again at once: it would not wait for itself.
            place.disown()
            # And it may be in the middle of a pread: the number must not come to mean
            # another file.  Closed by `release`, or with the last reference to this hold.
            latch.linger()
            weakref.finalize(self, _bury, latch).atexit = False
            self._closing, self._end = threading.get_ident(), _End(reason, hint)
            under_way = bool(self._users)
        if not under_way:
            self._let_go()
        try:
            if self.on_lost is not None:
                self.on_lost(reason)
        except Exception:
            log.exception("%s: telling the holder failed", self.path)
        return not under_way

    def _let_go(self) -> None:
        self._grip.let_go()  # Nothing in a forked child.
        held_s = fs.table.monotonic() - self.since_s
        tally.add_hold(held_s, contended=self._contended)
        if self._end is not None:
            with self._mutex:
                self._end.given_back = True
                self._bury(self._end)
        elif held_s > tally.LONG_S:
            log.warning(
                "%s: held for %.1f s (run %s, lane %s); a write takes milliseconds",
                self.path, held_s, self.terms.run_id or "-", self.terms.lane or "-",
            )  # fmt: skip

    def _bury(self, end: _End) -> None:
        if end.returned and end.given_back and self._grip.latch is not None:
            _bury(self._grip.latch)


def _bury(latch: Latch) -> None:
    with suppress(OSError):
        latch.bury()
