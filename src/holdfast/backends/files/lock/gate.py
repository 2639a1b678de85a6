"""
The gate: a fair FIFO among processes, by tickets.

    byte 0 … 7     the next ticket, little-endian
    byte 8 … 15    the floor: tickets below it have been passed over
    byte 16 … 39   the holder record: pid, start time, since when (0 = nobody is inside)
    byte 2^32 + n  nothing is ever stored there; ticket n is an OFD lock on that byte

The file is permanent and never unlinked: an unlinked gate would be two gates.  A ticket is
drawn under an OFD lock on byte 0, held for a few microseconds, and is locked before that
lock goes: so a ticket that was drawn and is not locked is a ticket that is over.  Every
entry opens the file anew, because an OFD lock belongs to the open file description and the
kernel drops it with the last descriptor: a dead owner holds no place.

The turn has come when no lower ticket is locked.

**The order is a courtesy.**  Exclusion is the next stage's: the latch of a transcript, the
write lock of a database.  Therefore a ticket whose owner does not move within PATIENCE_S
(a stopped process) may be passed over: by trying the next stage without waiting.  If that
is busy the owner was merely slow, and we keep our place.  If not, the floor is raised, so
that nobody else waits for the same ticket again.  For the same reason the counter and the
floor need no checksum: garbage in them costs order, never exclusion.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from holdfast.backends.files import fs, identity
from holdfast.errors import LockTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Entry", "Gate", "GatePass", "pause"]

GUARD_AT: Final = 0
COUNTER_AT: Final = 0
FLOOR_AT: Final = 8
RECORD_AT: Final = 16
TICKETS_AT: Final = 1 << 32
TICKET_MAX: Final = 1 << 61  #: A counter beyond this is garbage; it starts again.

PATIENCE_S: Final = 0.05
#: Each ticket between the motionless one and ours adds this, so that the next in line is
#: the first to pass over; together at most PATIENCE_S again.
PATIENCE_STEP_S: Final = 0.0025

#: The next in line looks without sleeping for so long: most holds are shorter, and the
#: shortest sleep takes the kernel a tenth of a millisecond.
SPIN_S: Final = 0.0002
POLL_MIN_S: Final = 0.00005
POLL_MAX_S: Final = 0.001  #: For the next in line.
#: Whoever has seen nothing move for LONG_S looks ever less often: a look costs 50-150 µs.
LONG_S: Final = 0.5
POLL_LONG_S: Final = 0.02
#: For those further back, times the places before them: about one hold each.  Measured, 8
#: processes: 4,700 appends/s with 50 µs, 6,300 with 150, 5,300 with 200.
POLL_STEP_S: Final = 0.00015
POLL_BACK_MAX_S: Final = 0.004  #: For those further back.

_GUARD: Final = fs.byte_lock(GUARD_AT)
_UNGUARD: Final = fs.byte_unlock(GUARD_AT)
_HEAD: Final = struct.Struct("<QQ")  # next ticket, floor
_WORD: Final = struct.Struct("<Q")
_RECORD: Final = struct.Struct("<QQQ")  # pid, start time, Unix ms


def pause(wait_s: float) -> None:
    """Sleep; for 0, let somebody else run first."""
    if wait_s > 0:
        fs.table.sleep(wait_s)
    else:
        fs.table.sched_yield()


class Entry:
    """
    One place in the line.  A state machine without waits; one thread at a time.

    `step` until it answers None, or until `passable` and the next stage proves free; then
    do the work; then `leave`, always, also after an error.
    """

    __slots__ = (
        "_blocker", "_fd", "_floor", "_generation", "_guard_since_s", "_moved_s",
        "_path", "_since_s", "in_turn", "overtook", "ticket",
    )  # fmt: skip

    def __init__(self, path: str) -> None:
        self._path = path
        self._generation = fs.fork_generation()
        self._fd = -1
        self._blocker = -1  #: The lowest ticket before ours, when we last looked.
        self._moved_s = 0.0  #: When it became the lowest.
        self._since_s = 0.0  #: Since when we have been patient with it.
        self._guard_since_s = 0.0
        self._floor = 0
        self.ticket = -1  #: -1: not drawn.
        self.in_turn = False
        self.overtook = False  #: In turn only because a motionless ticket was passed over.

    def step(self, now_s: float) -> float | None:
        """
        One look, a few microseconds.

        Returns:
            None: it is our turn.  Otherwise after how many seconds to look again.

        Raises:
            OSError: the gate cannot be opened, read, written or locked.
        """
        if self.in_turn:
            return None
        if self.ticket < 0:
            wait_s = self._draw(now_s)
            if wait_s is not None:
                return wait_s
        else:
            self._floor = self._read_head()[1]
        blocker = fs.first_locked(
            self._fd, TICKETS_AT + min(self._floor, self.ticket), TICKETS_AT + self.ticket
        )
        if blocker is None:
            self.in_turn = True
            return None
        blocker -= TICKETS_AT
        if blocker != self._blocker:
            self._blocker, self._since_s, self._moved_s = blocker, now_s, now_s
        return self._look_again_s(now_s)

    def passable(self, now_s: float) -> bool:
        """Whether whoever is before us has not moved for so long that we may try."""
        if self.ticket < 0:
            # Stopped between two instructions, with the counter in its hand.
            return self._guard_since_s > 0 and now_s - self._guard_since_s >= PATIENCE_S
        between = self.ticket - self._blocker - 1
        patience_s = PATIENCE_S + min(between * PATIENCE_STEP_S, PATIENCE_S)
        return self._blocker >= 0 and now_s - self._since_s >= patience_s

    @property
    def ahead(self) -> int | None:
        """Tickets before ours, those that are over among them; None: nobody can tell."""
        return self.ticket - self._blocker if 0 <= self._blocker < self.ticket else None

    def keep_place(self, now_s: float) -> None:
        """The next stage was busy: be patient again, from now."""
        self._since_s = now_s
        if self._guard_since_s > 0:
            self._guard_since_s = now_s

    def pass_over(self) -> None:
        """The next stage was free, and is ours: nobody need wait for that ticket again."""
        self.in_turn = self.overtook = True
        if self.ticket < 0 or not fs.try_lock(self._fd, _GUARD):
            return  # The next one passes it over as well; that costs 50 ms, not more.
        try:
            if self._read_head()[1] <= self._blocker:
                fs.table.pwrite(self._fd, _WORD.pack(self._blocker + 1), FLOOR_AT)
        finally:
            fs.unlock(self._fd, _UNGUARD)

    def write_record(self) -> None:
        """Say who is inside.  Advice to readers; costs one write."""
        ours = identity.me()
        record = _RECORD.pack(ours.pid, ours.start or 0, fs.table.time_ns() // 1_000_000)
        fs.table.pwrite(self._fd, record, RECORD_AT)

    def clear_record(self) -> None:
        fs.table.pwrite(self._fd, _RECORD.pack(0, 0, 0), RECORD_AT)

    def leave(self) -> None:
        """
        Give the place back.  Idempotent; nothing in a forked child.

        Raises OSError, after having left.
        """
        fd, self._fd = self._fd, -1
        if fd < 0 or self._generation != fs.fork_generation():
            return  # After a fork the number is closed, and may be somebody else's.
        try:
            # By name, not only by closing: a child that is between fork and exec has a
            # copy of the descriptor, and would keep the place for that long.
            if self.ticket >= 0:
                fs.unlock(fd, fs.byte_unlock(TICKETS_AT + self.ticket))
        finally:
            fs.close_fd(fd)

    def _draw(self, now_s: float) -> float | None:
        """Take the next ticket.  None: taken; else after how many seconds to try again."""
        if self._fd < 0:
            self._fd = fs.open_fd(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        if not fs.try_lock(self._fd, _GUARD):
            self._guard_since_s = self._guard_since_s or now_s
            return POLL_MIN_S
        self._guard_since_s = 0.0
        try:
            ticket, self._floor = self._read_head()
            while not fs.try_lock(self._fd, fs.byte_lock(TICKETS_AT + ticket)):
                ticket += 1  # The counter went backwards (a restored file): skip.
            self.ticket = ticket
            fs.table.pwrite(self._fd, _WORD.pack(ticket + 1), COUNTER_AT)
        finally:
            fs.unlock(self._fd, _UNGUARD)
        return None

    def _read_head(self) -> tuple[int, int]:
        head = fs.table.pread(self._fd, _HEAD.size, 0)
        following, floor = _HEAD.unpack(head.ljust(_HEAD.size, b"\0"))
        if following > TICKET_MAX:
            return 0, 0
        return following, floor if floor <= following else 0

    def _look_again_s(self, now_s: float) -> float:
        # The longer nothing moves the slower we look; the next in line looks oftenest.
        still_s = now_s - self._moved_s
        ahead = self.ticket - self._blocker
        if still_s > LONG_S:
            return min(still_s / 100, POLL_LONG_S)
        if ahead == 1 and still_s < SPIN_S:
            return 0.0
        if ahead == 1:
            return min(max(still_s / 8, POLL_MIN_S), POLL_MAX_S)
        return min(max(still_s / 8, POLL_STEP_S * (ahead - 1)), POLL_BACK_MAX_S)


class GatePass:
    """The right of way, until `release`.  A context manager."""

    __slots__ = ("_entry", "_path", "_recorded")

    def __init__(self, path: str, entry: Entry, *, recorded: bool) -> None:
        self._path, self._entry, self._recorded = path, entry, recorded

    @property
    def overtook(self) -> bool:
        """Whether a motionless ticket was passed over: then the next stage decides alone."""
        return self._entry.overtook

    def release(self) -> None:
        """
        Let the next one in.  Idempotent; a no-op in a forked child.

        Raises:
            StoreError: clearing the record or unlocking failed.  The place is given back
                all the same.
        """
        recorded, self._recorded = self._recorded, False
        try:
            try:
                if recorded:
                    self._entry.clear_record()
            finally:
                self._entry.leave()
        except OSError as error:
            raise fs.store_error(error, self._path, "leaving the gate") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Gate:
    """A gate at *path*.  Costs nothing until it is entered; any thread may enter."""

    def __init__(self, path: str) -> None:
        self.path = path

    def acquire(
        self,
        timeout_s: float,
        *,
        busy: Callable[[], bool] | None = None,
        record: bool = False,
    ) -> GatePass:
        """
        Wait, in this thread, for our turn.  Looks at least once, whatever the timeout.

        Args:
            timeout_s: one total deadline.
            busy:
                asked when a ticket before ours has not moved for 50 ms: is the stage behind
                the gate taken?  It may take that stage itself and answer False.  None:
                nobody is ever passed over.
            record: leave the holder record (pid, start time) while inside.

        Raises:
            LockTimeoutError: not our turn in time; names the holder record, if there is one.
            StoreError: the gate cannot be opened, read or locked.
            Whatever *busy* raises.

        Cost:
            About 8 µs when nobody is before us.
        """
        entry = Entry(self.path)
        try:
            self._wait(entry, timeout_s, busy)
            if record:
                entry.write_record()
        except BaseException as error:
            with suppress(OSError):
                entry.leave()
            if isinstance(error, OSError):
                raise fs.store_error(error, self.path, "entering the gate") from error
            raise
        return GatePass(self.path, entry, recorded=record)

    def holder(self) -> tuple[int, int] | None:
        """(pid, start time) of who says it is inside; None = nobody says so."""
        record = self.record()
        return None if record is None else record[:2]

    def record(self) -> tuple[int, int, int] | None:
        """As `holder`, and since when, in Unix milliseconds (0: not said).  One pread."""
        try:
            fd = fs.open_fd(self.path, os.O_RDONLY)
            try:
                raw = fs.table.pread(fd, _RECORD.size, RECORD_AT)
            finally:
                fs.close_quietly(fd)
        except OSError:
            return None
        pid, start, since_ms = _RECORD.unpack(raw.ljust(_RECORD.size, b"\0"))
        return (pid, start, since_ms) if pid else None

    def _wait(self, entry: Entry, timeout_s: float, busy: Callable[[], bool] | None) -> None:
        now_s = fs.table.monotonic()
        deadline_s = now_s + timeout_s
        while (wait_s := entry.step(now_s)) is not None:
            if busy is not None and entry.passable(now_s):
                if not busy():
                    entry.pass_over()
                    return
                entry.keep_place(now_s)
            if now_s >= deadline_s:
                raise LockTimeoutError(
                    path=self.path, timeout_s=timeout_s, holder=self._holder_in_words()
                )
            pause(min(wait_s, deadline_s - now_s))
            now_s = fs.table.monotonic()

    def _holder_in_words(self) -> str:
        holder = self.holder()
        return "unknown" if holder is None else f"pid {holder[0]}"
