"""
Turns that wait for long: said once at the bound, then at twice, four times, … of it.

A process watches the turns that it took in, and those of its own that went back to their
places.  Nobody polls for one turn: the pump's look asks for those that are due by then, all
with one look at the store, and for none if none is.  A long queue is one line in the log: of
those of one session and lane that are due together, the first, and how many others.
"""

from __future__ import annotations

import heapq
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast._core.turns import State
from holdfast._runtime.receipts import place_reason
from holdfast.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from holdfast._core.settings import Settings
    from holdfast.ports import Store
    from holdfast.types import Place, Turn, TurnId

__all__ = ["Warnings"]

AT_ONCE: Final = 100  #: Turns a look: a page of reading.

#: A name of its own: a command that shows its person where a message stands turns it off.
_log = logging.getLogger("holdfast.wait")


@dataclass(slots=True)
class _Waiting:
    """A turn of ours that waits."""

    turn: Turn
    since_s: float
    every_s: float  #: The wait at which it is told next.


class Warnings:
    """
    Everybody in this process who waits for long.  Loop-bound.

    Args:
        told: called with each turn that is warned of, its place, and its wait so far in ms.
        now_s: seconds, of a clock that never goes back.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        told: Callable[[TurnId, Place, int], None],
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._settings, self._told = store, settings, told
        self._now_s = now_s
        self._waiting: dict[TurnId, _Waiting] = {}
        self._due: list[tuple[float, TurnId]] = []  #: A heap.

    def __len__(self) -> int:
        return len(self._waiting)

    def waits(self, turn: Turn) -> None:
        """*turn* was taken in here, or went back to its place."""
        bound_s = self._settings.wait_warn_ms / 1000
        if not bound_s or turn.state != State.ACCEPTED.value or turn.turn_id in self._waiting:
            return
        now_s = self._now_s()
        self._waiting[turn.turn_id] = _Waiting(turn, now_s, bound_s)
        heapq.heappush(self._due, (now_s + bound_s, turn.turn_id))

    def over(self, turn_id: TurnId) -> None:
        """It waits no more."""
        self._waiting.pop(turn_id, None)

    async def look(self) -> None:
        """Tell of every turn that is due and still waits."""
        due = self._now_due()
        if not due:
            return
        try:
            found = await self._store.control.turn_states(due, self._settings.lanes)
        except BaseException:
            self._again(due)
            raise
        first: dict[tuple[str, str], list[tuple[_Waiting, Place]]] = {}
        for turn_id, waiting in due.items():
            if self._waiting.get(turn_id) is not waiting:
                continue  # It has ended meanwhile.
            state = found.get(turn_id)
            if state is None or state.state != State.ACCEPTED.value:
                del self._waiting[turn_id]
                continue
            self._told(turn_id, state.place, self._next(waiting))
            line = first.setdefault((waiting.turn.session_id, waiting.turn.lane), [])
            line.append((waiting, state.place))
        for each in first.values():
            await self._tell(*each[0], others=len(each) - 1)

    def _now_due(self) -> dict[TurnId, _Waiting]:
        due: dict[TurnId, _Waiting] = {}
        while self._due and self._due[0][0] <= self._now_s() and len(due) < AT_ONCE:
            due_s, turn_id = heapq.heappop(self._due)
            waiting = self._waiting.get(turn_id)
            if waiting is None or due_s < waiting.since_s + waiting.every_s:
                continue  # Of a wait that is over.
            due[turn_id] = waiting
        return due

    def _next(self, waiting: _Waiting) -> int:
        """When it is told again.  Returns how long it has waited, in ms."""
        waited_s = self._now_s() - waiting.since_s
        while waiting.every_s <= waited_s:
            waiting.every_s *= 2
        due_s = waiting.since_s + waiting.every_s
        heapq.heappush(self._due, (due_s, waiting.turn.turn_id))
        return round(waited_s * 1000)

    def _again(self, due: Iterable[TurnId]) -> None:
        for turn_id in due:
            heapq.heappush(self._due, (self._now_s(), turn_id))

    async def _tell(self, waiting: _Waiting, place: Place, *, others: int) -> None:
        """In log and events.  *others*: due with it, behind it in its session and lane."""
        turn, lanes = waiting.turn, self._settings.lanes
        waited_ms = round((self._now_s() - waiting.since_s) * 1000)
        reason = place_reason(place, turn.agent_id, lanes) or "nothing is in its way"
        _log.warning(
            "lane wait exceeded: lane=%s waited_ms=%d position=%d blocker=%s turn=%s session=%s"
            " others=%d reason=%s",
            turn.lane, waited_ms, place.position, place.blocker or "-", turn.turn_id,
            turn.session_key, others, reason,
        )  # fmt: skip
        told = {
            "waited_ms": waited_ms, "position": place.position,
            "waiting_for": place.waiting_for, "blocker": place.blocker,
            "blocker_lane": place.lane, "others": others, "reason": reason,
        }  # fmt: skip
        try:
            await self._store.control.note(
                "wait", self._store.owner.owner_id, session_id=turn.session_id,
                turn_id=turn.turn_id, data=told,
            )  # fmt: skip
        except StoreError as error:
            _log.info("not noted: %s", error)
