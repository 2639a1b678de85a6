"""
A storm: processes are killed and stopped in mid-stream, one after the other, and new ones
come.  When it is over, every accepted message has been answered once.

Method: no clock decides anything.  Each blow falls on whoever has just begun to stream, a
stopped process goes on when the next blow falls, and the storm has a number of blows.
"""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from queue import Queue
from random import Random

import pytest

from support import oracle
from support.crowd import WITHIN_S, Event, Member
from support.rows import every_turn

BLOWS = 14
KEYS = ["agent:main:one", "agent:main:two"]
SETTINGS = {"turn.lease_ms": 900, "abort.settle_ms": 300, "turn.max_attempts": 50}


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
