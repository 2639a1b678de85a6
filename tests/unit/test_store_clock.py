"""The store's clock never goes back, whatever anybody does to the wall clock or the machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from tests.support.queues import Queue, queue

from holdfast import _stamps
from holdfast._core.settings import LANES
from holdfast._core.turns import Event
from holdfast.backends.files import fs, identity
from holdfast.backends.files.control import leases, places, schema
from holdfast.backends.files.control.clock import clock_ms, tick_ms

HOUR_MS = 3_600_000


class Machine:
    """A wall clock, a boot and its monotonic clock, all of them at our will."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_ms, self.up_s = 1_795_000_000_000, 5_000.0
        self._boot = "boot-1"
        me = identity.me()
        monkeypatch.setattr(fs.table, "monotonic", lambda: self.up_s)
        monkeypatch.setattr(_stamps, "now_ms", lambda: self.wall_ms)
        monkeypatch.setattr(identity, "me", lambda: replace(me, boot=self._boot))

    def boots(self, boot: str) -> None:
        self._boot, self.up_s = boot, 3.0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as found:
        schema.migrate(found, ":memory:")
        yield found


def test_the_first_tick_is_the_wall_clocks_and_no_later_one(
    machine: Machine, db: sqlite3.Connection
) -> None:
    assert tick_ms(db) == machine.wall_ms
    for step_ms in (-10 * HOUR_MS, 10 * HOUR_MS, -1):
        machine.wall_ms += step_ms
        before_ms = clock_ms(db)
        machine.up_s += 2.5
        assert clock_ms(db) == before_ms + 2_500
        assert tick_ms(db) == before_ms + 2_500


def test_a_new_boot_goes_on_where_the_last_was_seen(
    machine: Machine, db: sqlite3.Connection
) -> None:
    tick_ms(db)
    machine.up_s += 60
    seen_ms = tick_ms(db)
    machine.up_s += 60  # Nobody asked any more.
    machine.boots("boot-2")
    machine.wall_ms -= 24 * HOUR_MS
    assert clock_ms(db) == seen_ms
    machine.up_s += 1
    assert clock_ms(db) == seen_ms, "it goes on with the first tick"
    assert tick_ms(db) == seen_ms
    machine.up_s += 1
    assert tick_ms(db) == seen_ms + 1_000
    machine.boots("boot-3")
    assert tick_ms(db) == seen_ms + 1_000


def test_a_monotonic_clock_that_lags_makes_it_stand_not_go_back(
    machine: Machine, db: sqlite3.Connection
) -> None:
    """As in a container with a time namespace of its own."""
    tick_ms(db)
    machine.up_s += 10
    seen_ms = tick_ms(db)
    machine.up_s -= 7
    assert clock_ms(db) == tick_ms(db) == seen_ms
    machine.up_s += 8
    assert clock_ms(db) == seen_ms + 1_000


@pytest.fixture
def q() -> Iterator[Queue]:
    with queue() as found:
        yield found


@pytest.mark.parametrize("step_ms", [-10 * HOUR_MS, 10 * HOUR_MS])
def test_a_stepped_wall_clock_moves_no_turn(
    q: Queue, monkeypatch: pytest.MonkeyPatch, step_ms: int
) -> None:
    q.admit()
    quiet = q.admit("b", policy="collect", quiet_ms=5_000, collect_max=3)
    leased = q.pick(LANES)
    assert leased is not None
    leases.put_back(
        q.db, leased.turn.turn_id, leased.token,
        what=Event.GIVE_BACK, reason="write_lock", delay_ms=2_000,
    )  # fmt: skip
    wall_ms = _stamps.now_ms() + step_ms
    monkeypatch.setattr(_stamps, "now_ms", lambda: wall_ms)
    for left_ms in (2_000, 1_000):
        assert q.pick(LANES) is None
        place = places.place(q.db, leased.turn.turn_id, LANES)
        assert (place.waiting_for, place.left_ms) == ("write_lock", left_ms)
        place = places.place(q.db, quiet.turn_id, LANES)
        assert (place.waiting_for, place.left_ms) == ("quiet", left_ms + 3_000)
        q.now_s += 1
    again = q.pick(LANES)
    assert again is not None
    assert again.turn.turn_id == leased.turn.turn_id
    assert q.pick(LANES) is None
    q.now_s += 3
    assert q.pick(LANES) is not None
