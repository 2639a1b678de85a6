"""
Places in words: what a turn waits for, as one sentence for people.

`WAITS` has every word that a store can put into `Place.waiting_for`; a word that is not here
would reach a person as it is, and a test looks for such.  Nothing here reads a clock: ages
are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast._core.delivery import HEAD_BLOCKS_MS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast._core.settings import Lane
    from holdfast.types import Owed, Place

__all__ = ["SHORT_ID_CHARS", "WAITS", "delivery", "duration", "nth", "reason", "short"]

SHORT_ID_CHARS: Final = 13  #: Of an id: down to the millisecond.

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400

#: Waits for another turn, a slot or a process: put together in `reason`.
_MADE: Final = ("turn", "queue", "slot", "no_runner", "quiet", "merge")
#: It has been tried, and stands at its place again.
_AGAIN: Final = {
    "write_lock": "somebody else has the transcript's write lock",
    "lock_lost": "its write lock was taken away by a stranger",
    "disk_full": "the disk is full",
    "drained": "its process stopped taking turns",
    "handed_over": "its process was asked to let go of it",
    "taken_over": "its transcript was rewritten while it ran",
    "owner_died": "the process that ran it died",
    "owner_silent": "the process that ran it fell silent",
    "abandoned": "the process that ran it lost it",
    "abort_ignored": "its last attempt did not end when it was asked to",
    "no_progress": "nothing moved in its last attempt",
    "max_time": "its last attempt took too long",
    "fenced": "its last attempt was fenced",
    "cancelled": "its end was asked for",
    "interrupted": "a later message asked for its end",
    "preempted": "a person's message comes first",
    "rolled_back": "a later message takes it back",
}
_PLAIN: Final = {
    "home": "the process that took it in is to start it; another one will in 2 s",
    "unknown": "it is accepted; the store did not say where it stands",
}
#: Every value of `Place.waiting_for` that has words.
WAITS: Final = frozenset({*_MADE, *_AGAIN, *_PLAIN})


def reason(
    place: Place,
    *,
    age_ms: int | None = None,
    agent: str | None = None,
    lanes: Mapping[str, Lane] | None = None,
) -> str:
    """
    One sentence, without a full stop; "" if nothing is in its way.

    Args:
        age_ms: how long ago `Place.since` was.
        agent: whose turn it is.
        lanes: for how many slots a lane has.
    """
    what = place.waiting_for
    if what is None:
        return f"{_ahead(place.position)} in its session" if place.position else ""
    if what in {"turn", "queue"}:
        return _behind(place, age_ms)
    if what in _PLAIN:
        return _PLAIN[what]
    made = {
        "slot": lambda: _slot(place, lanes or {}),
        "no_runner": lambda: _no_runner(agent),
        "quiet": lambda: f"collecting: it runs once nothing was added {_for(place.left_ms)}",
        "merge": lambda: f"goes into {_turn(place)}: one reply for both, or it runs by itself",
    }
    if what in made:
        return made[what]()
    told = _AGAIN.get(what, what.replace("_", " "))
    return f"{told}; it is tried again {_in(place.left_ms)}"


def _no_runner(agent: str | None) -> str:
    whose = f"agent {agent}" if agent else "its agent"
    return f"no runner for {whose} is alive: start one with `holdfast serve`"


def _behind(place: Place, age_ms: int | None) -> str:
    """Behind a turn that runs (then `since` is known), or that waits itself."""
    if place.blocker is None:
        return f"{_ahead(place.position)} in its session"
    if place.since is None:
        return f"{_ahead(place.position)}; {_turn(place)} comes before it"
    line = "next in line" if place.position <= 1 else f"{nth(place.position)} in line"
    running = "is running" if age_ms is None else f"has been running for {duration(age_ms)}"
    return f"{line}; {_turn(place)} {running}"


def _slot(place: Place, lanes: Mapping[str, Lane]) -> str:
    if place.lane is None:
        return "waiting for a free slot of its lane"
    lane = lanes.get(place.lane)
    used = "" if lane is None else f" ({lane.concurrency} of {lane.concurrency} in use)"
    return f"waiting for a free slot of lane {place.lane}{used}"


def _turn(place: Place) -> str:
    lane = f"{place.lane} " if place.lane else ""
    return f"the {lane}turn {short(place.blocker)}" if place.blocker else f"another {lane}turn"


def _ahead(position: int) -> str:
    return "next in line" if not position else f"{position} ahead"


def _for(left_ms: int) -> str:
    return f"for {duration(left_ms)}" if left_ms else "for a moment"


def _in(left_ms: int) -> str:
    return f"in {duration(left_ms)}" if left_ms else "at once"


def delivery(owed: Owed, life: str = "alive") -> str:
    """
    What a part of a reply waits for.

    Args:
        life: of the process that attempts it, as `Around.lives` has it.
    """
    if owed.state == "attempting":
        return {
            "dead": "was being handed over by a process that has died; another takes it up",
            "stopped": "is being handed over by a process that is stopped",
        }.get(life, "is being handed over now")
    if owed.ahead is not None:
        behind = f"waits behind {owed.ahead}, which goes to the same target first"
        own = owed.ahead.startswith(f"{owed.turn_id}.")
        return behind if own else f"{behind}; it is passed after {duration(HEAD_BLOCKS_MS)}"
    failed = f" after {owed.attempts} attempt(s): {owed.reason}" if owed.reason else ""
    if owed.state == "unknown":
        when = f" {_in(owed.left_ms)}" if owed.left_ms else ""
        return f"nobody can tell whether it arrived{failed}; its channel decides{when}"
    return f"{f'is tried again {_in(owed.left_ms)}' if owed.left_ms else 'is due now'}{failed}"


def nth(number: int) -> str:
    """``1st``, ``2nd``, ``3rd``, ``4th``, ``11th``, …"""
    teens = number % 100 in {11, 12, 13}
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def short(turn_id: str) -> str:
    """A beginning of *turn_id* that a person can tell from others, and `turns show` takes."""
    return turn_id if len(turn_id) <= SHORT_ID_CHARS else f"{turn_id[:SHORT_ID_CHARS]}…"


def duration(milliseconds: int) -> str:
    """``34 ms``, ``1.3 s``, ``42 s``, ``4 min``, ``2 h 5 min``, ``3 d``."""
    milliseconds = max(0, milliseconds)
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    seconds = milliseconds / 1000
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 2 * _MINUTE_S:
        return f"{whole} s"
    if whole < 2 * _HOUR_S:
        return f"{whole // _MINUTE_S} min"
    if whole < 2 * _DAY_S:
        minutes = whole % _HOUR_S // _MINUTE_S
        return f"{whole // _HOUR_S} h" + (f" {minutes} min" if minutes else "")
    return f"{whole // _DAY_S} d"
