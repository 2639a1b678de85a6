"""`why` in words: for every state of a session, what will happen next, by itself or not."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from holdfast._core.explaining import STATES, Explained
from holdfast._core.settings import ChannelSettings, Settings
from holdfast.types import (
    Around,
    FencingToken,
    Holder,
    Owed,
    Owner,
    OwnerId,
    Place,
    Session,
    SessionId,
    Turn,
    TurnId,
    Waiting,
    Why,
)

ME = Owner(OwnerId("me"), 4711, 1, "boot", 1, "here")
OTHER = Owner(OwnerId("other"), 4712, 1, "boot", 1, "here")
SESSION = Session(SessionId("s"), "main", "s.jsonl", 1, 0, "2026-11-21T10:00:00.000Z")


def turn(name: str = "t", **changes: Any) -> Turn:
    plain: dict[str, Any] = {
        field.name: None for field in Turn.__dataclass_fields__.values()
    }  # fmt: skip
    plain |= {
        "turn_id": TurnId(name), "session_id": SESSION.session_id, "lane": "user",
        "source": "api", "agent_id": "main", "attempts": 1, "bound": False,
        "abort_requested": False, "accepted_at": "2026-11-21T10:00:00.000Z",
    }  # fmt: skip
    return Turn(**{**plain, **changes})


def holder(**changes: Any) -> Holder:
    made = Holder(
        turn("running"), FencingToken(3), ME, "2026-11-21T10:00:01.000Z", True, False, {}
    )
    return replace(made, **changes)


def why(**changes: Any) -> Why:
    made = Why(SESSION, ("agent:main:main",), None, (), 0, ((OTHER, True),), 0, ())
    return replace(made, **changes)


def waiting(word: str | None, **changes: Any) -> dict[str, Any]:
    place = Place(1, word, TurnId("running"), "user", "2026-11-21T10:00:01.000Z", 700)
    return {"waiting": (Waiting(turn("w", **changes), place),), "waiting_count": 1}


def explained(rows: Why, around: Around | None = None, **settings: Any) -> Explained:
    lives = Around({ME.owner_id: "alive", OTHER.owner_id: "alive"})
    return Explained("main", rows, around or lives, Settings(**settings), lambda _: 42_000)


def lock(**changes: Any) -> dict[str, Any]:
    plain = {
        "path": "s.jsonl", "holder": {"pid": 99, "stopped": False}, "age_ms": 5, "says": "x",
        "claim": "s.jsonl.lock", "verdict": "wait",
    }  # fmt: skip
    return {**plain, **changes}


def test_an_idle_session_starts_the_next_message_at_once() -> None:
    found = explained(why())
    assert (found.state, found.broken) == ("idle", ())
    assert found.next == "nothing waits; the next message starts at once"


def test_an_idle_session_without_a_runner_says_so_before_anybody_waits() -> None:
    found = explained(why(runners=()))
    assert found.state == "idle"
    assert [each.condition for each in found.broken] == ["runner"]
    assert "waits until a runner is started" in found.next


def test_a_running_turn_and_who_comes_after_it() -> None:
    found = explained(why(holder=holder(), **waiting("turn")))
    assert found.state == "running"
    assert found.next == (
        "the user turn running runs to its end; then the user turn w is the next one"
    )
    told = found.to_json()
    assert told["holder"]["pid"] == ME.pid
    assert told["holder"]["age_ms"] == 42_000
    assert told["waiting"][0]["reason"] == (
        "next in line; the user turn running has been running for 42 s"
    )
    assert set(told["waiting"][0]) >= {"turn_id", "lane", "position", "reason", "since"}


def test_a_runner_that_has_died_is_no_runner() -> None:
    dead = Around({ME.owner_id: "alive", OTHER.owner_id: "dead"})
    found = explained(why(**waiting("slot")), dead)
    assert found.state == "blocked"
    assert found.waiting[0].place.waiting_for == "no_runner"
    assert found.next.startswith("nothing, by itself: no runner for agent main is alive")
    assert "holdfast serve" in found.next


def test_a_bound_turn_needs_no_runner() -> None:
    found = explained(why(runners=(), **waiting("slot", bound=True)))
    assert found.state == "waiting"
    assert found.waiting[0].place.waiting_for == "slot"


def test_a_full_lane_ends_by_itself() -> None:
    found = explained(why(**waiting("slot")))
    assert found.state == "waiting"
    assert found.next.startswith("the user turn w starts when a turn of lane user ends")


def test_a_dead_owner_is_named_and_replaced_by_the_living() -> None:
    dead = Around({ME.owner_id: "dead", OTHER.owner_id: "alive"})
    found = explained(why(holder=holder(), **waiting("turn")), dead)
    assert found.state == "recovering"
    assert "4711" in found.broken[0].detail
    assert "dead, not yet buried" in found.broken[0].detail
    assert "by a living one" in found.next


def test_a_dead_owner_and_nobody_alive_is_blocked() -> None:
    dead = Around({ME.owner_id: "dead"})
    found = explained(why(holder=holder(), runners=((ME, True),)), dead)
    assert found.state == "blocked"
    assert found.next.startswith("nothing, by itself")


def test_a_frozen_owner_is_named_with_what_the_setting_does() -> None:
    stopped = Around({ME.owner_id: "stopped", OTHER.owner_id: "alive"})
    found = explained(why(holder=holder()), stopped)
    assert found.state == "recovering"
    assert found.broken[0].condition == "frozen"
    assert "kill -CONT 4711" in found.broken[0].do
    assert "not killed" in found.broken[0].do
    assert "silent for 30 s" in found.next
    killed = explained(why(holder=holder()), stopped, frozen_holder="kill")
    assert "killed after 30 s" in killed.broken[0].do


def test_a_store_that_nobody_can_write_blocks_everything() -> None:
    around = Around({ME.owner_id: "alive", OTHER.owner_id: "alive"}, blocked="pid 7 is stopped")
    found = explained(why(holder=holder()), around)
    assert found.state == "blocked"
    assert found.next.startswith("nothing, by itself: pid 7 is stopped")
    idle = explained(why(), around)
    assert idle.state == "idle", "nobody waits for it yet; it is told as broken"
    assert idle.broken[0].condition == "store"


@pytest.mark.parametrize(
    ("seen", "condition", "blocks"),
    [
        (lock(holder={"pid": 99, "stopped": True}), "frozen", True),
        (lock(verdict="report"), "write_lock", True),
        (lock(claim=None), "claims", False),
    ],
)
def test_what_is_wrong_with_the_write_lock_is_named(
    seen: dict[str, Any], condition: str, blocks: bool
) -> None:
    lives = {ME.owner_id: "alive", OTHER.owner_id: "alive"}
    found = explained(why(holder=holder()), Around(lives, seen))
    [broken] = found.broken
    assert (broken.condition, broken.blocks) == (condition, blocks)
    assert "99" in broken.detail
    assert (found.state == "blocked") is blocks


def test_a_lock_that_is_held_as_it_should_be_is_no_trouble() -> None:
    found = explained(why(holder=holder()), Around({ME.owner_id: "alive"}, lock()))
    assert found.to_json()["write_lock"]["holder"]["pid"] == 99
    assert [each.condition for each in found.broken] == []


def owed_part(**changes: Any) -> Owed:
    plain: dict[str, Any] = {
        "delivery_id": "d-1", "turn_id": TurnId("t"), "target": "hook:a", "state": "pending",
        "part": 1, "parts": 2, "attempts": 0, "left_ms": 0, "ahead": None, "owner_id": None,
        "reason": None, "since": "2026-11-21T10:00:00.000Z",
    }  # fmt: skip
    return Owed(**{**plain, **changes})


HOOK = {"hook": ChannelSettings(url="http://127.0.0.1:9/hook")}


@pytest.mark.parametrize(
    ("owed", "said"),
    [
        ({"state": "attempting"}, "is being handed over now"),
        ({"ahead": "t.0"}, "waits behind t.0, which goes to the same target first"),
        (
            {"ahead": "d-0"},
            "waits behind d-0, which goes to the same target first; it is passed after 10 min",
        ),
        (
            {"left_ms": 4_000, "attempts": 2, "reason": "http_500"},
            "is tried again in 4.0 s after 2 attempt(s): http_500",
        ),
        ({"state": "unknown"}, "nobody can tell whether it arrived; its channel decides"),
        (
            {"state": "unknown", "left_ms": 9_000},
            "nobody can tell whether it arrived; its channel decides in 9.0 s",
        ),
        ({}, "is due now"),
    ],
)
def test_what_a_delivery_waits_for(owed: dict[str, Any], said: str) -> None:
    found = explained(why(owed=1, deliveries=(owed_part(**owed),)), channels=HOOK)
    assert found.broken == ()
    assert found.state == "delivering"
    assert found.to_json()["deliveries"][0]["waits"] == said
    assert found.next == f"part 1 of 2 for hook:a: {said}"


def test_a_delivery_says_that_nobody_has_its_channel() -> None:
    for channels in ({}, {"hook": ChannelSettings()}):
        rows = why(owed=1, deliveries=(owed_part(),))
        found = explained(rows, channels=channels)
        assert [each.condition for each in found.broken] == ["channel"]
        assert found.next.endswith("if a process has channel hook: the settings do not")
        own = Explained("main", rows, Around(), found._settings, lambda _: 0, ["hook"])
        assert own.broken == (), "a program's own channel stands in no settings"


@pytest.mark.parametrize(
    ("life", "said"),
    [
        ("alive", "is being handed over now"),
        ("unknown", "is being handed over now"),
        ("stopped", "is being handed over by a process that is stopped"),
        ("dead", "was being handed over by a process that has died; another takes it up"),
    ],
)
def test_a_delivery_says_how_its_sender_is(life: str, said: str) -> None:
    owed = owed_part(state="attempting", owner_id=OTHER.owner_id)
    rows = why(owed=1, deliveries=(owed,), senders=(OTHER,), runners=())
    assert OTHER in rows.owners, "its life is asked for"
    found = explained(rows, Around({OTHER.owner_id: life}), channels=HOOK)
    assert found.to_json()["deliveries"][0]["waits"] == said
    last = ", once a process with channel hook runs" * (life in {"dead", "stopped"})
    assert found.next == f"part 1 of 2 for hook:a: {said}{last}"


def test_what_is_due_and_nobody_is_there_to_send_says_so() -> None:
    found = explained(why(owed=1, deliveries=(owed_part(),), runners=()), channels=HOOK)
    assert found.next == (
        "part 1 of 2 for hook:a: is due now, once a process with channel hook runs"
    )


def test_every_combination_of_facts_has_a_state_and_a_sentence() -> None:
    """No combination is without words, and what is blocked says that nothing happens by itself."""
    holders = [None, holder(), holder(recovering=True), holder(owner=None)]
    holders += [holder(turn=turn("running", abort_requested=True, abort_reason="max_time"))]
    words = [None, "turn", "queue", "slot", "no_runner", "quiet", "merge", "write_lock", "new"]
    queues = [{}, *(waiting(word) for word in words), {"waiting": (), "waiting_count": 3}]
    lives = ["alive", "stopped", "dead", "unknown"]
    locks = [None, lock(), lock(verdict="report"), lock(claim=None)]
    seen = set()
    for who, queue, life, runners, held, blocked in itertools.product(
        holders, queues, lives, [(), ((OTHER, False),)], locks, [None, "pid 7 is stopped"]
    ):
        around = Around({ME.owner_id: life, OTHER.owner_id: life}, held, None, blocked)
        found = explained(why(holder=who, runners=runners, **queue), around)
        seen.add(found.state)
        told = found.to_json()
        assert found.next, told
        assert "None" not in found.next, told
        assert (found.state == "blocked") == found.next.startswith("nothing, by itself"), told
        if who is None and not queue:
            assert found.state == "idle"
    assert seen == set(STATES) - {"delivering"}
