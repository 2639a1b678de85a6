"""
What a stranger runs first: the race, the show, the benches.  Real processes, files, HTTP.

The race's numbers are read from the transcript; `test_lab_figures` shows that the reading
can say no.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from holdfast.lab.bench_admission import bench_admission
from holdfast.lab.bench_size import bench_append
from holdfast.lab.bench_start import bench_start
from holdfast.lab.bench_turn import bench_turn
from holdfast.lab.crew import Crew
from holdfast.lab.race import run_race

RACE_KEYS = {
    "guard", "lanes", "turns", "accepted", "replied", "lost", "takeovers", "interleaved",
    "transcript_valid", "timeline",
}  # fmt: skip


def test_without_coordination_replies_are_lost(tmp_path: Any) -> None:
    """The founding scenario, and the proof that the other test means something."""
    said: list[str] = []
    result = run_race(
        lanes=2, turns=3, guard="off", directory=str(tmp_path), report=said.append
    )
    assert result.keys() == RACE_KEYS
    assert result["accepted"] == 6
    assert result["lost"] > 0
    assert result["interleaved"] > 0
    assert result["replied"] + result["lost"] == result["accepted"]
    assert len(result["timeline"]) == 12
    assert {"heartbeat", "user/channel"} == {event["lane"] for event in result["timeline"]}
    assert said[-1].startswith("guard=off: 6 asked,")


def test_a_fingerprint_finds_the_other_writer_and_drops_the_reply(tmp_path: Any) -> None:
    """The takeover behaviour of the time: detected, typed, and the reply is gone."""
    result = run_race(lanes=2, turns=3, guard="fence", directory=str(tmp_path))
    assert result["accepted"] == 6
    assert result["takeovers"] > 0
    assert result["replied"] < result["accepted"]
    assert result["lost"] == result["takeovers"]
    assert result["interleaved"] == 0
    assert result["transcript_valid"]


def test_through_turns_every_message_is_answered_where_the_next_can_see_it(
    tmp_path: Any,
) -> None:
    result = run_race(lanes=2, turns=3, guard="turns", directory=str(tmp_path))
    timeline = result.pop("timeline")
    assert result == {
        "guard": "turns",
        "lanes": 2,
        "turns": 3,
        "accepted": 6,
        "replied": 6,
        "lost": 0,
        "takeovers": 0,
        "interleaved": 0,
        "transcript_valid": True,
    }
    assert [event["event"].split()[0] for event in timeline] == ["asked", "answered"] * 6


def test_the_first_light_says_that_it_works(tmp_path: Any) -> None:
    """`make run`: a process dies in mid-sentence, and everything it accepted is answered."""
    done = subprocess.run(
        [sys.executable, "-m", "holdfast.lab.first_light"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WELL: 8 accepted, 8 answered, one final entry each" in done.stdout
    assert "SIGKILL" in done.stdout
    assert "adopts" in done.stdout
    assert "\x1b" not in done.stdout
    assert not done.stderr


def test_a_process_that_fails_is_told_with_what_it_left_behind() -> None:
    with Crew() as crew, pytest.raises(RuntimeError, match="no_such_thing"):
        crew.start("lost", "holdfast.lab.race_lane:no_such_thing")
        crew.wait("ready")


def test_the_benches_say_what_the_contract_names(tmp_path: Any) -> None:
    admission = bench_admission(str(tmp_path), quick=True)
    assert admission.keys() == {
        "p50_ms", "p99_ms", "per_s", "processes", "slowest_over_fastest", "floor_p50_ms",
        "queue",
    }  # fmt: skip
    queue = admission.pop("queue")
    assert queue.keys() == {"by_waiting", "ratio"}
    assert [each["waiting"] for each in queue["by_waiting"]] == [10, 1_000]
    turn = bench_turn(str(tmp_path), quick=True)
    assert turn["handoff"].keys() == turn["overhead"].keys() == {"p50_ms", "p99_ms"}
    assert turn["many_sessions"].keys() == {
        "seconds", "bound_seconds", "ratio", "model_seconds", "floor_seconds", "bare_seconds",
    }  # fmt: skip
    assert turn["idle"].keys() == {
        "sessions", "memory_bytes", "database_bytes", "reads_per_s", "writes_per_s",
    }  # fmt: skip
    assert all(value > 0 for value in [*admission.values(), *turn["handoff"].values()])
    assert not os.listdir(tmp_path)


def test_what_may_grow_with_a_transcript_is_measured(tmp_path: Any) -> None:
    grown = bench_append(str(tmp_path), quick=True)
    assert grown.keys() == {"by_size", "growth"}
    assert [each["transcript_mb"] for each in grown["by_size"]] == [1, 10, 100]
    assert all(each["p50_us"] > 0 for each in grown["by_size"])
    assert not os.listdir(tmp_path)


def test_start_up_is_measured_above_the_bare_interpreter() -> None:
    start = bench_start(quick=True)
    assert start.keys() == {
        "import_ms", "help_ms", "floor_ms", "import_over_ms", "help_over_ms",
    }  # fmt: skip
