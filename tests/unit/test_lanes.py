"""Who is people, how a turn ages, and which of a session's turns is its head."""

from __future__ import annotations

from itertools import combinations, permutations, product

import pytest

from holdfast._core.lanes import (
    AGED_MOST,
    SYSTEM,
    Head,
    bound_ms,
    effective,
    head_of,
    is_people,
)
from holdfast._core.settings import LANES

LANE_NAMES = ["user", "ours", "cron", "heartbeat"]  # Two of people, two of the system.


def test_every_lane_but_four_is_peoples() -> None:
    assert {lane for lane in LANES if not is_people(lane)} == SYSTEM
    assert is_people("user")
    assert is_people("declared-by-somebody")


@pytest.mark.parametrize("priority", range(AGED_MOST + 1))
def test_a_waiting_turn_gains_one_a_second_until_it_stands_at_100(priority: int) -> None:
    seen = [effective(priority, ms) for ms in range(-2_000, 102_000, 500)]
    assert seen[:5] == [priority] * 5, "a clock that seems to go back makes nobody younger"
    for at, ms in enumerate(range(-2_000, 102_000, 500)):
        assert seen[at] == min(100, priority + max(ms, 0) // 1_000)
    assert seen == sorted(seen)
    assert seen[-1] == 100


def test_nobody_ages_downwards() -> None:
    assert effective(150, 5_000) == 150


def everything() -> list[tuple[Head, ...]]:
    """Every choice of lanes, every order of admission, three levels of priority."""
    found: list[tuple[Head, ...]] = []
    for count in range(len(LANE_NAMES) + 1):
        for lanes in combinations(LANE_NAMES, count):
            for order in permutations(range(count)):
                for levels in product((20, 60, 100), repeat=count):
                    found.append(tuple(map(Head, levels, order, lanes)))
    return found


def test_the_head_is_the_best_of_all_but_people_stand_in_the_order_they_came() -> None:
    for heads in everything():
        head = head_of(heads)
        if not heads:
            assert head is None
            continue
        assert head is not None
        people = sorted(
            (each for each in heads if is_people(each.lane)), key=lambda h: h.admission
        )
        system = [each for each in heads if not is_people(each.lane)]
        if is_people(head.lane):
            assert head.admission == people[0].admission, "a person was overtaken"
            assert head.effective == max(each.effective for each in people)
        else:
            assert head in system
        for other in system:
            assert head.rank <= other.rank
        if people:
            best = max(each.effective for each in people)
            assert head.rank <= (-best, people[0].admission)


def test_the_order_in_which_heads_are_given_does_not_matter() -> None:
    for heads in everything():
        assert {head_of(each) for each in permutations(heads)} == {head_of(heads)}


def test_the_bound_grows_with_what_is_ahead_and_with_nothing_that_comes_after() -> None:
    assert bound_ms(100, 0, 1_000) == 2_000
    assert bound_ms(20, 0, 1_000) == 82_000
    assert bound_ms(20, 3, 1_000) == 88_000
    assert bound_ms(150, 0, 0) == 0
