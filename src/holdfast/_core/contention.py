"""
Who waited for whom: a report from the event log.

A session has one holder at a time, so what a turn waited for is told by who held its session
meanwhile.  For each session and lane the time held is summed up; a turn notes the sums when
it begins to wait and compares when it starts.  So a log is read once, whatever queues there
were.  What is left of a wait, the session being free, went into slots, runners, quiet windows.

The log is bounded: of a turn whose beginning is gone nothing is told but its end.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.telling import ENDS, SORTS, sort_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from holdfast.types import EventRow

__all__ = ["FREE", "Report", "Tally", "report"]

#: In place of a lane: the session was free, and something else was waited for.
FREE: Final = "(free)"
WORST_MAX: Final = 10

_LEAVES: Final = ENDS | {"requeue", "give_back"}


@dataclass(slots=True)
class Tally:
    """Many durations."""

    values: list[int] = field(default_factory=list)

    @property
    def total_ms(self) -> int:
        return sum(self.values)

    def quantile(self, share: float) -> int:
        """The least value that *share* of all do not exceed.  There must be one."""
        return sorted(self.values)[max(0, math.ceil(share * len(self.values)) - 1)]

    def to_json(self) -> dict[str, int]:
        return {
            "turns": len(self.values),
            "total_ms": self.total_ms,
            "p50_ms": self.quantile(0.5),
            "p95_ms": self.quantile(0.95),
            "max_ms": max(self.values),
        }


@dataclass(slots=True)
class Report:
    """What the event log says of contention."""

    events: int = 0
    first: str | None = None
    last: str | None = None
    turns: int = 0  #: That were accepted.
    waiting: int = 0  #: That had not started, and not ended, at the end of the log.
    #: (the lane that waited, the lane that it waited for or FREE) → how long, turn by turn.
    contention: dict[tuple[str, str], Tally] = field(default_factory=dict)
    waits: dict[str, Tally] = field(default_factory=dict)  #: By lane, to the first start.
    runs: dict[str, Tally] = field(default_factory=dict)  #: By lane, to outcomes.
    outcomes: Counter[str] = field(default_factory=Counter)
    stuck: Counter[str] = field(default_factory=Counter)  #: By class.
    by_lane: dict[str, Counter[str]] = field(default_factory=dict)  #: Sort → lane → count.
    by_session: dict[str, Counter[str]] = field(default_factory=dict)
    #: Session → how long its turns waited for each other.
    waited_in: Counter[str] = field(default_factory=Counter)

    @property
    def worst(self) -> list[str]:
        """Sessions by how long their turns waited for each other, then by what befell them."""
        befell = Counter[str]()
        for counts in self.by_session.values():
            befell.update(counts)
        every = self.waited_in.keys() | befell.keys()
        ordered = sorted(every, key=lambda each: (-self.waited_in[each], -befell[each], each))
        return ordered[:WORST_MAX]

    def to_json(self, keys: Mapping[str, str]) -> dict[str, Any]:
        """*keys*: a name for people of each session, if it has one."""
        return {
            "events": self.events,
            "from": self.first,
            "to": self.last,
            "turns": self.turns,
            "still_waiting": self.waiting,
            "outcomes": dict(self.outcomes),
            "contention": [
                {"waiting": waiting, "behind": behind, **tally.to_json()}
                for (waiting, behind), tally in self.worst_first()
            ],
            "waits": {lane: tally.to_json() for lane, tally in sorted(self.waits.items())},
            "runs": {lane: tally.to_json() for lane, tally in sorted(self.runs.items())},
            "happened": {
                sort: {
                    "total": sum(self.by_lane[sort].values()),
                    "by_lane": dict(self.by_lane[sort].most_common()),
                    "by_session": dict(self.by_session[sort].most_common(WORST_MAX)),
                }
                for sort in SORTS
            },
            "stuck": dict(self.stuck),
            "worst": [self._session(each, keys.get(each)) for each in self.worst],
        }

    def worst_first(self) -> list[tuple[tuple[str, str], Tally]]:
        return sorted(self.contention.items(), key=lambda one: (-one[1].total_ms, one[0]))

    def _session(self, session_id: str, key: str | None) -> dict[str, Any]:
        counts = {sort: self.by_session[sort][session_id] for sort in SORTS}
        return {
            "session_id": session_id, "key": key, "waited_ms": self.waited_in[session_id],
            **{sort: count for sort, count in counts.items() if count},
        }  # fmt: skip


@dataclass(slots=True)
class _Turn:
    """A turn that waits, or runs."""

    lane: str
    begun_ms: int  #: Of this wait, or of this run.
    before: Mapping[str, int]  #: What each lane had held of its session by then.
    started: bool = False


@dataclass(slots=True)
class _Session:
    held: Counter[str] = field(default_factory=Counter)  #: ms, by lane; runs that are over.
    holder: tuple[str, str, int] | None = None  #: Turn, lane, since.

    def held_by(self, now_ms: int) -> dict[str, int]:
        sums = dict(self.held)
        if self.holder is not None:
            _, lane, since_ms = self.holder
            sums[lane] = sums.get(lane, 0) + max(0, now_ms - since_ms)
        return sums


def report(
    events: Iterable[EventRow], at_ms: Callable[[str], int], *, since: str = ""
) -> Report:
    """
    Args:
        events: the log, oldest first.
        at_ms: the milliseconds of a moment (RFC 3339).
        since: count only what happened from then on (RFC 3339, UTC, as the log has it).
    """
    reading = _Reading(since, at_ms)
    for event in events:
        reading.take(event)
    return reading.done()


class _Reading:
    def __init__(self, since: str, at_ms: Callable[[str], int]) -> None:
        self._since, self._at_ms = since, at_ms
        self._report = Report(
            by_lane={sort: Counter() for sort in SORTS},
            by_session={sort: Counter() for sort in SORTS},
        )
        self._turns: dict[str, _Turn] = {}
        self._sessions: defaultdict[str, _Session] = defaultdict(_Session)

    def done(self) -> Report:
        self._report.waiting = sum(not turn.started for turn in self._turns.values())
        return self._report

    def take(self, event: EventRow) -> None:
        counted = event.at >= self._since
        if counted:
            self._count(event)
        if event.turn_id is None or event.session_id is None:
            return
        now_ms, lane = self._at_ms(event.at), event.lane or "?"
        session = self._sessions[event.session_id]
        if event.kind == "accepted":
            before = session.held_by(now_ms)
            self._turns[event.turn_id] = _Turn(lane, now_ms, before)
        elif event.kind == "lease":
            self._lease(event, session, lane, now_ms, counted=counted)
        elif event.kind in _LEAVES:
            self._leave(event, session, lane, now_ms, counted=counted)

    def _count(self, event: EventRow) -> None:
        found = self._report
        found.events += 1
        found.first, found.last = found.first or event.at, event.at
        sort = sort_of(event)
        if sort is not None:
            found.by_lane[sort][event.lane or "?"] += 1
            if event.session_id is not None:
                found.by_session[sort][event.session_id] += 1
        if event.kind == "accepted":
            found.turns += 1
        elif event.kind in ENDS:
            found.outcomes[str(event.data.get("outcome"))] += 1
        elif event.kind == "stuck":
            found.stuck[str(event.data.get("class"))] += 1

    def _lease(
        self, event: EventRow, session: _Session, lane: str, now_ms: int, *, counted: bool
    ) -> None:
        assert event.turn_id is not None
        turn = self._turns.setdefault(
            event.turn_id, _Turn(lane, now_ms, session.held_by(now_ms))
        )
        if counted:
            if not turn.started and "waited_ms" in event.data:
                waited_ms = int(event.data["waited_ms"])
                _add(self._report.waits, lane, waited_ms)
            self._blame(event, session, turn, now_ms)
        turn.started, turn.begun_ms = True, now_ms
        session.holder = (event.turn_id, lane, now_ms)

    def _blame(self, event: EventRow, session: _Session, turn: _Turn, now_ms: int) -> None:
        """For what did *turn* wait, now that its wait is over?"""
        left_ms = max(0, now_ms - turn.begun_ms)
        for lane, held_ms in session.held_by(now_ms).items():
            behind_ms = held_ms - turn.before.get(lane, 0)
            if behind_ms > 0:
                _add(self._report.contention, (turn.lane, lane), behind_ms)
                self._report.waited_in[str(event.session_id)] += behind_ms
                left_ms -= behind_ms
        if left_ms > 0:
            _add(self._report.contention, (turn.lane, FREE), left_ms)

    def _leave(
        self, event: EventRow, session: _Session, lane: str, now_ms: int, *, counted: bool
    ) -> None:
        assert event.turn_id is not None
        ran_ms = None
        if session.holder is not None and session.holder[0] == event.turn_id:
            ran_ms = max(0, now_ms - session.holder[2])
            session.held[lane] += ran_ms
            session.holder = None
        if event.kind in ENDS:
            told = event.data.get("ran_ms", ran_ms)
            if counted and told is not None:
                _add(self._report.runs, lane, int(told))
            self._turns.pop(event.turn_id, None)
        else:  # At its place again: what it waits for from now on is counted anew.
            again = _Turn(lane, now_ms, session.held_by(now_ms), started=True)
            self._turns[event.turn_id] = again


def _add(tallies: dict[Any, Tally], name: Any, value: int) -> None:
    tallies.setdefault(name, Tally()).values.append(value)
