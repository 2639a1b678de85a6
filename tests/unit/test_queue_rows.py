"""
`queues` says in one row what counting would say, whoever moved the turns; and the pick that
reads only its front finds what looking at every waiting turn would find.

Method: any sequence of what the store can be asked for, on many lanes and sessions, against
a second reading that counts and sorts everything.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.queues import ME, Queue, queue

from holdfast._core.lanes import Head, effective, head_of, is_people
from holdfast._core.settings import Lane
from holdfast._core.turns import Event
from holdfast.backends.files.control import (
    aborting,
    leases,
    moving,
    order,
    owners,
    places,
    queries,
    waits,
)
from holdfast.backends.files.control.clock import clock_ms
from holdfast.backends.files.control.rows import fetch_turn
from holdfast.errors import HoldfastError
from holdfast.types import Commit, FencingToken, SessionId, TurnId

LANES = {
    "user": Lane(2, 100),
    "ours": Lane(1, 70),
    "cron": Lane(1, 40),
    "heartbeat": Lane(1, 20),
}
POLICIES = ["enqueue", "collect", "steer", "interrupt", "rollback", "reject"]


class Script:
    """What to do next, by number: the same number does the same."""

    def __init__(self, q: Queue) -> None:
        self.q = q
        self.others = [q.owner("owner-1"), q.owner("owner-2")]

    def run(self, seed: int) -> None:
        calls: list[Callable[[int], Any]] = [
            self.admit, self.admit, self.admit, self.admit, self.pick, self.pick, self.commit, self.end, self.put_back,
            self.take_over, self.cancel, self.end_waiting, self.reset, self.wait_for, self.wait,
            self.regain, self.gone,
        ]  # fmt: skip
        seed = random.Random(seed).getrandbits(40)  # Small numbers do as much as great ones.
        number, seed = seed % len(calls), seed // len(calls)
        self.q.db.execute("SAVEPOINT call")
        try:
            calls[number](seed)
        except HoldfastError:  # Refused: what that leaves is looked at, too.
            self.q.db.execute("ROLLBACK TO call")
        self.q.db.execute("RELEASE call")

    def admit(self, seed: int) -> None:
        lane = [*LANES, "unbounded"][seed % 5]
        home = [None, ME, *self.others][seed // 5 % 4]
        self.q.admit(
            "abcd"[seed // 20 % 4], lane=lane, priority=[10, 40, 100][seed // 80 % 3],
            policy=POLICIES[seed // 240 % 6], home=home, bound=home is not None and seed % 7 == 0,
            quiet_ms=2_000, collect_max=3,
        )  # fmt: skip

    def pick(self, seed: int) -> None:
        self.q.pick(LANES, overdue=self.turns("accepted")[: seed % 3])

    def commit(self, seed: int) -> None:
        turn, token = self.running(seed)
        guests = queries_of_guests(self.q, turn)[: seed % 3]
        leases.commit(
            self.q.db, turn, token,
            Commit("r", "e", b"", 1, 1, synced=True, merged=tuple(guests)),
        )  # fmt: skip

    def end(self, seed: int) -> None:
        leases.end(self.q.db, *self.running(seed), "failed", None, None)

    def put_back(self, seed: int) -> None:
        leases.put_back(
            self.q.db, *self.running(seed),
            what=Event.REQUEUE, reason="owner_died", delay_ms=seed % 3 * 1_000,
        )  # fmt: skip

    def take_over(self, seed: int) -> None:
        turn, token = self.running(seed)
        (session,) = self.q.db.execute(
            "SELECT session_id FROM turns WHERE turn_id = ?", (turn,)
        ).fetchone()
        leases.take_over(self.q.db, session, token, self.others[0])

    def cancel(self, seed: int) -> None:
        aborting.cancel(self.q.db, self.one(self.turns(), seed), rollback=seed % 2 == 0)

    def end_waiting(self, seed: int) -> None:
        leases.end_waiting(self.q.db, self.one(self.turns("accepted"), seed), "failed", None)

    def reset(self, seed: int) -> None:
        moving.reset(self.q.db, f"agent:main:{'abcd'[seed % 4]}")

    def wait_for(self, seed: int) -> None:
        turn, token = self.running(seed)
        waits.wait_for(self.q.db, turn, token, self.one(self.turns(), seed // 7))

    def regain(self, seed: int) -> None:
        waits.regain(self.q.db, *self.running(seed), LANES)

    def wait(self, seed: int) -> None:
        self.q.now_s += [0.3, 1.0, 17.0, 90.0][seed % 4]

    def gone(self, seed: int) -> None:
        owners.set_draining(self.q.db, self.others[seed % 2])

    # ------------------------------------------------------------------ choosing

    def turns(self, state: str | None = None) -> list[TurnId]:
        rows = self.q.db.execute(
            "SELECT turn_id FROM turns WHERE coalesce(state = ?, 1) ORDER BY admission",
            (state,),
        )
        return [TurnId(row[0]) for row in rows]

    def running(self, seed: int) -> tuple[TurnId, FencingToken]:
        rows = self.q.db.execute("SELECT turn_id, token FROM leases ORDER BY token, turn_id")
        return self.one([(TurnId(row[0]), FencingToken(row[1])) for row in rows], seed)

    def one(self, many: list[Any], seed: int) -> Any:
        if not many:
            raise HoldfastError
        return many[seed % len(many)]


def queries_of_guests(q: Queue, host: TurnId) -> list[TurnId]:
    rows = q.db.execute("SELECT turn_id FROM turns WHERE host = ? ORDER BY admission", (host,))
    return [TurnId(row[0]) for row in rows]


# -------------------------------------------------------------------- the second reading


def counted(q: Queue) -> list[Any]:
    """`queues`, by counting."""
    rows: dict[tuple[str, str], list[Any]] = {}
    for session, lane, host, *first in q.db.execute(
        "SELECT session_id, lane, host, admission, priority, accepted_ms, coalesce(home, '')"
        " FROM turns"
        " WHERE state = 'accepted' ORDER BY admission"
    ):
        row = rows.setdefault((session, lane), [0, 0, None, None, None, None])
        row[host is not None] += 1
        if host is None and row[2] is None:
            row[2:] = first
    people: dict[str, int] = {}
    for (session, lane), row in rows.items():
        people[session] = people.get(session, 0) + (is_people(lane) and row[2] is not None)
    return sorted(
        (*key, *row, int(is_people(key[1]) and people[key[0]] > 1)) for key, row in rows.items()
    )


def heads(q: Queue) -> list[tuple[Head, TurnId]]:
    """The head of each idle session, best first, by looking at every turn that waits."""
    now_ms, sessions = clock_ms(q.db), dict[str, dict[str, tuple[Head, TurnId]]]()
    for session, lane, priority, accepted_ms, admission, turn in q.db.execute(
        "SELECT session_id, lane, priority, accepted_ms, admission, turn_id FROM turns"
        " WHERE state = 'accepted' AND host IS NULL AND session_id NOT IN"
        " (SELECT session_id FROM leases) ORDER BY admission"
    ):
        head = Head(effective(priority, now_ms - accepted_ms), admission, lane)
        sessions.setdefault(session, {}).setdefault(lane, (head, turn))
    found = []
    for each in sessions.values():
        head = head_of(row[0] for row in each.values())  # type: ignore[assignment]
        found.append((head, each[head.lane][1]))
    return sorted(found, key=lambda row: row[0].rank)


def may(q: Queue, turn: TurnId, overdue: list[TurnId]) -> bool:
    home, bound, not_before_ms, lane = q.db.execute(
        "SELECT home, bound, not_before_ms, lane FROM turns WHERE turn_id = ?", (turn,)
    ).fetchone()
    live = {row[0] for row in q.db.execute("SELECT owner_id FROM owners WHERE draining = 0")}
    (used,) = q.db.execute(
        "SELECT (SELECT count(*) FROM slots WHERE lane = ?1)"
        " + (SELECT count(*) FROM turns WHERE lane = ?1 AND slot_wanted = 1)", (lane,)
    ).fetchone()  # fmt: skip
    return (
        not bound
        and not_before_ms <= clock_ms(q.db)
        and (home in {None, ME} or home not in live or turn in overdue)
        and (lane not in LANES or used < LANES[lane].concurrency)
    )


def agree(q: Queue) -> None:
    kept = q.db.execute(
        "SELECT session_id, lane, waiting, hosted, admission, priority, accepted_ms, home, mixed"
        " FROM queues ORDER BY 1, 2"
    ).fetchall()
    assert kept == counted(q)
    every = heads(q)
    ids = [turn for _, turn in every]
    for overdue in ([], ids[::2]):
        expected = next((turn for turn in ids if may(q, turn, overdue)), None)
        q.db.execute("SAVEPOINT peek")
        leased = q.pick(LANES, overdue=overdue)
        q.db.execute("ROLLBACK TO peek")
        q.db.execute("RELEASE peek")
        assert (leased.turn.turn_id if leased else None) == expected
    rows = [fetch_turn(q.db, turn) for turn in ids]
    foreign = [row.turn_id for row in rows if not row.bound and row.home not in {None, ME}]
    assert order.foreign_heads(q.db, ME, clock_ms(q.db)) == foreign
    assert queries.has_heads(q.db, ["main"], None) == any(not row.bound for row in rows)
    mine = any(not row.bound and may(q, row.turn_id, []) for row in rows)
    assert queries.has_heads(q.db, ["main"], None, ME) >= mine, "a pick would find something"
    for (turn,) in q.db.execute("SELECT turn_id FROM turns").fetchall():
        assert queries.is_head(q.db, turn) == (turn in ids)
        place = places.place(q.db, turn, LANES)
        if turn in ids:
            assert place.position == 0, "the head of an idle session has somebody ahead of it"
            assert place.waiting_for != "queue"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 1 << 30), min_size=20, max_size=100))
def test_the_rows_say_what_counting_says_and_the_pick_what_sorting_says(
    seeds: list[int],
) -> None:
    with queue() as q:
        script = Script(q)
        for seed in seeds:
            script.run(seed)
        agree(q)


def test_a_turn_behind_many_others_of_its_lane_is_told_how_many() -> None:
    with queue() as q:
        turns = [q.admit() for _ in range(700)]
        seen = [places.place(q.db, turn.turn_id, LANES).position for turn in turns]
        assert seen == list(range(700))


def test_what_waits_for_a_better_lane_counts_it_as_ahead() -> None:
    with queue() as q:
        beat = q.admit(lane="heartbeat", priority=20)
        for n in range(3):
            q.admit(priority=100)
            place = places.place(q.db, beat.turn_id, LANES)
            assert (place.position, place.waiting_for) == (n + 1, "queue")
        q.now_s += 80  # It stands at 100 now, and came first.
        assert places.place(q.db, beat.turn_id, LANES).position == 0


def test_sessions_with_several_lanes_of_people_stand_where_their_earliest_does() -> None:
    """Its own priority is low; but a later one of a better lane lends it its own."""
    with queue() as q:
        first = q.admit("a", lane="ours", priority=10)
        between = q.admit("b", priority=60)
        q.admit("a", priority=100)
        leased = q.pick({})
        assert leased is not None
        assert leased.turn.turn_id == first.turn_id
        following = q.pick({})
        assert following is not None
        assert following.turn.turn_id == between.turn_id


@pytest.mark.parametrize("count", [3, 400])
def test_what_stands_behind_such_a_head_is_walked_past_too(count: int) -> None:
    with queue() as q:
        elsewhere = q.owner("owner-1")
        for n in range(count):
            q.admit(f"s{n}", home=elsewhere)
            q.admit(f"s{n}", lane="cron", priority=40)
        mine = q.admit("mine", lane="cron", priority=40)
        leased = q.pick(LANES)
        assert leased is not None
        assert leased.turn.turn_id == mine.turn_id


def test_who_wants_its_slot_back_comes_before_new_turns() -> None:
    with queue() as q:
        one = {"user": Lane(1, 100), "subagent": Lane(2, 60)}
        q.admit("parent")
        parent = q.pick(one)
        child = q.admit("child", lane="subagent", priority=60)
        q.admit("next")
        q.admit("after")
        assert parent is not None
        me = (parent.turn.turn_id, parent.token)
        waits.wait_for(q.db, *me, child.turn_id)
        following = q.pick(one)
        assert following is not None
        assert following.turn.session_key == "agent:main:next"
        leased = q.pick(one)
        assert leased is not None
        q.commit(leased)
        assert not waits.regain(q.db, *me, one)
        q.commit(following)
        assert q.pick(one) is None, "a new turn took the slot that is the parent's"
        assert waits.regain(q.db, *me, one)
        assert waits.regain(q.db, *me, one), "asked twice"
        assert q.pick(one) is None
        q.commit(parent)
        assert q.pick(one) is not None


@pytest.mark.parametrize("count", [3, 400])
def test_heads_that_nobody_may_run_are_walked_past(count: int) -> None:
    with queue() as q:
        elsewhere = q.owner("owner-1")
        for n in range(count):
            q.admit(f"s{n}", home=elsewhere)
        mine = q.admit("mine")
        leased = q.pick({})
        assert leased is not None
        assert leased.turn.turn_id == mine.turn_id
        assert q.pick({}) is None


def test_a_session_by_name_has_heads_or_none() -> None:
    with queue() as q:
        turn = q.admit()
        assert queries.has_heads(q.db, ["main"], turn.session_id)
        assert not queries.has_heads(q.db, ["dev"], turn.session_id)
        assert not queries.has_heads(q.db, ["main"], SessionId("elsewhere"))
