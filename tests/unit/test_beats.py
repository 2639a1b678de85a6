"""Silence ends a lease; a slow observer, a stepped clock or a blocked store does not."""

from __future__ import annotations

from holdfast._core.beats import Watch
from holdfast.types import OwnerId

LEASE_S = 6.0
OTHER = OwnerId("other")


def served(watch: Watch, start: int, stop: int, beats: dict[int, int]) -> list[int]:
    """Look once a second with our own beat in time; the seconds at which OTHER expired."""
    expired, beat = [], 0
    for now in range(start, stop):
        watch.own_beat_committed(float(now))
        beat = beats.get(now, beat)
        if OTHER in watch.look({OTHER: beat}, float(now)):
            expired.append(now)
    return expired


def test_an_owner_that_beats_never_expires() -> None:
    assert served(Watch(LEASE_S), 0, 60, {now: now for now in range(60)}) == []


def test_a_silent_owner_expires_after_a_lease_and_not_before() -> None:
    assert served(Watch(LEASE_S), 0, 10, {0: 1})[0] == 6


def test_one_beat_buys_a_whole_lease() -> None:
    assert served(Watch(LEASE_S), 0, 13, {0: 1, 5: 2})[0] == 11


def test_an_observer_that_was_frozen_starts_again() -> None:
    watch = Watch(LEASE_S)
    served(watch, 0, 4, {0: 1})
    assert served(watch, 1000, 1006, {1000: 1}) == []
    assert served(watch, 1006, 1008, {1006: 1}) == [1006, 1007]


def test_an_observer_that_cannot_beat_expires_nobody() -> None:
    """The store may be blocked for the other as well."""
    watch = Watch(LEASE_S)
    watch.own_beat_committed(0.0)
    watch.look({OTHER: 1}, 0.0)
    assert watch.look({OTHER: 1}, 100.0) == set()


def test_an_observer_that_never_beat_expires_nobody() -> None:
    watch = Watch(LEASE_S)
    assert watch.look({OTHER: 1}, 0.0) == watch.look({OTHER: 1}, 100.0) == set()


def test_an_owner_that_left_is_forgotten() -> None:
    watch = Watch(LEASE_S)
    served(watch, 0, 3, {0: 1})
    watch.own_beat_committed(3.0)
    watch.look({}, 3.0)
    assert served(watch, 4, 9, {4: 1}) == []
