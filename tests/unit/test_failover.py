"""What a provider's failure means, decided by its reason alone."""

from __future__ import annotations

import pytest

from holdfast._core import failover
from holdfast._core.failover import REASONS, backoff_s, may_retry, reason_of_status

RETRIED = {"rate_limit", "server_error", "connection", "timeout", "truncated", "bad_reply"}
ENDED = {
    "auth",
    "bad_request",
    "context_overflow",
    "output_limit",
    "quota",
    "content_filter",
    "agent_error",
}


def test_the_table_is_complete_and_every_row_advises() -> None:
    assert set(REASONS) == RETRIED | ENDED
    assert all(reason.hint for reason in REASONS.values())


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "bad_request"),
        (401, "auth"),
        (402, "bad_request"),
        (403, "auth"),
        (404, "bad_request"),
        (408, "bad_request"),
        (422, "bad_request"),
        (429, "rate_limit"),
        (499, "bad_request"),
        (500, "server_error"),
        (503, "server_error"),
        (529, "server_error"),
        (200, "server_error"),
        (302, "server_error"),
    ],
)
def test_a_status_alone_stands_for_a_reason(status: int, reason: str) -> None:
    assert reason_of_status(status) == reason
    assert reason in REASONS


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_only_what_may_pass_is_tried_again(reason: str) -> None:
    tried = may_retry(reason, attempt=1, attempts_max=3, retry_after_s=None)
    assert tried == (reason in RETRIED)


@pytest.mark.parametrize(
    ("attempt", "attempts_max", "again"),
    [(1, 3, True), (2, 3, True), (3, 3, False), (4, 3, False), (1, 1, False)],
)
def test_attempts_are_bounded(attempt: int, attempts_max: int, again: bool) -> None:
    found = may_retry("timeout", attempt=attempt, attempts_max=attempts_max, retry_after_s=None)
    assert found == again


@pytest.mark.parametrize(
    ("retry_after_s", "again"), [(0.0, True), (1.0, True), (60.0, True), (60.1, False)]
)
def test_a_wait_that_is_too_long_ends_the_turn(retry_after_s: float, again: bool) -> None:
    found = may_retry("rate_limit", attempt=1, attempts_max=3, retry_after_s=retry_after_s)
    assert found == again


def test_a_reason_outside_the_table_is_a_bug_of_ours() -> None:
    with pytest.raises(KeyError):
        may_retry("weather", attempt=1, attempts_max=3, retry_after_s=None)


@pytest.mark.parametrize("attempt", range(1, 8))
def test_backoff_doubles_to_its_bound_and_spreads(attempt: int) -> None:
    bound_s = min(failover.BACKOFF_MAX_S, failover.BACKOFF_FIRST_S * 2 ** (attempt - 1))
    assert backoff_s(attempt=attempt, retry_after_s=None, chance=0.0) == bound_s / 2
    almost = backoff_s(attempt=attempt, retry_after_s=None, chance=0.999)
    assert bound_s * 0.99 < almost < bound_s


def test_backoff_by_example() -> None:
    waits = [backoff_s(attempt=n, retry_after_s=None, chance=0.5) for n in range(1, 7)]
    assert waits == [0.375, 0.75, 1.5, 3.0, 6.0, 6.0]


@pytest.mark.parametrize("retry_after_s", [0.0, 0.25, 42.0])
def test_what_the_provider_asks_for_is_waited_exactly(retry_after_s: float) -> None:
    waited = backoff_s(attempt=5, retry_after_s=retry_after_s, chance=0.9)
    assert waited == retry_after_s
