"""
What all processes of one memory store have between them.

Who may touch: everything here under `mutex` only, which is never held across an await, a
wait or a call into somebody else's code.  A transaction is one block under it: whoever
writes checks first and writes then, so one that raises has changed nothing.

The world has no thread, no timer and no clock of its own.  Both clocks are given, so that a
simulator can own time; chance is used for ids only, and they are given too.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from holdfast import _stamps
from holdfast.backends.memory.line import Line
from holdfast.backends.memory.lines import Lines
from holdfast.types import TurnId

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.backends.memory.line import Waiter
    from holdfast.types import (
        Delivery,
        Handover,
        MadeEntry,
        Owner,
        OwnerId,
        Session,
        SessionId,
        ToolRecord,
        Turn,
    )

__all__ = ["Beside", "Lease", "OwnerRow", "Room", "World"]


@dataclass(slots=True)
class Lease:
    """At most one a session; that is the exclusion."""

    session_id: SessionId
    turn_id: TurnId
    token: int
    owner_id: OwnerId
    effective: bool = False  #: The token was left under the write lock.
    recovering: bool = False  #: Held by a reaper that ends somebody's attempt.
    taken_at: str = ""
    taken_ms: int = 0  #: By the store's clock.
    progress: dict[str, Any] = field(default_factory=dict)  #: As its owner's beat said.


@dataclass(slots=True)
class Room:
    """A session: what the control store knows of it, and its transcript."""

    session: Session
    token: int = 0  #: The last fencing token issued; never goes back.
    keys: list[str] = field(default_factory=list)
    turns: list[TurnId] = field(default_factory=list)  #: In the order of admission.
    waiting: set[TurnId] = field(default_factory=set)  #: Those with a host, too.
    #: Those without: by lane, (admission, turn), in the order of admission.
    queues: dict[str, list[tuple[int, TurnId]]] = field(default_factory=dict)
    preempted: int = 0  #: How many heartbeats in a row were pre-empted.
    unsynced: set[TurnId] = field(default_factory=set)  #: With `Beside.entries`.
    lines: Lines = field(default_factory=Lines)
    writers: Line = field(default_factory=Line)


@dataclass(slots=True)
class Beside:
    """What a turn's row has beyond `types.Turn`."""

    instructions: str | None
    seed: bytes | None
    entries: bytes | None = None  #: The turn's lines, until a later commit is synced.
    end_offset: int | None = None  #: Of its commit.
    generation: int | None = None


@dataclass(slots=True)
class OwnerRow:
    owner: Owner
    beat: int = 0
    draining: bool = False
    agents: dict[str, bool] = field(default_factory=dict)  #: Agent id → permanent.


@dataclass(frozen=True, slots=True)
class _Watcher:
    loop: asyncio.AbstractEventLoop
    told: Callable[..., object]


