"""
Transcripts in memory: lists of JSON lines, written only under the write lock.

An entry is encoded when it is appended and decoded by who reads it, so that nobody shares a
mutable value with anybody, and what is read back is what a file would give back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from holdfast._core import jsonl
from holdfast._core.tree import VERSION, Tree, bad_header
from holdfast.backends.memory import paging
from holdfast.backends.memory.held import HeldTranscript
from holdfast.backends.memory.line import Waiter
from holdfast.backends.memory.rows import fetch_room
from holdfast.errors import (
    BadTranscriptError,
    DeadlockError,
    LockTimeoutError,
)
from holdfast.types import HoldStatistics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.backends.memory.lines import Lines, View
    from holdfast.backends.memory.world import Room, World
    from holdfast.types import (
        EntriesPage,
        Entry,
        FencingToken,
        OwnerId,
        Session,
        SessionId,
        TurnId,
        Vouched,
    )

__all__ = ["MemoryTranscripts"]

KEPT_MAX: Final = 64  #: Sessions whose decoded entries an owner keeps.
LONG_S: Final = 1.0  #: A hold is milliseconds; a longer one is counted by itself.
BUCKETS_S: Final = (0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(slots=True)
class _Kept:
    """What this owner has decoded so far, so that only what is new need be decoded."""

    born: int
    count: int = 0  #: Lines that `tree` has been fed.
    tree: Tree = field(default_factory=Tree)


@dataclass(slots=True)
class _Tally:
    acquired: int = 0
    contended: int = 0
    timeouts: int = 0
    long_holds: int = 0
    hold_max_s: float = 0.0
    held_s: float = 0.0
    holds: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))


class MemoryTranscripts:
    """The `Transcripts` port on a `World`, for one owner."""

    def __init__(self, world: World, owner_id: OwnerId, check_open: Callable[[], None]) -> None:
        self.world, self.owner_id, self.check_open = world, owner_id, check_open
        self._kept: OrderedDict[SessionId, _Kept] = OrderedDict()
        self._tally = _Tally()

    async def acquire(
        self,
        session: Session,
        *,
        timeout_s: float,
        token: FencingToken | None,
        run_id: str | None,
        lane: str | None,
    ) -> HeldTranscript:
        """
        Take the write lock: first come, first served, over all owners and loops.

        Raises:
            LockTimeoutError: not within *timeout_s*, one total deadline.
            DeadlockError: this very task holds it.
            BadTranscriptError: what was committed to it is gone.
            UnavailableError: this owner was closed or killed.

        Cancellation:
            Safe; nothing stays held, and the line moves on.
        """
        named = (("run", run_id), ("lane", lane), ("token", token))
        said = ", ".join(f"{name} {value}" for name, value in named if value is not None)
        waiter = Waiter(self.owner_id, said or "unknown")
        with self.world.mutex:
            self.check_open()
            room = fetch_room(self.world, session.session_id)
            holder = room.writers.holder
            if holder is not None and holder.task is waiter.task is not None:
                raise DeadlockError(what=f"the write lock of {self.path(session)}")
            at_once = room.writers.join(waiter)
        try:
            if not at_once:
                await self._stand_in_line(session, room, waiter, timeout_s)
            with self.world.mutex:
                self._begin(session, room.lines)
        except BaseException:
            self.world.leave(room.writers, waiter)
            raise
        return HeldTranscript(self, session, room, waiter, contended=not at_once)

    async def _stand_in_line(
        self, session: Session, room: Room, waiter: Waiter, timeout_s: float
    ) -> None:
        """Return as who has the lock, or raise."""
        await waiter.wait(timeout_s)
        with self.world.mutex:
            self.check_open()
            holder = room.writers.holder
            if holder is waiter:
                return
            self._tally.timeouts += 1
        raise LockTimeoutError(
            path=self.path(session),
            timeout_s=timeout_s,
            holder="unknown" if holder is None else holder.said,
        )

    def _begin(self, session: Session, lines: Lines) -> None:
        """A transcript that nobody has written to begins with its header."""
        if lines.view().count:
            return
        if session.end_offset:
            raise BadTranscriptError(
                path=self.path(session),
                detail=f"it is gone, with {session.end_offset} bytes that were committed",
            )
        header = {
            "type": "session", "version": VERSION, "id": session.session_id,
            "timestamp": self.world.now_iso(), "cwd": "memory:",
        }  # fmt: skip
        lines.append(jsonl.encode([header]))

    def salvage(
        self,
        turn_id: TurnId,  # noqa: ARG002  The port's.
        token: FencingToken,  # noqa: ARG002
        entries: Sequence[Entry],  # noqa: ARG002
    ) -> str | None:
        """There is no such place here: the turn's row keeps the reply."""
        return None

    # ------------------------------------------------------------------------- reading

    def path(self, session: Session) -> str:
        """A name for people and for errors; nothing is there."""
        return f"memory:{session.transcript}"

    def read(self, session: Session) -> Tree:
        """The transcript as it stands.  No lock, no row, no byte changed."""
        view = self._view(session)
        if not view.count:
            raise BadTranscriptError(
                path=self.path(session), detail="cannot be read: nothing was written yet"
            )
        tree = Tree()
        tree.feed(jsonl.lines(view.joined()))
        return self._checked(session, tree)

    def page(
        self, session: Session, after: str | None, *, limit: int, last: int | None = None
    ) -> EntriesPage:
        view = self._view(session)
        if last is not None:
            return paging.last_entries(view, session.generation, last)
        start = paging.offset_of(after, session.generation)
        return paging.page(view, session.generation, start, limit)

    def shorter(self, vouched: Sequence[Vouched]) -> list[SessionId]:
        """Those that are shorter than their rows say."""
        with self.world.mutex:
            rooms = self.world.rooms
            return [
                each.session_id
                for each in vouched
                if rooms[each.session_id].lines.view().size < each.end_offset
            ]

    def is_at(self, session: Session, path: str) -> bool:
        return path == self.path(session)

    def end(self, session: Session) -> int:
        """Bytes, as in a file."""
        return self._view(session).size

    def _view(self, session: Session) -> View:
        with self.world.mutex:
            self.check_open()
            return fetch_room(self.world, session.session_id).lines.view()

    def load(self, session: Session, room: Room) -> Tree:
        """Everything in it, decoding only what is new since this owner last looked."""
        with self.world.mutex:
            view, born = room.lines.view(), room.lines.born
            kept = self._kept.pop(session.session_id, None)
        if kept is None or kept.born != born:
            kept = _Kept(born)
        offset = view.end_of(kept.count - 1)
        kept.tree.feed(jsonl.lines(view.joined(kept.count), offset=offset))
        kept.count = view.count
        tree = self._checked(session, kept.tree)
        with self.world.mutex:
            self._kept[session.session_id] = kept
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        return tree

    def _checked(self, session: Session, tree: Tree) -> Tree:
        problem = "the session header is missing" if tree.header is None else None
        if tree.skipped and tree.skipped[0][0] == 0:
            problem = bad_header(None)
        problem = problem or bad_header(tree.header)
        if problem is not None:
            raise BadTranscriptError(path=self.path(session), detail=problem, line=1)
        return tree

    # ---------------------------------------------------------------------- statistics

    def add_hold(self, held_s: float, *, contended: bool) -> None:
        tally = self._tally
        with self.world.mutex:
            tally.acquired += 1
            tally.contended += contended
            tally.long_holds += held_s > LONG_S
            tally.hold_max_s = max(tally.hold_max_s, held_s)
            tally.held_s += held_s
            tally.holds[bisect_left(BUCKETS_S, held_s)] += 1

    def statistics(self) -> HoldStatistics:
        """The write locks of this owner."""
        with self.world.mutex:
            tally = replace(self._tally, holds=list(self._tally.holds))
        return HoldStatistics(
            acquired=tally.acquired,
            contended=tally.contended,
            timeouts=tally.timeouts,
            long_holds=tally.long_holds,
            hold_max_ms=tally.hold_max_s * 1000,
            held_s=tally.held_s,
            buckets=tuple(zip(BUCKETS_S, accumulate(tally.holds), strict=False)),
        )
