"""
Whole turns keep their promises in every storm that a seed makes, and all end when it is over.

Each seed is a store with up to three processes and whoever comes after them: they send, run,
steer, cancel, reset, ask for each other and deliver; they are killed at any effect, stopped
for longer than their lease, and their clocks are set.  What breaks prints what replays it.
"""

from __future__ import annotations

import time
from collections import Counter

import pytest

pytest.importorskip("greenlet", reason="the simulator needs greenlet (the extra `sim`)")

from holdfast.testing import sim

SEEDS = 200
WITHIN_S = 60.0  #: On a slow machine fewer seeds are run, and never fewer than …
LEAST = 50


def test_every_accepted_turn_ends_once_whatever_befalls_its_processes() -> None:
    struck: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    until_s = time.monotonic() + WITHIN_S
    for seed in range(SEEDS):
        if seed >= LEAST and time.monotonic() > until_s:
            break
        outcome = sim.run(seed, "whole")
        assert outcome.broken is None, f"{outcome.broken}\nreplay: {sim.command(outcome)}"
        struck.update(outcome.struck)
        ended.update(outcome.ended)
    assert {"crash", "freeze"} <= struck.keys(), "a mild storm"
    kinds = {each.partition(" ")[0] for each in ended}
    assert kinds >= {"replied", "merged", "cancelled", "failed", "silent"}, ended
    assert ended.keys() >= {"handover let_go", "handover busy", "drained"}, ended


def test_whole_turns_come_up_in_every_second_seed_of_a_long_run() -> None:
    drawn = Counter(sim.scenario_of(seed) for seed in range(140))
    assert drawn["whole"] == 70
    assert set(drawn) == set(sim.SCENARIOS)
