"""
The founding table of stuck sessions, judged by progress: every combination of facts.

The oracle below is the table in `openclaw-behaviour.md` 7.3, written a second time and
differently, over time that is lost and not over the age of an event.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from holdfast._core import turns
from holdfast._core.recovery import (
    Bounds,
    Facts,
    Remedy,
    State,
    Work,
    judge,
    lost_s,
    next_age_s,
)

WARN_S, ABORT_S, IDLE_S, MAX_S, TOOL_S = 120.0, 300.0, 60.0, 3600.0, 900.0
BOUNDS = Bounds(warn_s=WARN_S, abort_s=ABORT_S, idle_s=IDLE_S, max_s=MAX_S)
#: Just before and at each bound, and between them.
AGES = (0.0, 59.0, 60.0, 119.0, 120.0, 179.0, 180.0, 299.0, 300.0, 359.0, 360.0, 3599.0, 3600.0)
TOOL_AGES = (0.0, 899.0, 1019.0, 1020.0, 1199.0, 1200.0)


def every_fact() -> Iterator[Facts]:
    for state, queued, work, age, moved, terminal, late in product(
        State, (0, 3), Work, AGES, AGES, (False, True), (False, True)
    ):
        facts = Facts(state, queued, work, age, moved, terminal=terminal, loop_late=late)
        if work is not Work.TOOL:
            yield facts
            continue
        for tool_age in TOOL_AGES:
            yield replace(facts, tool_age_s=tool_age, tool_timeout_s=TOOL_S)


def without_progress(facts: Facts) -> float:
    if facts.work is Work.MODEL:  # Silence up to its own bound is a model thinking.
        return max(0.0, facts.progress_age_s - IDLE_S)
    if facts.work is Work.TOOL and facts.tool_age_s is not None:
        return max(0.0, min(facts.progress_age_s, facts.tool_age_s - TOOL_S))
    return facts.progress_age_s


def by_the_table(facts: Facts) -> tuple[str, str, str, str | None]:  # noqa: PLR0911
    """(begins the line, reason, class, abort)"""
    lost, queued = without_progress(facts), facts.queue_depth > 0
    idle = facts.state is State.IDLE
    running = not idle and facts.work is not Work.NONE
    abort = "no_progress" if lost >= ABORT_S else None
    fine = ("ok", "active_work", "ok", None)
    if facts.loop_late:
        return fine
    if not running:
        if facts.age_s < WARN_S or (idle and not queued):
            return fine
        reason = "queued_work_without_active_run" if queued else "stale_session_state"
        return "stuck", reason, "stale_session_state", None if idle else "no_progress"
    if facts.age_s >= MAX_S:
        return "stalled", "max_time", "stalled_agent_run", "max_time"
    if lost < WARN_S:
        if facts.age_s < WARN_S:
            return fine
        reason = "queued_behind_active_work" if queued else "active_work"
        return "long-running", reason, "long_running", None
    if facts.work is Work.TOOL:
        return "stalled", "blocked_tool_call", "blocked_tool_call", abort
    reason = "active_work_without_progress"
    if queued and facts.terminal:
        reason = "queued_behind_terminal_active_work"
    return "stalled", reason, "stalled_agent_run", abort


def test_every_combination_of_facts_has_the_tables_verdict() -> None:
    seen, count = set(), 0
    for facts in every_fact():
        verdict = judge(facts, BOUNDS)
        told = (verdict.told, verdict.reason, verdict.classification, verdict.abort)
        assert told == by_the_table(facts), facts
        seen.add(verdict)
        count += 1
    assert count > 20_000
    assert {verdict.classification for verdict in seen} == {
        "ok", "long_running", "stalled_agent_run", "blocked_tool_call", "stale_session_state",
    }  # fmt: skip
    assert {verdict.reason for verdict in seen} == {
        "active_work", "queued_behind_active_work", "active_work_without_progress",
        "queued_behind_terminal_active_work", "blocked_tool_call", "max_time",
        "queued_work_without_active_run", "stale_session_state",
    }  # fmt: skip


def test_one_remedy_a_verdict_and_only_an_abort_names_a_reason() -> None:
    for facts in every_fact():
        verdict = judge(facts, BOUNDS)
        assert (verdict.remedy is Remedy.ABORT) == (verdict.abort is not None)
        assert verdict.abort is None or verdict.abort in turns.ABORTS
        expected = {"ok": {Remedy.NONE}, "long-running": {Remedy.NONE}}
        assert verdict.remedy in expected.get(verdict.told, {Remedy.WARN, Remedy.ABORT})


def test_a_run_that_moves_is_never_ended_for_want_of_progress() -> None:
    for facts in every_fact():
        if facts.work is not Work.NONE and lost_s(facts, IDLE_S) < ABORT_S:
            assert judge(facts, BOUNDS).abort != "no_progress" or facts.state is State.IDLE


def test_a_tool_in_its_tenth_minute_of_fifteen_is_at_work() -> None:
    tool = Facts(State.PROCESSING, 1, Work.TOOL, 600, 600, 600, TOOL_S)
    assert judge(tool, BOUNDS).classification == "long_running"
    outlasted = replace(tool, age_s=1200, progress_age_s=1200, tool_age_s=1200)
    assert judge(outlasted, BOUNDS).abort == "no_progress"


def test_a_late_loop_is_no_dead_run() -> None:
    silent = Facts(State.PROCESSING, 1, Work.MODEL, 3000, 3000)
    assert judge(silent, BOUNDS).abort == "no_progress"
    assert judge(replace(silent, loop_late=True), BOUNDS).told == "ok"


def test_an_abort_bound_below_the_warning_still_aborts() -> None:
    quick = replace(BOUNDS, abort_s=10.0)
    assert judge(Facts(State.PROCESSING, 0, Work.RUN, 11, 11), quick).abort == "no_progress"
    assert judge(Facts(State.PROCESSING, 0, Work.RUN, 9, 9), quick).told == "ok"


def test_without_a_longest_time_nothing_is_too_long() -> None:
    streaming = Facts(State.PROCESSING, 0, Work.MODEL, 1e6, 0)
    assert judge(streaming, replace(BOUNDS, max_s=0)).classification == "long_running"


@pytest.mark.parametrize(("age", "again"), [(120, 240), (240, 480), (10, 130), (1000, 2000)])
def test_the_same_is_told_ever_more_seldom(age: float, again: float) -> None:
    assert next_age_s(age, WARN_S) == again


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("abort", [None, *turns.ABORTS])
@pytest.mark.parametrize("reason", ["owner_died", "owner_silent", "abandoned", *turns.ABORTS])
def test_what_becomes_of_a_run_that_was_ended(
    reason: str, abort: str | None, bound: bool, attempts: int
) -> None:
    """What somebody wished first is what it ends as; the rest is the loss's own rule."""
    loss = turns.after_loss(
        reason=reason, attempts=attempts, attempts_max=3, bound=bound, abort=abort
    )
    row = turns.TABLE[turns.State.RUNNING][loss.event]
    assert loss.outcome in (row.outcomes or (None,))
    wished = abort or (reason if reason in turns.ABORTS else None)
    if wished is not None and turns.ABORTS[wished] is not None:
        assert (loss.outcome, loss.reason) == (turns.ABORTS[wished], wished)
    elif bound:
        assert loss.outcome == "failed"
    elif wished in turns.GIVES_BACK:
        assert loss.event is turns.Event.GIVE_BACK
    elif attempts == 3:
        assert (loss.outcome, loss.reason) == ("failed", "attempts_used_up")
    else:
        assert (loss.event, loss.reason) == (turns.Event.REQUEUE, wished or reason)
