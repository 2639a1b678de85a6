"""What happened and what stands, as JSON and as kinds: the same for commands and for HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from holdfast.types import EventRow, LaneState

__all__ = ["ENDS", "SORTS", "event_json", "lane_json", "sort_of"]

#: What a person looks for in the event log, in the order in which it is told.
SORTS: Final = ("takeover", "reclaim", "abort", "merge", "preemption", "adoption")

#: Kinds of event that give a turn its outcome.
ENDS: Final = frozenset({"commit", "end"})

_SORTS: Final = {
    "fenced": "reclaim",
    "abort_requested": "abort",
    "merged": "merge",
    "adopted": "adoption",
}


def sort_of(event: EventRow) -> str | None:
    """
    Which of `SORTS` an event is; None: none of them.

    A takeover: a transcript was rewritten under a turn.  A reclaim: a session's token was
    moved on, away from an owner that is dead, silent or lost it.
    """
    if event.kind in {"give_back", "end"} and event.data.get("reason") == "taken_over":
        return "takeover"
    if event.kind == "abort_requested" and event.data.get("reason") == "preempted":
        return "preemption"
    return _SORTS.get(event.kind)


def event_json(event: EventRow) -> dict[str, Any]:
    return {
        "id": event.event_id,
        "at": event.at,
        "kind": event.kind,
        "session_id": event.session_id,
        "turn_id": event.turn_id,
        "owner_id": event.owner_id,
        "lane": event.lane,
        "data": dict(event.data),
    }


def lane_json(lane: LaneState) -> dict[str, Any]:
    return {
        "lane": lane.lane,
        "concurrency": lane.concurrency,
        "priority": lane.priority,
        "running": lane.running,
        "waiting": lane.waiting,
        "oldest": lane.oldest,
        "oldest_ms": lane.oldest_ms,
    }
