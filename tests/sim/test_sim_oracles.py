"""
The oracles can fail: with a guarantee taken out of the code, runs break, and say how.

Each guarantee is removed in memory, for one test, from the very functions that keep it.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("greenlet", reason="the simulator needs greenlet (the extra `sim`)")

from holdfast._runtime import booking
from holdfast.backends.files import fs
from holdfast.backends.files.lock import climb
from holdfast.backends.files.lock.hold import Hold
from holdfast.backends.files.lock.latch import Latch
from holdfast.testing import sim
from holdfast.testing._sim_schedule import Choices
from holdfast.testing._sim_small import run_small

Patch = pytest.MonkeyPatch


def first_broken(scenario: str, seeds: int) -> str:
    """What broke first in the seeds of *scenario*; empty: nothing did."""
    for seed in range(seeds):
        outcome = sim.run(seed, scenario)
        if outcome.broken is not None:
            return outcome.broken
    return ""


def broken_schedule(scenario: str, *interruptions: int) -> str:
    """
    What breaks *scenario* with two preemptions.  First at the choices where it was found to
    break; if the code has moved on since, in every schedule.
    """
    script = [int(at in interruptions) for at in range(max(interruptions) + 1)]
    broken = run_small(scenario, Choices(script, 2)).broken
    return str(broken or sim.explore(scenario, preemptions=2).broken)


def take_any_latch(self: Latch) -> bool:
    self.held = True
    return True


def set_aside_by_look_and_unlink(path: str, *_: Any, **__: Any) -> bool:
    try:
        fs.table.lstat(path)
        fs.table.unlink(path)
    except FileNotFoundError:
        return False
    return True


def nobody_looks(*_: Any, **__: Any) -> None:
    return None


def test_without_the_latch_one_removes_the_claim_of_another(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Latch, "take", take_any_latch)
    broken = broken_schedule("two-on-a-dead-claim-without-order", 46, 94)
    assert "which holds" in broken or "two hold" in broken


def test_with_look_then_unlink_a_reclaim_removes_a_live_claim(monkeypatch: Patch) -> None:
    """The founding system's race: what came in between is removed as well."""
    monkeypatch.setattr(climb, "set_aside", set_aside_by_look_and_unlink)
    broken = broken_schedule("dead-claim-replaced", 29, 31, 41)
    assert "removed the claim of stranger, alive" in broken


def test_with_removal_by_age_alone_a_live_owner_loses_its_claim(monkeypatch: Patch) -> None:
    def reclaim(self: climb.Climb, *_: Any, **__: Any) -> bool:
        return set_aside_by_look_and_unlink(self.request.names.claim) or True

    monkeypatch.setattr(climb.Climb, "_reclaim", reclaim)
    broken = broken_schedule("against-a-stranger", 17, 27)
    assert "removed the claim of stranger, alive" in broken


def test_a_hold_that_writes_on_after_its_watchdog_ended_it_is_seen(monkeypatch: Patch) -> None:
    def write_anyway(self: Hold, data: bytes, **_: Any) -> int:
        return fs.table.write(self._grip.latch._lingering, data)

    def end(self: Hold, data: bytes, *, sync: bool) -> int:
        return write_anyway(self, data) if self.aborted else append(self, data, sync=sync)

    append = Hold.append
    monkeypatch.setattr(Hold, "append", end)
    assert "wrote after its hold was over" in first_broken("overstaying", 150)


def test_without_the_token_check_a_turn_is_answered_twice(monkeypatch: Patch) -> None:
    monkeypatch.setattr(booking, "check_token", nobody_looks)
    assert "was answered 2 times" in first_broken("turns", 300)
