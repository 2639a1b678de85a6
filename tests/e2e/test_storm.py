"""
A storm: processes are killed and stopped in mid-stream, one after the other, and new ones
come.  When it is over, every accepted message has been answered once.

Method: no clock decides anything.  Each blow falls on whoever has just begun to stream, a
stopped process goes on when the next blow falls, and the storm has a number of blows.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from queue import Queue
from random import Random
from typing import Any

import pytest

from support import oracle, storm
from support.crowd import WITHIN_S, Event, Member
from support.rows import every_turn

BLOWS = 14
KEYS = ["agent:main:one", "agent:main:two"]
SETTINGS = {
    "turn.lease_ms": 900, "abort.settle_ms": 300, "turn.max_attempts": 50,
    "turn.heartbeats_yield": False,  # Everybody is to be answered here.
}  # fmt: skip


class Storm:
    def __init__(self, state: Path, seed: int, stack: ExitStack) -> None:
        self.state, self.stack, self.rng = state, stack, Random(seed)
        self.events: Queue[tuple[Member, Event]] = Queue()
        self.members: list[Member] = []
        self.stopped: list[Member] = []

    def join(self) -> None:
        member = self.stack.enter_context(
            Member(
                state=str(self.state), into=self.events, key=self.rng.choice(KEYS),
                name=f"m{len(self.members)}", lanes=["user", "cron", "heartbeat"], per_lane=3,
                delay_s=0.01, settings=SETTINGS,
            )
        )  # fmt: skip
        member.until("ready")
        member.go()
        self.members.append(member)

    def streaming(self) -> Member:
        """Whoever begins to stream next, and is neither dead nor stopped."""
        while True:
            member, event = self.events.get(timeout=WITHIN_S)
            alive = member.process.poll() is None and member not in self.stopped
            if event["event"] == "streaming" and alive:
                return member

    def go_on(self) -> None:
        for member in self.stopped:
            member.signal(signal.SIGCONT)
        self.stopped.clear()

    def blow(self) -> None:
        member = self.streaming()
        self.go_on()
        if self.rng.random() < 0.4:
            member.signal(signal.SIGSTOP)
            self.stopped.append(member)
        else:
            member.signal(signal.SIGKILL)
            member.process.wait()
            self.join()


@pytest.mark.parametrize("seed", [1, 2])
def test_after_a_storm_every_accepted_message_is_answered_once(
    tmp_path: Path, seed: int
) -> None:
    with ExitStack() as stack:
        storm = Storm(tmp_path, seed, stack)
        for _ in range(3):
            storm.join()
        for _ in range(BLOWS):
            storm.blow()
        storm.go_on()
        for member in storm.members:
            if member.process.poll() is None:
                member.until("done")  # It sends nothing more, and was answered.
        turns = every_turn(tmp_path)
    assert {turn.outcome for turn in turns} == {"replied"}
    answered: list[str] = []
    for path in tmp_path.glob("agents/*/sessions/*.jsonl"):
        entries = oracle.read(path)
        oracle.check_whole(entries)
        finals = [entry["holdfast"]["turn"] for entry in oracle.finals(entries)]
        questions = [
            entry["holdfast"]["turn"]
            for entry in entries
            if entry["type"] == "message" and entry["message"]["role"] == "user"
        ]
        assert sorted(finals) == sorted(set(finals)) == sorted(questions)
        answered += finals
    assert sorted(answered) == sorted(turn.turn_id for turn in turns)


# --------------------------------------------------------------------- storms of SIGKILL


def kill(which: str, tmp_path: Path, kills: int) -> dict[str, Any]:
    """What `make storm` does for ten minutes, for a few seconds."""
    done = subprocess.run(
        [sys.executable, storm.__file__, which, "--kills", str(kills), "--where", tmp_path],
        check=False,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] >= kills
    return told


def test_eight_writers_are_killed_400_times_and_no_line_is_lost(tmp_path: Path) -> None:
    told = kill("lock", tmp_path, 400)
    assert told["acknowledged"] > 400, "they were killed before they could do anything"
    assert told["unacknowledged"] > 0, "nobody was killed between its write and its answer"
    assert told["torn"] > 0, "nobody was killed in the middle of a line"


def test_eight_runners_are_killed_100_times_and_every_message_is_answered_once(
    tmp_path: Path,
) -> None:
    told = kill("turns", tmp_path, 100)
    assert told["turns"] > told["told"] > 20, "nobody was killed before it was told"


def ended(told: dict[int, int], killed: set[int]) -> tuple[Any, Any]:
    """A board and a storm as they are when it is over: who was told of how many lines."""
    board = storm.Board(max(told) + 1)
    for serial, count in told.items():
        board.done(serial, count)
    over = storm.Storm(None, board, name="lock", seed=0, each_ms=1)
    over.born, over.killed = max(told) + 1, killed
    return board, over


def stands(*lines: tuple[int, int]) -> bytes:
    return b"".join(storm.line_of(*each) for each in lines)


#: What stands, who was told of how many lines, who was killed, what is wrong with it.
WRONG = [
    (stands((0, 1)), {0: 2}, set(), "lost"),
    (stands((0, 1), (0, 1)), {0: 1}, set(), "stands where"),
    (stands((0, 2), (0, 1)), {0: 2}, set(), "stands where"),
    (stands((0, 1), (0, 2)), {0: 1}, set(), "more than it was told of"),
    (stands((0, 1), (0, 2), (0, 3)), {0: 1}, {0}, "more than it was told of"),
    (stands((0, 1)) + storm.line_of(0, 2)[:20], {0: 1}, set(), "torn line"),
    (stands((0, 1)) + b"\0\0\n", {0: 1}, {0}, "torn line"),
    (stands((0, 1)).replace(b'"pad"', b'"bad"'), {0: 1}, set(), "another line"),
]


@pytest.mark.parametrize(("data", "told", "killed", "wrong"), WRONG)
def test_the_oracle_of_the_lock_storm_can_fail(
    data: bytes, told: dict[int, int], killed: set[int], wrong: str
) -> None:
    with pytest.raises(storm.Wrong, match=wrong):
        storm.check_lines(data, *ended(told, killed))


def test_the_oracle_allows_a_killed_writer_its_last_line() -> None:
    for rest in (b"", storm.line_of(0, 2), storm.line_of(0, 2)[:20] + b"\n"):
        storm.check_lines(stands((0, 1)) + rest, *ended({0: 1}, {0}))
