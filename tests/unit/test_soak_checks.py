"""What judges a soak can say no: a sound world, and each promise broken in it once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.lab.soak_checks import CHECKS, check, duplicates, unanswered
from holdfast.lab.soak_world import Transcript, World

INTERRUPTED = "interrupted, effect unknown: …"


def turn(name: str, outcome: str = "replied", **facts: Any) -> dict[str, Any]:
    replied = outcome == "replied"
    return {
        "turn_id": name, "lane": "user", "policy": "enqueue", "state": "done",
        "outcome": outcome, "text": f"{name}: ok", "reply": f"reply to: {name}" * replied or None,
        "idempotency_key": f"soak-{name}", "final_entry": f"{name}-final" if replied else None,
        "target": None, "merged_into": None, **facts,
    }  # fmt: skip


def question(name: str, parent: str | None = None) -> dict[str, Any]:
    return {
        "type": "message", "id": f"{name}-asks", "parentId": parent,
        "message": {"role": "user", "content": name}, "holdfast": {"turn": name},
    }  # fmt: skip


def final(name: str, parent: str, entry_id: str = "") -> dict[str, Any]:
    return {
        "type": "message", "id": entry_id or f"{name}-final", "parentId": parent,
        "message": {"role": "assistant", "content": "yes"},
        "holdfast": {"turn": name, "final": True},
    }  # fmt: skip


def result(entry_id: str, text: str) -> dict[str, Any]:
    message = {"role": "toolResult", "content": text}
    return {"type": "message", "id": entry_id, "parentId": None, "message": message}


def part(name: str, n: int, of: int, text: str, state: str = "delivered") -> dict[str, Any]:
    body = json.dumps({"text": text}).encode()
    return {
        "delivery_id": f"{name}.{n}", "turn_id": name, "kind": "reply", "part": n, "parts": of,
        "target": "hook:ann", "body": body, "body_hash": hashlib.sha256(body).hexdigest(),
        "state": state, "hint": None, "reason": None, "overtaken": 0,
    }  # fmt: skip


def call(tag: str, state: str, replay: str = "never", runs: int = 1) -> dict[str, Any]:
    return {
        "name": replay, "arguments": json.dumps({"tag": tag}), "replay": replay,
        "state": state, "runs": runs, "result_id": f"{tag}-result",
    }  # fmt: skip


def sound() -> World:
    """Two who were answered, one that was merged, one that was silent; parts, tools, notes."""
    parts = [part("a", 1, 2, "reply to:"), part("a", 2, 2, "a"), part("b", 1, 1, "reply to: b")]
    names = ("a", "b")
    return World(
        turns={
            "a": turn("a", target="hook:ann"),
            "b": turn("b", target="hook:ann"),
            "c": turn("c", "merged", merged_into="b"),
            "d": turn("d", "silent"),
        },
        deliveries=parts,
        calls=[call("t1", "done"), call("t2", "interrupted"), call("t3", "done", "safe", 2)],
        transcripts=[
            Transcript("one", [
                question("a"), final("a", "a-asks"), question("b", "a-final"),
                question("c", "b-asks"), final("b", "c-asks"), question("d", "b-final"),
                result("t1-result", "counted t1"), result("t2-result", INTERRUPTED),
            ]),
        ],
        notes=[
            *({"n": name, "of": name, "what": "begun"} for name in "abcde"),
            *({"n": name, "of": name, "what": "accepted", "turn": name} for name in names),
            {"n": "a", "what": "told", "turn": "a", "kind": "replied", "text": "reply to: a"},
            {"n": "c", "what": "told", "turn": "c", "kind": "merged", "text": "reply to: b"},
            {"n": "e", "of": "e", "what": "refused", "code": "queue_full"},
        ],
        effects=Counter({("never", "t1"): 1, ("safe", "t3"): 2}),
        receiver={
            "mismatches": [], "unsigned": 0,
            "keys": {row["delivery_id"]: row["body_hash"] for row in parts},
            "order": {"ann": ["a.1", "a.2", "b.1"]},
        },
        holds={"leases": 0},
    )  # fmt: skip


def test_a_sound_world_is_sound() -> None:
    assert check(sound()) == {}
    assert unanswered(sound()) == []


def change(**fields: Any) -> Callable[[World], None]:
    """Of turn a."""
    return lambda world: world.turns["a"].update(fields)


def entries(world: World) -> list[dict[str, Any]]:
    return world.transcripts[0].entries


def note(what: str, **facts: Any) -> Callable[[World], None]:
    return lambda world: world.notes.append({"what": what, **facts})


def delivery(at: int, **fields: Any) -> Callable[[World], None]:
    return lambda world: world.deliveries[at].update(fields)


def told(**facts: Any) -> Callable[[World], None]:
    return lambda world: world.receiver.update(facts)  # type: ignore[attr-defined]


def not_received(world: World) -> None:
    del world.receiver["keys"]["b.1"]


def failed_and_received(world: World) -> None:
    delivery(2, state="failed")(world)


def asked_twice(world: World) -> None:
    entries(world).append({**question("a", "d-asks"), "id": "again"})


def never_asked(world: World) -> None:
    next(e for e in entries(world) if e["id"] == "a-final")["parentId"] = None


def heard_by_nobody(world: World) -> None:
    """Its question stands, and not above the reply that is said to answer it."""
    next(e for e in entries(world) if e["id"] == "b-final")["parentId"] = "b-asks"


def twice_accepted(world: World) -> None:
    world.turns["d"]["idempotency_key"] = "soak-b"


def other_bytes(world: World) -> None:
    world.receiver["keys"]["a.1"] = "another"


BROKEN: list[tuple[str, Callable[[World], object], str]] = [
    ("accepted_is_answered", change(state="running"), "is running"),
    ("accepted_is_answered", change(state="committed"), "is committed"),
    ("accepted_is_answered", change(outcome=None), "ended as None"),
    ("what_was_said_is_so", note("accepted", n="9", of="9", turn="gone"), "accepted as gone"),
    ("what_was_said_is_so", note("accepted", n="9", of="b", turn="a"), "accepted as a"),
    ("what_was_said_is_so", note("refused", n="d", of="d", code="rejected"), "was refused"),
    ("one_turn_a_key", twice_accepted, "accepted 2 times"),
    ("outcomes_are_what_was_told",
     note("told", n="d", turn="d", kind="replied", text=None), "told as replied"),
    ("outcomes_are_what_was_told",
     note("told", n="b", turn="b", kind="replied", text="no"), "another reply"),
    ("one_final_a_reply", lambda w: entries(w).append(final("a", "a-asks", "x")), "'x'"),
    ("one_final_a_reply", lambda w: entries(w).append(final("d", "d-asks")), "silent"),
    ("one_final_a_reply", lambda w: entries(w).append(final("z", "d-asks")), "no turn"),
    ("one_final_a_reply", change(final_entry="other"), "it is ['other']"),
    ("one_question_a_turn", asked_twice, "twice on one branch"),
    ("one_question_a_turn", never_asked, "does not stand above"),
    ("merged_is_answered", heard_by_nobody, "never heard it"),
    ("merged_is_answered", lambda w: w.turns["c"].update(merged_into="d"), "did not reply"),
    ("merged_is_answered", lambda w: w.turns["c"].update(merged_into=None), "did not reply"),
    ("merged_is_answered", lambda w: w.turns["c"].update(target="hook:eve"), "elsewhere"),
    ("delivered_once",
     lambda w: w.deliveries.append({**w.deliveries[2], "delivery_id": "b.x"}), "2 keys"),
    ("delivered_once", delivery(0, body=b'{"text": "reply to:", "to": "bob"}'), "its hash is of"),
    ("delivered_once", not_received, "never received"),
    ("delivered_once", failed_and_received, "and was received"),
    ("received_as_owed", told(mismatches=["a.1"]), "other bytes than before"),
    ("received_as_owed", told(unsigned=3), "not signed"),
    ("received_as_owed", other_bytes, "other bytes than its row"),
    ("received_as_owed", lambda w: w.receiver["keys"].update(x="y"), "nobody owed it"),
    ("delivered_whole", lambda w: w.deliveries.pop(0), "in parts"),
    ("delivered_whole", lambda w: w.deliveries.pop(2), "in parts []"),
    ("delivered_whole", change(reply="something else"), "another text"),
    ("delivered_whole", change(target=None), "owes nobody"),
    ("delivered_whole", lambda w: w.deliveries.append(part("z", 1, 1, "?")), "is no turn"),
    ("delivered_in_order", told(order={"ann": ["a.2", "a.1", "b.1"]}), "a.2 came to ann"),
    ("never_means_once", lambda w: w.effects.update([("never", "t1")]), "2 times"),
    ("never_means_once", lambda w: w.effects.update([("safe", "t9")]), "nobody had meant to"),
    ("never_means_once", lambda w: w.calls.append(call("t4", "done")), "had no effect"),
    ("never_means_once", lambda w: w.calls[1].update(runs=2), "begun 2 times"),
    ("never_means_once",
     lambda w: entries(w)[7].update(result("t2-result", "fine")), "was told 'fine'"),
    ("never_means_once",
     lambda w: entries(w)[6].update(result("t1-result", INTERRUPTED)), "t1 is done"),
    ("nobody_broke", note("broke", n="7", error="KeyError()"), "met KeyError"),
    ("transcripts_verify", lambda w: w.transcripts[0].problems.append("torn"), "one: torn"),
    ("nothing_is_held", lambda w: w.holds.update(slots=2), "2 slots left"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "breaks", "says"), BROKEN, ids=[f"{each[0]}: {each[2]}" for each in BROKEN]
)
def test_a_broken_promise_is_told_by_its_check(
    name: str, breaks: Callable[[World], object], says: str
) -> None:
    world = sound()
    breaks(world)
    found = check(world)
    assert name in found, found
    assert any(says in problem for problem in found[name]), found[name]


def test_every_check_has_a_world_that_it_refuses() -> None:
    assert {each.__name__ for each in CHECKS} == {name for name, _, _ in BROKEN}


def test_a_question_that_left_with_a_rollback_may_be_asked_again() -> None:
    world = sound()
    entries(world).append({**question("b", "a-asks"), "id": "left behind"})
    assert check(world) == {}


def test_what_may_have_arrived_may_have_been_received() -> None:
    world = sound()
    hint = "it may have arrived all the same: look there before sending it again"
    delivery(2, state="failed", hint=hint)(world)
    assert check(world) == {}


def test_what_was_overtaken_may_come_late() -> None:
    world = sound()
    told(order={"ann": ["a.2", "b.1", "a.1"]})(world)
    delivery(0, overtaken=1)(world)
    assert check(world) == {}


def test_a_message_that_was_refused_once_and_accepted_later_is_accepted() -> None:
    world = sound()
    note("begun", n="9", of="b")(world)
    note("refused", n="9", of="b", code="queue_full")(world)
    assert check(world) == {}


def test_duplicates_are_counted() -> None:
    world = sound()
    asked_twice(world)
    entries(world).append(final("a", "a-asks", "x"))
    assert duplicates(check(world)) == 2
