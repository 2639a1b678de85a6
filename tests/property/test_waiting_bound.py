"""
No turn waits longer than its bound, whatever comes after it; and people never overtake.

Method: a few long-lived streams of messages, of any lane, priority and session, against the
files store's own pick, second by second; each turn's wait is held against the bound that
could be told when it was admitted.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.queues import Queue, queue

from holdfast._core.lanes import bound_ms, is_people
from holdfast._core.settings import Lane
from holdfast.backends.files.control.clock import clock_ms
from holdfast.types import Leased, Turn, TurnId

LANES = {
    "user": Lane(2, 100),
    "ours": Lane(1, 70),
    "cron": Lane(1, 40),
    "heartbeat": Lane(1, 20),
}


@dataclass(frozen=True)
class Stream:
    """A message of one lane and one session every so often."""

    lane: str
    session: str
    first_s: int
    every_s: int
    run_s: int
    count: int
    priority: int | None = None  #: None: the lane's.


STREAMS = st.lists(
    st.builds(
        Stream,
        lane=st.sampled_from([*LANES]),
        session=st.sampled_from("ab"),
        first_s=st.integers(0, 30),
        every_s=st.integers(1, 40),
        run_s=st.integers(1, 12),
        count=st.integers(1, 40),
        priority=st.sampled_from([None, None, None, 0, 50, 100]),
    ),
    min_size=2,
    max_size=5,
)
#: People who never stop, in front of the least of lanes.
TALKERS = [
    Stream("heartbeat", "a", 0, 1, 1, 1),
    Stream("user", "a", 0, 5, 6, 60),
    Stream("cron", "a", 0, 7, 3, 20),
]


class Run:
    def __init__(self, q: Queue, streams: list[Stream]) -> None:
        self.q = q
        self.longest_ms = max(each.run_s for each in streams) * 1_000
        self.due = sorted(
            (each.first_s + n * each.every_s, at)
            for at, each in enumerate(streams) for n in range(each.count)
        )  # fmt: skip
        self.streams = streams
        self.waiting: dict[TurnId, tuple[Turn, int]] = {}  #: With the bound it was told.
        self.runs_s: dict[TurnId, int] = {}
        self.running: list[tuple[float, Leased]] = []
        self.last: dict[str, int] = {}  #: Of people's turns that began, by session.

    def second(self, at_s: int) -> None:
        for each in [row for row in self.running if row[0] <= at_s]:
            self.running.remove(each)
            self.q.commit(each[1])
        while self.due and self.due[0][0] <= at_s:
            self._admit(self.streams[self.due.pop(0)[1]])
        while (leased := self.q.pick(LANES)) is not None:
            self._begun(leased, at_s)

    def _admit(self, stream: Stream) -> None:
        priority = LANES[stream.lane].priority if stream.priority is None else stream.priority
        turn = self.q.admit(stream.session, lane=stream.lane, priority=priority)
        lowest = min([priority, *(each.priority for each, _ in self.waiting.values())])
        bound = bound_ms(lowest, len(self.waiting), self.longest_ms)
        self.waiting[turn.turn_id] = turn, bound
        self.runs_s[turn.turn_id] = stream.run_s

    def _begun(self, leased: Leased, at_s: int) -> None:
        turn, bound = self.waiting.pop(leased.turn.turn_id)
        waited_ms = clock_ms(self.q.db) - turn.accepted_ms
        assert waited_ms <= bound, f"{turn.lane} waited {waited_ms} ms, its bound is {bound}"
        if is_people(turn.lane):
            assert self.last.get(turn.session_id, 0) < turn.admission, "a person was overtaken"
            self.last[turn.session_id] = turn.admission
        self.running.append((at_s + self.runs_s[turn.turn_id], leased))


@settings(max_examples=30, deadline=None)
@given(STREAMS)
@example(TALKERS)
def test_no_turn_waits_longer_than_its_bound_and_no_person_is_overtaken(
    streams: list[Stream],
) -> None:
    with queue() as q:
        run = Run(q, streams)
        at_s = 0
        while run.due or run.waiting or run.running:
            run.second(at_s)
            at_s, q.now_s = at_s + 1, q.now_s + 1
            assert at_s < 10_000, "it never ends"
