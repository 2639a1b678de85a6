"""
When is a session stuck, and what may be done about it?  Judged by progress.

**Progress** is bytes from a model, or a tool that runs within its own `timeout_s`.  A model
call that is silent for no longer than `models.idle_timeout_ms` counts too: that bound is
there for it, and ends it.  `turn.progress_timeout_ms` counts only time in which neither
holds; that time is called *lost* here.

The founding table, in its words, with three changes:

- what was judged by the age of an event is judged by lost time: a tool in its tenth minute of
  fifteen is at work;
- the loop of the judging process must be in time.  While it is late, bytes wait in sockets
  and nobody is to blame: no verdict;
- nobody is "reset": a queue that stands proceeds by itself once its lease is free, so the
  only thing that is ever done to a run is to end it.

This file is the whole table; `_runtime.judging` finds the facts and does what it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "Bounds",
    "Facts",
    "Remedy",
    "State",
    "Verdict",
    "Work",
    "judge",
    "lost_s",
    "next_age_s",
]


class State(StrEnum):
    IDLE = "idle"  #: Nobody has the session's lease.
    PROCESSING = "processing"  #: Somebody has.


class Work(StrEnum):
    """What a run is at, most telling first."""

    TOOL = "tool_call"
    MODEL = "model_call"
    RUN = "embedded_run"  #: Neither: it loads, waits for the write lock, or commits.
    NONE = "none"  #: There is a lease and no run, or no lease.


class Remedy(StrEnum):
    NONE = "none"
    WARN = "warn"
    ABORT = "abort"  #: Ask the run to end; after the settle bound it is fenced.


@dataclass(frozen=True, slots=True)
class Facts:
    """One session, as the keeper of its owner sees it."""

    state: State
    queue_depth: int  #: Turns that wait for it.
    work: Work
    age_s: float  #: How long it has been in this state.
    progress_age_s: float  #: Since the last movement: a byte, a tool's start or end.
    tool_age_s: float | None = None  #: Of the running tool that has the most time left.
    tool_timeout_s: float | None = None
    terminal: bool = False  #: The last movement was the end of the answer.
    loop_late: bool = False  #: The judge's own loop does not answer in time.


@dataclass(frozen=True, slots=True)
class Bounds:
    warn_s: float  #: `recovery.warn_ms`
    abort_s: float  #: `turn.progress_timeout_ms`
    idle_s: float  #: `models.idle_timeout_ms`
    max_s: float = 0.0  #: `turn.max_ms`; 0: no bound.


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a session is, in the founding system's words, and what may be done."""

    told: str  #: ok | long-running | stalled | stuck: begins the line in the log.
    reason: str
    classification: str
    remedy: Remedy
    abort: str | None = None  #: One of `turns.ABORTS`.


_OK = Verdict("ok", "active_work", "ok", Remedy.NONE)


def lost_s(facts: Facts, idle_s: float) -> float:
    """For how long there has been no progress; 0: there is."""
    lost = facts.progress_age_s
    if facts.work is Work.MODEL:
        lost -= idle_s
    elif facts.work is Work.TOOL:
        assert facts.tool_age_s is not None
        assert facts.tool_timeout_s is not None
        lost = min(lost, facts.tool_age_s - facts.tool_timeout_s)
    return max(lost, 0.0)


def judge(facts: Facts, bounds: Bounds) -> Verdict:
    """The first row that fits."""
    if facts.loop_late:
        return _OK
    lost, queued = lost_s(facts, bounds.idle_s), facts.queue_depth > 0
    if facts.state is State.IDLE or facts.work is Work.NONE:
        return _without_run(facts, bounds, queued=queued)
    if 0 < bounds.max_s <= facts.age_s:
        return Verdict("stalled", "max_time", "stalled_agent_run", Remedy.ABORT, "max_time")
    if lost >= min(bounds.warn_s, bounds.abort_s):
        return _stalled(facts, queued=queued, gone=lost >= bounds.abort_s)
    if facts.age_s >= bounds.warn_s:
        reason = "queued_behind_active_work" if queued else "active_work"
        return Verdict("long-running", reason, "long_running", Remedy.NONE)
    return _OK


def _stalled(facts: Facts, *, queued: bool, gone: bool) -> Verdict:
    reason = classification = "active_work_without_progress"
    if facts.work is Work.TOOL:
        reason = classification = "blocked_tool_call"
    elif queued and facts.terminal:
        reason = "queued_behind_terminal_active_work"
    if facts.work is not Work.TOOL:
        classification = "stalled_agent_run"
    if gone:
        return Verdict("stalled", reason, classification, Remedy.ABORT, "no_progress")
    return Verdict("stalled", reason, classification, Remedy.WARN)


def _without_run(facts: Facts, bounds: Bounds, *, queued: bool) -> Verdict:
    """Nobody is at work.  A lease without a run is a leak of its owner; a queue proceeds."""
    leaked = facts.state is State.PROCESSING
    if facts.age_s < bounds.warn_s or not (leaked or queued):
        return _OK
    reason = "queued_work_without_active_run" if queued else "stale_session_state"
    remedy = Remedy.ABORT if leaked else Remedy.WARN
    return Verdict(
        "stuck", reason, "stale_session_state", remedy, "no_progress" if leaked else None
    )


def next_age_s(age_s: float, threshold_s: float) -> float:
    """At which age the same verdict is told again: ever more seldom."""
    return max(age_s + threshold_s, 2 * age_s)
