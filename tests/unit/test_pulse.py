"""How late the event loop is: measured, told once, and told apart from a dead run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from holdfast._runtime.progress import Progress
from holdfast._runtime.pulse import LATE_S, Pulse


class Loop:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Callable[[], None]] = []

    def call_soon_threadsafe(self, callback: Callable[..., None], *args: Any) -> None:
        self.asked.append(lambda: callback(*args))

    def answer(self) -> None:
        for each in self.asked:
            each()
        self.asked.clear()


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def pulse(loop: Loop, clock: Clock) -> Pulse:
    return Pulse(loop, now_s=clock)  # type: ignore[arg-type]


def beat(pulse: Pulse, loop: Loop, clock: Clock, delay_s: float) -> None:
    pulse.ping()
    clock.now_s += delay_s
    loop.answer()
    clock.now_s += max(0.25 - delay_s, 0.0)


def test_a_loop_in_time_is_not_late(pulse: Pulse, loop: Loop, clock: Clock) -> None:
    for _ in range(100):
        beat(pulse, loop, clock, 0.002)
    assert not pulse.late
    assert pulse.max_s == pytest.approx(0.002)
    assert pulse.to_tell() is None


def test_one_question_at_a_time_and_an_open_one_counts(
    pulse: Pulse, loop: Loop, clock: Clock
) -> None:
    pulse.ping()
    clock.now_s += 0.9
    pulse.ping()
    assert len(loop.asked) == 1
    assert not pulse.late
    clock.now_s += 0.1
    assert pulse.late
    assert pulse.max_s == pytest.approx(LATE_S)
    asked_s = pulse.answered_s
    clock.now_s += 5
    loop.answer()
    assert pulse.answered_s == asked_s + 6
    assert pulse.max_s == pytest.approx(6)


def test_it_is_late_for_a_moment_longer_and_then_forgotten(
    pulse: Pulse, loop: Loop, clock: Clock
) -> None:
    beat(pulse, loop, clock, 3.0)
    assert pulse.late, "what it has missed has not been taken yet"
    clock.now_s += LATE_S
    assert not pulse.late
    beat(pulse, loop, clock, 0.001)
    assert pulse.max_s == pytest.approx(3.0)
    for _ in range(300):
        beat(pulse, loop, clock, 0.001)
    assert pulse.max_s == pytest.approx(0.001), "a window of a minute"


def test_the_99th_percentile_passes_one_slip_over(
    pulse: Pulse, loop: Loop, clock: Clock
) -> None:
    for n in range(200):
        beat(pulse, loop, clock, 0.2 if n == 100 else 0.001)
    assert pulse.max_s == pytest.approx(0.2)
    assert pulse.p99_s < 0.2


def test_it_is_told_once_in_two_minutes(
    pulse: Pulse, loop: Loop, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    told = []
    for _ in range(125):
        beat(pulse, loop, clock, 2.0)
        told.append(pulse.to_tell())
    assert [n for n, each in enumerate(told) if each is not None] == [0, 60, 120]
    assert told[0] == {"max_ms": 2000, "p99_ms": 2000}
    assert "event loop delay: max=2000ms" in caplog.text


def test_time_in_which_the_loop_was_late_is_not_lost(clock: Clock) -> None:
    progress = Progress(now_s=clock)
    progress.asked()
    clock.now_s += 500
    facts = progress.facts(queue_depth=0, late_at_s=clock.now_s - 3, loop_late=False)
    assert facts.progress_age_s == 3
    progress.tool_began("t", "c", 100.0)
    clock.now_s += 500
    facts = progress.facts(queue_depth=0, late_at_s=clock.now_s - 2, loop_late=False)
    assert facts.tool_age_s == 102


def test_of_several_tools_the_one_with_the_most_time_left_counts(clock: Clock) -> None:
    progress = Progress(now_s=clock)
    progress.tool_began("short", "1", 10.0)
    progress.tool_began("long", "2", 100.0)
    clock.now_s += 50
    tool = progress.tool()
    assert tool is not None
    assert tool.name == "long"
    assert progress.kind == "tool"
    told = progress.to_json()
    assert (told["tool"], told["tool_ms"], told["tool_timeout_ms"]) == ("long", 50_000, 100_000)
    progress.tool_ended("long", "2")
    progress.tool_ended("short", "1")
    assert progress.kind == "idle"


def test_the_end_of_the_answer_is_the_last_movement(clock: Clock) -> None:
    progress = Progress(now_s=clock)
    progress.asked()
    assert progress.kind == "model"
    progress.finished()
    progress.answered()
    assert progress.facts(queue_depth=1, late_at_s=0, loop_late=False).terminal
