"""Every interleaving of a few processes at one claim, up to a number of preemptions."""

from __future__ import annotations

import pytest

pytest.importorskip("greenlet", reason="the simulator needs greenlet (the extra `sim`)")

from holdfast.testing import sim

#: With three processes there are thousands: here the first of them, all by `--small`.
MANY = {"three-on-a-dead-claim", "three-on-a-dead-claim-without-order", "against-rm"}


@pytest.mark.parametrize("scenario", sim.SMALL_SCENARIOS)
def test_no_schedule_lets_two_in_or_leaves_anything_behind(scenario: str) -> None:
    most = 400 if scenario in MANY else 10_000
    explored = sim.explore(scenario, preemptions=1, most=most)
    assert explored.broken is None, f"{explored.broken}\nscript: {explored.script}"
    assert explored.whole or scenario in MANY
    assert explored.schedules > 20, "there was nothing to choose from"


@pytest.mark.parametrize("scenario", ["against-a-stranger", "stranger-on-a-dead-claim"])
def test_a_stranger_and_one_of_ours_alternate_in_every_schedule(scenario: str) -> None:
    explored = sim.explore(scenario, preemptions=2, most=700)
    assert explored.broken is None, f"{explored.broken}\nscript: {explored.script}"
    assert explored.schedules > 500
