"""
A process is stopped between its token check and its control transaction, wherever that may
be; the lease moves on to another process; then the stopped one goes on.  One reply.

Method: real processes.  A stops itself at a named point (the signal goes to the very thread
that reached it).  Where it holds the write lock, the lease moves on and the rest waits for A,
because a stopped holder is never robbed; where it does not, B finishes the turn while A is
stopped.  A goes on only when the control store says so.  The transcript is the judge.
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

import holdfast
from holdfast import _points
from support import oracle
from support.crowd import Member
from support.rows import every_turn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUICK = {"turn.lease_ms": 900, "abort.settle_ms": 300, "turn.max_attempts": 20}
WITHIN_S = 60.0

#: (point, hit).  Of a turn's two appends the first is its question, the second its reply.
#: Stopped here, A holds the write lock.
HOLDING = [
    ("effect.loaded", 1),
    *((f"{point}", hit) for hit in (1, 2) for point in
      ("token.checked", "append.checked", "append.written", "append.synced")),
    ("commit.appended", 1),
]  # fmt: skip
#: Stopped here, A holds nothing but its lease.
FREE = [("effect.left", 1), ("commit.released", 1)]
#: Stopped here, A holds the control store, or has committed: its lease can't move on.
TOO_LATE = [("control.begun", "commit.released"), ("control.committed", "commit.released")]

#: What tells a frozen process that its turn is not its own any more.
LEARNT = {"FencedError", "LeaseLostError"}


def test_every_point_on_the_way_is_in_a_list_here() -> None:
    listed = {point for point, _ in HOLDING + FREE} | {point for point, _ in TOO_LATE}
    # Those of whoever hands in, replaces, deletes or restores a transcript, of tools, of merges
    # and of deliveries have tests of their own.
    own = ("admit.", "replace.", "delete.", "restore.", "made.", "tool.", "steer.", "delivery.")
    others = {point for point in _points.POINTS if point.startswith(own)}
    assert listed == _points.POINTS - others - {"stream.first_text"}


def ids(cases: list[Any]) -> list[str]:
    return ["-".join(map(str, case)) for case in cases]


def until(state: Path, moved_on: Callable[[holdfast.Holdfast, Any], Any]) -> None:
    """Until *moved_on* says so of the one turn there is.  Looks at each change."""

    async def look() -> None:
        async with holdfast.open(state) as hf, asyncio.timeout(WITHIN_S):
            changed = asyncio.Event()
            unwatch = hf.store.control.watch(changed.set)
            [turn] = await hf.store.control.turns()
            while not await moved_on(hf, turn):
                changed.clear()
                await changed.wait()
            unwatch()

    asyncio.run(look())


async def has_newer_token(hf: holdfast.Holdfast, turn: Any) -> bool:
    newest = hf.store.control.newest_token(turn.session_id)
    return newest is not None and newest[0] > 1


async def has_ended(hf: holdfast.Holdfast, turn: Any) -> bool:
    return (await hf.store.control.turn(turn.turn_id)).ended


def freeze(
    state: Path,
    stop_at: tuple[str, int, str | None],
    meanwhile: Callable[[Member], None],
    *,
    of_b: int = 0,
) -> tuple[Member, list[oracle.Entry]]:
    """A stops, *meanwhile* happens, A goes on.  Returns A, ended, and the transcript."""
    with ExitStack() as stack:
        plan = {"state": str(state), "settings": QUICK}
        a = stack.enter_context(Member(name="a", stop_at=stop_at, **plan))
        b = stack.enter_context(Member(name="b", per_lane=of_b, **plan))
        a.until("ready")
        b.until("ready")
        a.go()
        a.wait_stopped()
        b.go()
        meanwhile(b)
        a.signal(signal.SIGCONT)
        turns = every_turn(state)
        assert {turn.outcome for turn in turns} == {"replied"}
        a.until("done")
        b.until("done")
        assert (a.end(), b.end()) == (0, 0)
        a.read_to_end()
    entries = oracle.read(oracle.only_transcript(state))
    oracle.check_whole(entries)
    answers = oracle.check_answers(entries)
    assert len(oracle.finals(entries)) == len(turns) == 1 + of_b, "not one reply a turn"
    questions = [e for e in entries if e.get("message", {}).get("role") == "user"]
    assert len(questions) == len(turns), "a question twice"
    for event in a.outcomes() + b.outcomes():
        assert event["reply"] == answers[event["text"]], "told what does not stand there"
    return a, entries


def errors_of(member: Member) -> set[str]:
    return {event["name"] for event in member.events if event["event"] == "error"}


@pytest.mark.parametrize(("point", "hit"), HOLDING, ids=ids(HOLDING))
def test_frozen_with_the_write_lock_it_may_finish_its_write_and_nothing_else(
    tmp_path: Path, point: str, hit: int
) -> None:
    a, entries = freeze(
        tmp_path, (point, hit, None), lambda _: until(tmp_path, has_newer_token)
    )
    assert errors_of(a) & LEARNT, "it was never told that it is fenced"
    [final] = oracle.finals(entries)
    by_a = final["holdfast"]["token"] == 1
    assert by_a == (hit == 2 or point == "commit.appended"), "whose reply is it?"


@pytest.mark.parametrize(("point", "hit"), FREE, ids=ids(FREE))
def test_frozen_without_the_write_lock_its_turn_ends_without_it(
    tmp_path: Path, point: str, hit: int
) -> None:
    a, entries = freeze(tmp_path, (point, hit, None), lambda _: until(tmp_path, has_ended))
    assert errors_of(a) & LEARNT, "it was never told that it is fenced"
    [final] = oracle.finals(entries)
    assert (final["holdfast"]["token"] == 1) == (point == "commit.released")


@pytest.mark.parametrize(("point", "after"), TOO_LATE, ids=ids(TOO_LATE))
def test_frozen_in_its_control_transaction_it_has_ended_its_turn_itself(
    tmp_path: Path, point: str, after: str
) -> None:
    """Nobody else can write meanwhile: the lease is not theirs to take."""

    def longer_than_its_lease(_: Member) -> None:
        time.sleep(1.5)  # Not synchronisation: how long it stays frozen is the scenario.

    a, entries = freeze(tmp_path, (point, 1, after), longer_than_its_lease, of_b=1)
    assert errors_of(a) & LEARNT == set()
    assert min(final["holdfast"]["token"] for final in oracle.finals(entries)) == 1
