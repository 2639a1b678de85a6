"""What a person reads of a place in the queue: every value that a store can produce has words."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast._core.settings import LANES
from holdfast._core.turns import ABORTS, GIVES_BACK
from holdfast._core.words import WAITS, duration, nth, reason, short
from holdfast.types import Place, TurnId

SRC = Path(__file__).parents[2] / "src" / "holdfast"
REAPING = {"keeper", "reaping", "judging"}  #: Who ends the attempts of others, and says why.
TURN = TurnId("01930a1b-2c3d-7e4f-8a9b-0c1d2e3f4a5b")


def literals(path: Path, functions: set[str]) -> Iterator[str]:
    """Strings that are given to calls of *functions*."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else None
        name = node.func.id if isinstance(node.func, ast.Name) else name
        if name in functions:
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            for each in (inner for value in given for inner in ast.walk(value)):
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield each.value


def produced() -> set[str]:
    """Every word that a store, or who puts turns back, can put into `waiting_for`."""
    places = [SRC / "backends" / store / end for store, end in (
        ("files", "control/places.py"), ("memory", "places.py"))]  # fmt: skip
    found = {word for path in places for word in literals(path, {"Place", "_behind"})}
    for path in (SRC / "_runtime").glob("*.py"):
        found |= {*literals(path, {"give_back", "end_attempt", "Place"})}
        found |= {word for word in literals(path, {"end"}) if path.stem in REAPING}
    return found | GIVES_BACK | ABORTS.keys()


def test_every_value_that_a_store_can_produce_has_words() -> None:
    words = {word for word in produced() if word.replace("_", "").isalpha()} - {"turn", "queue"}
    assert {"slot", "no_runner", "merge", "write_lock", "drained", "owner_died"} <= words
    assert words - {"failed"} - WAITS == set(), "a person would read this word as it is"


@pytest.mark.parametrize("word", sorted(WAITS))
def test_whatever_is_known_of_a_place_it_is_one_sentence(word: str) -> None:
    for blocker in (None, TURN):
        for since in (None, "2026-11-21T10:00:00.000Z"):
            for lane in (None, "cron", "beyond"):
                for left_ms in (0, 800):
                    place = Place(2, word, blocker, lane, since, left_ms)
                    for age_ms in (None, 42_000):
                        said = reason(place, age_ms=age_ms, agent="main", lanes=LANES)
                        assert said, place
                        assert "None" not in said, place
                        assert "\n" not in said, place
                        assert not said.endswith("."), place
                        assert "_" not in said, place


@pytest.mark.parametrize(
    ("place", "age_ms", "said"),
    [
        (Place(0, None), None, ""),
        (
            Place(3, "queue", TURN, "user", "x"),
            42_000,
            "3rd in line; the user turn 01930a1b-2c3d… has been running for 42 s",
        ),
        (
            Place(1, "turn", TURN, "heartbeat", "x"),
            900,
            "next in line; the heartbeat turn 01930a1b-2c3d… has been running for 900 ms",
        ),
        (
            Place(1, "queue", TURN, "user"),
            None,
            "1 ahead; the user turn 01930a1b-2c3d… comes before it",
        ),
        (
            Place(0, "slot", lane="cron"),
            None,
            "waiting for a free slot of lane cron (8 of 8 in use)",
        ),
        (
            Place(0, "no_runner"),
            None,
            "no runner for agent ops is alive: start one with `holdfast serve`",
        ),
        (
            Place(1, "merge", TURN, "user", "x"),
            5,
            "goes into the user turn 01930a1b-2c3d…: one reply for both, or it runs by itself",
        ),
        (
            Place(0, "quiet", left_ms=400),
            None,
            "collecting: it runs once nothing was added for 400 ms",
        ),
        (
            Place(0, "write_lock", left_ms=1_000),
            None,
            "somebody else has the transcript's write lock; it is tried again in 1.0 s",
        ),
    ],
)
def test_what_a_person_reads(place: Place, age_ms: int | None, said: str) -> None:
    assert reason(place, age_ms=age_ms, agent="ops", lanes=LANES) == said


def test_durations_and_numbers_are_as_people_say_them() -> None:
    told = {
        -5: "0 ms", 0: "0 ms", 999: "999 ms", 1_000: "1.0 s", 9_949: "9.9 s", 42_000: "42 s",
        119_999: "119 s", 120_000: "2 min", 7_199_000: "119 min", 7_500_000: "2 h 5 min",
        7_200_000: "2 h", 200_000_000: "2 d",
    }  # fmt: skip
    assert {ms: duration(ms) for ms in told} == told
    assert [nth(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 101, 111)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "101st", "111th",
    ]  # fmt: skip
    assert short("abc") == "abc"
