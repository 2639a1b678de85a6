"""The table of a delivery, all of it, and what is decided after an attempt."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast._core import delivery
from holdfast._core.delivery import (
    AMBIGUOUS,
    ATTEMPTS_MAX,
    BACKOFF_MS,
    HEAD_BLOCKS_MS,
    MAY_HAVE_ARRIVED,
    PERMANENT,
    TABLE,
    TRANSIENT,
    Event,
    Failure,
    State,
    after_failure,
    look,
    step,
    terminal,
)
from holdfast.types import Delivery


def test_every_state_is_reached_and_only_two_are_final() -> None:
    reached, todo = set[State](), [State.PENDING]
    while todo:
        state = todo.pop()
        if state not in reached:
            reached.add(state)
            todo += TABLE[state].values()
    assert reached == set(State)
    assert {state for state in State if terminal(state)} == {State.DELIVERED, State.FAILED}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_a_blank_cell_is_a_bug_of_the_caller(state: State, event: Event) -> None:
    if event in TABLE[state]:
        assert step(state.value, event) is TABLE[state][event]
    else:
        with pytest.raises(AssertionError):
            step(state.value, event)


def test_a_reason_means_one_thing() -> None:
    groups = [set(PERMANENT), set(TRANSIENT), set(AMBIGUOUS), set(delivery.OVER)]
    assert sum(map(len, groups)) == len(set().union(*groups))


# ----------------------------------------------------------------------- after an attempt


def test_what_failed_is_tried_again_after_5_s_25_s_2_min_10_min_and_no_more() -> None:
    assert BACKOFF_MS == (5_000, 25_000, 120_000, 600_000)
    for attempt, delay_ms in enumerate(BACKOFF_MS, 1):
        found = after_failure(Failure("unreachable"), attempt, resend=True, asks=False)
        assert (found.state, found.delay_ms) == (State.PENDING, delay_ms)
    found = after_failure(Failure("unreachable"), ATTEMPTS_MAX, resend=True, asks=False)
    assert (found.state, found.reason) == (State.FAILED, "attempts_used_up")
    assert "unreachable" in str(found.hint)


@pytest.mark.parametrize("reason", sorted(PERMANENT))
def test_what_can_never_succeed_fails_at_once_and_says_what_to_do(reason: str) -> None:
    found = after_failure(Failure(reason, permanent=True), 1, resend=True, asks=True)
    assert (found.state, found.reason, found.hint) == (State.FAILED, reason, PERMANENT[reason])


@pytest.mark.parametrize(
    ("resend", "asks", "attempts", "state", "hint"),
    [
        (True, False, 1, State.UNKNOWN, None),
        (True, True, 1, State.UNKNOWN, None),
        (False, True, 1, State.UNKNOWN, None),
        (False, False, 1, State.FAILED, MAY_HAVE_ARRIVED),
        (True, True, ATTEMPTS_MAX, State.FAILED, MAY_HAVE_ARRIVED),
    ],
)  # fmt: skip
def test_what_may_have_arrived_is_decided_by_the_channel_and_said(
    resend: bool, asks: bool, attempts: int, state: State, hint: str | None
) -> None:
    found = after_failure(
        Failure("unanswered", landed=None), attempts, resend=resend, asks=asks
    )
    assert (found.state, found.reason, found.hint) == (state, "unanswered", hint)


def test_who_may_have_it_from_an_earlier_attempt_is_remembered() -> None:
    for failure in (Failure("gone", permanent=True), Failure("busy")):
        found = after_failure(failure, ATTEMPTS_MAX, resend=True, asks=False, doubtful=True)
        assert found.hint == MAY_HAVE_ARRIVED


@pytest.mark.parametrize(
    ("asked_ms", "delay_ms"), [(1_000, 5_000), (60_000, 60_000), (10**9, 3_600_000)]
)
def test_a_channel_may_ask_for_patience_within_a_bound(asked_ms: int, delay_ms: int) -> None:
    failure = Failure("busy", retry_after_ms=asked_ms)
    assert after_failure(failure, 1, resend=True, asks=False).delay_ms == delay_ms


# -------------------------------------------------------------------- one target's order


def row(seq: int, turn: str, **changes: Any) -> Delivery:
    fields: dict[str, Any] = {
        "seq": seq, "delivery_id": f"{turn}.{seq}", "turn_id": turn, "session_id": "s",
        "kind": "reply", "part": 1, "parts": 1, "target": "c:a", "channel": "c", "body": b"",
        "body_hash": "", "state": "pending", "attempts": 0, "owner_id": None,
        "not_before_ms": 0, "created_ms": 0, "blocking_ms": None, "expires_ms": 10**12,
        "reason": None, "hint": None, "remote_id": None, "created_at": "", "ended_at": None,
    }  # fmt: skip
    return Delivery(**{**fields, **changes})


NOW_MS = 10 * HEAD_BLOCKS_MS


@st.composite
def queues(draw: Any) -> list[Delivery]:
    made = []
    for seq in range(1, draw(st.integers(0, 7)) + 1):
        state = draw(st.sampled_from(["pending"] * 5 + ["unknown", "attempting"]))
        since = draw(st.sampled_from([None, NOW_MS, NOW_MS - HEAD_BLOCKS_MS]))
        due = draw(st.sampled_from([0, NOW_MS, NOW_MS + 1]))
        turn = draw(st.sampled_from("abcd"))
        made.append(row(seq, turn, state=state, blocking_ms=since, not_before_ms=due))
    return made


@given(queues())
@settings(max_examples=500)
def test_who_is_taken_is_due_and_passes_only_who_has_blocked_for_ten_minutes(
    owed: list[Delivery],
) -> None:
    found = look(owed, NOW_MS)
    if found.take is None:
        return
    assert found.take.not_before_ms <= NOW_MS
    assert found.take.state != "attempting"
    assert [each.seq for each in found.passed] == list(range(1, found.take.seq))
    turns = set[str]()
    for each in found.passed:
        assert each.state != "attempting", "one at a time"
        assert each.turn_id != found.take.turn_id, "parts of one turn stay in order"
        blocked = each.blocking_ms is not None and each.blocking_ms + HEAD_BLOCKS_MS <= NOW_MS
        assert blocked or each.turn_id in turns
        turns.add(each.turn_id)
    assert found.wake_ms == NOW_MS


@given(queues())
def test_something_that_can_be_done_is_found_and_a_later_look_is_asked_for(
    owed: list[Delivery],
) -> None:
    found = look(owed, NOW_MS)
    if owed and owed[0].state != "attempting" and owed[0].not_before_ms <= NOW_MS:
        others = any(each.state == "attempting" for each in owed)
        assert found.take == owed[0] or others
    if found.take is None and owed and not any(e.state == "attempting" for e in owed):
        assert found.wake_ms is not None
        assert found.wake_ms > NOW_MS


def test_parts_of_one_turn_never_pass_each_other() -> None:
    stuck = row(1, "a", blocking_ms=NOW_MS - HEAD_BLOCKS_MS, not_before_ms=NOW_MS + 5)
    second, other = row(2, "a"), row(3, "b")
    assert look([stuck, second], NOW_MS).take is None
    found = look([stuck, second, other], NOW_MS)
    assert (found.take, found.passed) == (other, (stuck, second))
