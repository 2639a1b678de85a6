"""Everything that `holdfast top` shows, in one moment.  Reading only."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from holdfast._core import words
from holdfast._core.telling import ENDS, SORTS, lane_json, sort_of
from holdfast._stamps import age_ms, now_iso
from holdfast.backends.files.control import queries, telling
from holdfast.backends.files.look.around import life

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping

    from holdfast._core.settings import Lane
    from holdfast.backends.files.reading import FilesReading
    from holdfast.types import EventRow, Holder, Waiting

__all__ = ["snapshot"]

RECENT_MS: Final = 60_000
EVENTS_BACK: Final = 20_000  #: Numbers looked at for the last minute.
WAITS_MAX: Final = 50

_KINDS: Final = (
    "commit", "end", "give_back", "fenced", "abort_requested", "merged", "adopted",
)  # fmt: skip


def snapshot(reading: FilesReading, lanes: Mapping[str, Lane]) -> dict[str, Any]:
    """As `holdfast top --json` tells it."""
    told, waits = reading.ask(lambda db: _snapshot(db, reading.where, lanes))
    agents = {each.turn.agent_id for _, each in waits}
    manned = {each for each in agents if reading.runners(each)}
    return {**told, "waits": [_wait(*each, lanes, manned) for each in waits]}


def _snapshot(
    db: sqlite3.Connection, where: str, lanes: Mapping[str, Lane]
) -> tuple[dict[str, Any], list[tuple[int, Waiting]]]:
    counts = queries.counts(db)
    told = {
        "at": now_iso(),
        "store": where,
        "sessions": counts.sessions,
        "running": counts.running,
        "waiting": counts.waiting,
        "owed": telling.owed(db),
        "last_minute": _recent(db),
        "lanes": [lane_json(each) for each in telling.lanes(db, lanes)],
        "leases": [_lease(each) for each in telling.holders(db)],
    }
    return told, telling.longest_waits(db, lanes, WAITS_MAX)


def _recent(db: sqlite3.Connection) -> dict[str, int]:
    """What happened within the last minute, by sort; and how many turns ended."""
    after = max(0, telling.newest_event(db) - EVENTS_BACK)
    found = Counter[str]()
    while page := telling.events(db, after, kinds=_KINDS):
        for each in page:
            if age_ms(each.at) < RECENT_MS:
                _count(found, each)
        after = page[-1].event_id
    return {"ended": found["ended"], **{f"{sort}s": found[sort] for sort in SORTS}}


def _count(found: Counter[str], event: EventRow) -> None:
    sort = sort_of(event)
    if sort is not None:
        found[sort] += 1
    if event.kind in ENDS:
        found["ended"] += 1


def _lease(holder: Holder) -> dict[str, Any]:
    turn, owner = holder.turn, holder.owner
    return {
        "session": turn.session_key,
        "session_id": turn.session_id,
        "turn_id": turn.turn_id,
        "lane": turn.lane,
        "since": holder.since,
        "age_ms": age_ms(holder.since),
        "recovering": holder.recovering,
        "abort_requested": turn.abort_requested,
        "pid": None if owner is None else owner.pid,
        "host": None if owner is None else owner.host,
        "life": "gone" if owner is None else life(owner),
        "progress": dict(holder.progress),
    }


def _wait(
    count: int, waiting: Waiting, lanes: Mapping[str, Lane], manned: Collection[str]
) -> dict[str, Any]:
    """*manned*: agents with a runner not proven dead; the rows know less until it is buried."""
    turn, place = waiting.turn, waiting.place
    if not turn.bound and place.waiting_for != "merge" and turn.agent_id not in manned:
        place = replace(place, waiting_for="no_runner")
    since_ms = None if place.since is None else age_ms(place.since)
    return {
        "session": turn.session_key,
        "session_id": turn.session_id,
        "waiting": count,
        "turn_id": turn.turn_id,
        "lane": turn.lane,
        "since": turn.accepted_at,
        "waited_ms": age_ms(turn.accepted_at),
        "waiting_for": place.waiting_for,
        "reason": words.reason(place, age_ms=since_ms, agent=turn.agent_id, lanes=lanes),
    }
