"""
The watchdog over our own holds: none is held for longer than it promised.

A hold is milliseconds.  One that passes its `max_hold_ms` belongs to code that hangs or
forgot it; it is aborted, which says: poisoned first, so that its owner can write no more,
then given back; and not before a write that is under way is over (`tenure.py`).  So there
are never two writers, and a disk that never answers keeps the lock.  It looks at our own
holds only; about anybody else's decides `_core.staleness`.

One thread for the process, started when something is held and none is there, gone IDLE_S
after the last hold.  A new hold wakes nobody: its end is later than the next look, unless
it promised to be shorter than all others.

Who may touch: `look_s` is written under `_wakeup` by the thread, and read by all without.
A hold is in the roll before `watch` reads `look_s`; the thread sets `look_s` before it reads
the roll.  So either sees the other.
"""

from __future__ import annotations

import logging
import os
import threading
from math import inf
from typing import TYPE_CHECKING, Final

from holdfast.backends.files import fs
from holdfast.backends.files.lock import own, tally

if TYPE_CHECKING:
    from holdfast.backends.files.lock.tenure import Tenure

__all__ = ["Watchdog", "dog"]

log = logging.getLogger("holdfast.write_lock")

IDLE_S: Final = 5.0  #: The thread outlives the last hold by this, because holds come in herds.


class Watchdog:
    """
    Looks after the roll of holds.

    Args:
        threaded: False: it has no thread; whoever made it calls `look`.
    """

    def __init__(self, *, threaded: bool = True) -> None:
        #: When the thread will look next; infinite: there is none.
        self.look_s = inf if threaded else -inf
        self._wakeup = threading.Condition()  # Over an RLock: a signal may fall inside.
        self._thread: threading.Thread | None = None
        self._told = False

    def hurry(self, due_s: float) -> None:
        """A hold is due before the next look, or there is no thread.  Never raises."""
        with self._wakeup:
            if due_s >= self.look_s:
                return
            if self._thread is not None:
                self._wakeup.notify()
                return
            thread = threading.Thread(target=self._run, name="holdfast-watchdog", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # No more threads, or the interpreter is ending.
                if not self._told:
                    log.warning("nobody watches how long write locks are held: %s", error)
                self._told = True
                return
            self._thread = thread
            self.look_s = due_s

    def look(self, now_s: float) -> float:
        """
        Abort what is due.

        Args:
            now_s: of the monotonic clock.

        Returns:
            When the next one is due; infinite: nothing is held.
        """
        next_s = inf
        for hold in own.holds():
            if hold.due_s > now_s:
                next_s = min(next_s, hold.due_s)
            else:
                self._abort(hold, now_s)
        return next_s

    def _abort(self, hold: Tenure, now_s: float) -> None:
        released = hold.overstayed()
        if released is None:
            return
        tally.add_watchdog_abort()
        log.warning(
            "%s: the watchdog ended a hold of %.1f s, max_hold_ms %d (run %s, lane %s)%s",
            hold.path,
            now_s - hold.since_s,
            hold.terms.max_hold_ms,
            hold.terms.run_id or "-",
            hold.terms.lane or "-",
            "" if released else "; a write is under way and is waited for",
        )

    def _run(self) -> None:
        acquired = -1
        while True:
            next_s = self._look_round()
            with self._wakeup:
                if next_s == inf:
                    # Between two looks there may have been a thousand holds.
                    acquired, before = tally.acquired(), acquired
                    if acquired == before:
                        self.look_s = inf
                        if not own.holds():
                            self._thread = None
                            return
                now_s = fs.table.monotonic()
                self.look_s = min(next_s, now_s + IDLE_S)
                if min((hold.due_s for hold in own.holds()), default=inf) < self.look_s:
                    continue  # It came while we looked.
                self._wakeup.wait(max(self.look_s - now_s, 0))

    def _look_round(self) -> float:
        try:
            return self.look(fs.table.monotonic())
        except Exception:
            # A watchdog that died of one hold would guard none of the others.
            log.exception("the watchdog stumbled")
            return inf


dog = Watchdog()


def _start_afresh() -> None:
    global dog  # noqa: PLW0603
    dog = Watchdog()  # Threads do not survive a fork.


os.register_at_fork(after_in_child=_start_afresh)