class World:
    """
    Everything that a store keeps, in dicts and lists.

    Args:
        now_ms: milliseconds since the epoch: stamps.
        monotonic: seconds: the store's clock, and how long a write lock was held.
        new_id: a new id, strictly increasing as text: owners and sessions.
    """

    def __init__(
        self,
        *,
        now_ms: Callable[[], int] = _stamps.now_ms,
        monotonic: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = _stamps.uuid7,
    ) -> None:
        self.now_ms, self.monotonic, self.new_id = now_ms, monotonic, new_id
        self.mutex = threading.Lock()
        self.rooms: dict[SessionId, Room] = {}
        self.keys: dict[str, SessionId] = {}
        self.aliases: dict[str, str] = {}
        self.agents: set[str] = set()
        self.turns: dict[TurnId, Turn] = {}  #: In the order of admission.
        self.beside: dict[TurnId, Beside] = {}
        self.running: set[TurnId] = set()
        self.guests: dict[TurnId, list[tuple[int, TurnId]]] = {}  #: By host.
        self.lined: dict[SessionId, Room] = {}  #: Those with anything in their `queues`.
        self.receipts: dict[tuple[str, str], tuple[str, TurnId]] = {}
        self.leases: dict[SessionId, Lease] = {}
        self.slots: dict[TurnId, str] = {}  #: Of which lane each turn has a slot.
        self.wanted: dict[TurnId, str] = {}  #: The next free slot of which lane is whose.
        self.handovers: dict[str, Handover] = {}
        self.tool_calls: dict[TurnId, dict[str, ToolRecord]] = {}  #: By call id.
        #: By entry id, in order; gone with the outcome.
        self.made: dict[TurnId, dict[str, MadeEntry]] = {}
        self.deliveries: dict[str, Delivery] = {}  #: In the order of `seq`.
        self.owed: dict[str, dict[int, str]] = {}  #: By target and `seq`; not the terminal.
        #: Who is owed anything: when a look may find a part (None: one is being sent), its seq.
        self.targets: dict[str, tuple[int | None, int]] = {}
        self.owners: dict[OwnerId, OwnerRow] = {}
        self.events: dict[int, dict[str, Any]] = {}  #: What happened, for people.
        self.logs: dict[TurnId, dict[int, bytearray]] = {}  #: Live output, by token.
        self.secrets: dict[str, str] = {}
        self.gone: set[OwnerId] = set()  #: Closed or killed: proven dead.
        self._watchers: dict[object, tuple[OwnerId, _Watcher]] = {}
        self._log_watchers: dict[object, tuple[OwnerId, _Watcher]] = {}
        self._admissions = self._events = 0
        self._clock_ms = self._offset_ms = 0

    # ------------------------------------------------------------------------- stamps

    def clock_ms(self) -> int:
        """The store's clock: it never goes back, whatever the wall clock does."""
        at = int(self.monotonic() * 1000)
        if not self._clock_ms:  # The first who asks sets it; the wall clock is read no more.
            self._offset_ms = self.now_ms() - at
        self._clock_ms = max(self._clock_ms, self._offset_ms + at)
        return self._clock_ms

    def now_iso(self) -> str:
        """The time as rows show it: RFC 3339, UTC, milliseconds."""
        at = datetime.fromtimestamp(self.now_ms() / 1000, UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def next_admission(self) -> int:
        self._admissions += 1
        return self._admissions

    def event(
        self,
        kind: str,
        session_id: str | None,
        turn_id: str | None,
        owner_id: str | None,
        *,
        lane: str | None = None,
        **data: Any,
    ) -> None:
        """Note what happened, for people.  *lane*: the turn's own, if it is not given."""
        self._events += 1
        turn = None if turn_id is None else self.turns.get(TurnId(turn_id))
        self.events[self._events] = {
            "event_id": self._events, "at": self.now_iso(), "kind": kind,
            "session_id": session_id, "turn_id": turn_id, "owner_id": owner_id,
            "lane": lane or (None if turn is None else turn.lane),
            "data": {name: value for name, value in data.items() if value is not None},
        }  # fmt: skip

    # ---------------------------------------------------------------- being told, dying

    def watch(
        self, owner_id: OwnerId, told: Callable[..., object], *, logs: bool = False
    ) -> Callable[[], None]:
        """Call *told* on the running loop at each change.  Returns: stops watching."""
        mark = object()
        watchers = self._log_watchers if logs else self._watchers
        with self.mutex:
            watchers[mark] = (owner_id, _Watcher(asyncio.get_running_loop(), told))

        def stop() -> None:
            with self.mutex:
                watchers.pop(mark, None)

        return stop

    def poke(self) -> None:
        """Tell everybody who watches the rows."""
        self._tell(self._watchers)

    def poke_logs(self, turn_id: TurnId, token: int) -> None:
        self._tell(self._log_watchers, turn_id, token)

    def _tell(self, watchers: dict[object, tuple[OwnerId, _Watcher]], *what: Any) -> None:
        with self.mutex:
            each = [watcher for _, watcher in watchers.values()]
        for watcher in each:
            with suppress(RuntimeError):  # Its loop is closed: nobody is there to be told.
                watcher.loop.call_soon_threadsafe(watcher.told, *what)

    def kill(self, owner_id: OwnerId) -> None:
        """
        What SIGKILL does to a process: nothing of it goes on, and nothing is tidied up.

        Its rows stay; its write locks are free, its place in every line is given up, and
        whatever it calls from now on raises.  It is proven dead for the others.  Idempotent.
        """
        with self.mutex:
            self.gone.add(owner_id)
            for watchers in (self._watchers, self._log_watchers):
                for mark in [m for m, (owner, _) in watchers.items() if owner == owner_id]:
                    del watchers[mark]
            rooms = list(self.rooms.values())
            waited = [each for room in rooms for each in room.writers.leave_all(owner_id)]
            following = [(room.writers, room.writers.grant()) for room in rooms]
        for each in waited:
            each.wake()  # To find itself nowhere.
        for writers, successor in following:
            self._hand_over(writers, successor)

    def rewrite(
        self, session_id: SessionId, change: Callable[[list[bytes]], list[bytes]]
    ) -> None:
        """
        What an editor or a restore does to a file: other lines in the place of all, behind
        the back of whoever writes.

        Args:
            change: gets all lines, the header first, each with its newline.
        """
        with self.mutex:
            lines = self.rooms[session_id].lines
            view = lines.view()
            lines.replace(b"".join(change([view.line(n) for n in range(view.count)])))

    def leave(self, writers: Line, waiter: Waiter) -> None:
        """Have a write lock no more, or wait no more; whoever is next has it then."""
        with self.mutex:
            writers.leave(waiter)
            following = writers.grant()
        self._hand_over(writers, following)

    def _hand_over(self, writers: Line, following: Waiter | None) -> None:
        while following is not None and not following.wake():
            with self.mutex:  # Its loop is closed: a dead waiter never breaks the chain.
                writers.leave(following)
                following = writers.grant()
