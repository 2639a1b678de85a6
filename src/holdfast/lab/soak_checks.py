"""
The promises, asked of what a soak has left behind.

Each check takes a `World` and yields a line for every promise that was broken, naming whom.
None asks another: a world that is wrong in one way is told of once.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from holdfast._core.delivery import MAY_HAVE_ARRIVED
from holdfast._core.stamped import is_final, is_question, turn_of
from holdfast._core.tree import text_of
from holdfast._core.turns import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from holdfast.lab.soak_world import Row, World
    from holdfast.types import Entry

__all__ = ["CHECKS", "check", "duplicates", "unanswered"]

INTERRUPTED: Final = "effect unknown"


def accepted_is_answered(world: World) -> Iterator[str]:
    """Every row has its one outcome."""
    for turn in unanswered(world):
        yield f"{_name(turn)} is {turn['state']}"
    for turn in world.turns.values():
        if turn["state"] == "done" and turn["outcome"] not in OUTCOMES:
            yield f"{_name(turn)} ended as {turn['outcome']}"


def unanswered(world: World) -> list[Row]:
    """Turns that were accepted and have not ended."""
    return [turn for turn in world.turns.values() if turn["state"] != "done"]


def what_was_said_is_so(world: World) -> Iterator[str]:
    """What a sender was told was accepted has a row, and what was refused has none."""
    by_key = _by_key(world)
    # Handed in more than once, by whoever: the other one may have landed.
    begun = Counter(note["of"] for note in world.notes if note["what"] == "begun")
    for note in world.notes:
        if note["what"] == "accepted":
            mine = [turn["turn_id"] for turn in by_key[f"soak-{note['of']}"]]
            if note["turn"] not in mine:
                yield f"message {note['of']} was accepted as {note['turn']}: it is {mine}"
        elif note["what"] == "refused" and begun[note.get("of")] == 1:
            for turn in by_key[f"soak-{note['of']}"]:
                yield f"message {note['of']} was refused ({note['code']}), and is {_name(turn)}"


def one_turn_a_key(world: World) -> Iterator[str]:
    """Whoever sends a message again is given the turn that it is."""
    for key, turns in _by_key(world).items():
        if len(turns) > 1:
            yield f"{key} was accepted {len(turns)} times"


def _by_key(world: World) -> defaultdict[str, list[Row]]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for turn in world.turns.values():
        if turn["idempotency_key"] is not None:
            found[turn["idempotency_key"]].append(turn)
    return found


def outcomes_are_what_was_told(world: World) -> Iterator[str]:
    """What a sender heard is what the row says."""
    for note in world.notes:
        if note["what"] != "told" or note["turn"] not in world.turns:
            continue
        turn = world.turns[note["turn"]]
        host = world.turns.get(turn["merged_into"] or "", turn)
        if note["kind"] != turn["outcome"]:
            yield f"{_name(turn)} was told as {note['kind']}, and is {turn['outcome']}"
        elif note["text"] != host["reply"]:
            yield f"{_name(turn)} was told another reply than its row has"


def one_final_a_reply(world: World) -> Iterator[str]:
    """A replied turn has exactly one final entry, the one that its row names; others none."""
    finals: dict[str, list[str]] = defaultdict(list)
    for transcript in world.transcripts:
        for entry in transcript.entries:
            if is_final(entry):
                finals[str(turn_of(entry))].append(str(entry["id"]))
    for turn in world.turns.values():
        found = finals.pop(turn["turn_id"], [])
        wanted = [turn["final_entry"]] if turn["outcome"] == "replied" else []
        if found != wanted:
            yield f"{_name(turn)} ({turn['outcome']}) has {found}: it is {wanted}"
    for turn_id, found in finals.items():
        yield f"{found} end {turn_id}, which is no turn"


def one_question_a_turn(world: World) -> Iterator[str]:
    """
    On no branch does a question stand twice, and above a reply its own stands.  One that left
    with a rollback of its host is asked again, on the branch that went on.
    """
    by_id = world.entries()
    for entry in by_id.values():
        if (turn_id := _asked_by(entry)) is not None:
            above = _above(by_id, str(entry.get("parentId")))
            if any(_asked_by(one) == turn_id for one in above):
                yield f"the question of {turn_id} stands twice on one branch"
    for turn in world.turns.values():
        if turn["outcome"] == "replied" and not _heard(by_id, turn, turn["turn_id"]):
            yield f"{_name(turn)} is replied, and its question does not stand above"


def merged_is_answered(world: World) -> Iterator[str]:
    """Who was merged was merged into somebody who replied, and has heard the question."""
    by_id = world.entries()
    for turn in world.turns.values():
        if turn["outcome"] != "merged":
            continue
        host = world.turns.get(turn["merged_into"])
        if host is None or host["outcome"] != "replied":
            yield f"{_name(turn)} was merged into {turn['merged_into']}, which did not reply"
        elif not _heard(by_id, host, turn["turn_id"]):
            yield f"{_name(turn)} was merged into {_name(host)}, which never heard it"
        elif turn["target"] not in {None, host["target"]}:
            yield f"{_name(turn)} was merged into {_name(host)}, which is answered elsewhere"


def _heard(by_id: Mapping[str, Entry], turn: Row, asker: str) -> bool:
    """Whether *asker*'s question stands above the final entry of *turn*."""
    return any(_asked_by(entry) == asker for entry in _above(by_id, turn["final_entry"]))


def _above(by_id: Mapping[str, Entry], entry_id: str) -> Iterator[Entry]:
    """An entry and what it goes back to."""
    entry = by_id.get(entry_id)
    while entry is not None:
        yield entry
        entry = by_id.get(str(entry.get("parentId")))


def _asked_by(entry: Entry) -> str | None:
    """The turn whose question it is."""
    return turn_of(entry) if is_question(entry) else None


def delivered_once(world: World) -> Iterator[str]:
    """One key a part, and what its row says of it is so."""
    told, rows = world.receiver, {row["delivery_id"]: row for row in world.deliveries}
    parts = Counter((row["turn_id"], row["part"]) for row in world.deliveries)
    for (turn_id, part), count in parts.items():
        if count > 1:
            yield f"part {part} of {turn_id} was owed under {count} keys"
    for key, row in rows.items():
        if hashlib.sha256(row["body"]).hexdigest() != row["body_hash"]:
            yield f"{key} does not have the bytes that its hash is of"
        if row["state"] == "delivered" and key not in told["keys"]:
            yield f"{key} is delivered, and was never received"
        if row["state"] == "failed" and key in told["keys"] and not _maybe(row):
            yield f"{key} failed ({row['reason']}), and was received"


def _maybe(row: Row) -> bool:
    """Whether its row says that it may have arrived all the same."""
    return MAY_HAVE_ARRIVED in (row["hint"] or "")


def received_as_owed(world: World) -> Iterator[str]:
    """What came is signed, is owed, and is the very bytes of its row, each time."""
    told, rows = world.receiver, {row["delivery_id"]: row for row in world.deliveries}
    for key in told["mismatches"]:
        yield f"{key} came with other bytes than before"
    if told["unsigned"]:
        yield f"{told['unsigned']} requests were not signed"
    for key, found in told["keys"].items():
        if key not in rows:
            yield f"{key} was received, and nobody owed it"
        elif found != rows[key]["body_hash"]:
            yield f"{key} was received with other bytes than its row has"


def delivered_whole(world: World) -> Iterator[str]:
    """A reply that has a target is owed to it in all its parts, and no other turn's is."""
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in world.deliveries:
        if row["kind"] == "reply":
            parts[row["turn_id"]].append(row)
    for turn in world.turns.values():
        found = sorted(parts.pop(turn["turn_id"], []), key=lambda row: int(row["part"]))
        owed = turn["target"] is not None and turn["outcome"] == "replied"
        if not owed:
            if found:
                yield f"{_name(turn)} owes nobody a reply, and has {len(found)} parts"
            continue
        numbers = [(row["part"], row["parts"]) for row in found]
        text = "".join(json.loads(row["body"])["text"] for row in found)
        if numbers != [(n, len(found)) for n in range(1, len(found) + 1)] or not found:
            yield f"{_name(turn)} is owed in parts {numbers}"
        elif "".join(text.split()) != "".join(turn["reply"].split()):
            yield f"{_name(turn)} is owed as another text than its reply"
    for turn_id in parts:
        yield f"{turn_id} is no turn, and something of it is owed"


def delivered_in_order(world: World) -> Iterator[str]:
    """What was delivered to one target came in the order of obligation."""
    targets: dict[str, list[Row]] = defaultdict(list)
    for row in world.deliveries:
        if row["state"] == "delivered" and not row["overtaken"]:
            targets[row["target"].partition(":")[2]].append(row)
    for to, rows in targets.items():
        came = {key: at for at, key in enumerate(world.receiver["order"].get(to, ()))}
        known = [row["delivery_id"] for row in rows if row["delivery_id"] in came]
        for before, after in pairwise(known):
            if came[before] > came[after]:
                yield f"{after} came to {to} before {before}"


def never_means_once(world: World) -> Iterator[str]:
    """A tool that must not run twice did not; what is recorded of it is so."""
    rows = {
        str(json.loads(row["arguments"]).get("tag")): row
        for row in world.calls if row["name"] in {"safe", "never"}
    }  # fmt: skip
    for (kind, tag), count in world.effects.items():
        if tag not in rows:
            yield f"{tag} had an effect, and nobody had meant to"
        if kind == "never" and count > 1:
            yield f"{tag} must not run twice, and had its effect {count} times"
    results = {
        str(entry["id"]): text_of(entry.get("message"))
        for each in world.transcripts for entry in each.entries
    }  # fmt: skip
    for tag, row in rows.items():
        effects = world.effects[row["name"], tag]
        said = results.get(row["result_id"])
        if row["replay"] == "never" and row["runs"] > 1:
            yield f"{tag} must not run twice, and was begun {row['runs']} times"
        if row["state"] == "done" and not effects:
            yield f"{tag} is done, and had no effect"
        if row["state"] == "interrupted" and said is not None and INTERRUPTED not in said:
            yield f"{tag} was interrupted, and its model was told {said!r}"
        if row["state"] == "done" and said is not None and INTERRUPTED in said:
            yield f"{tag} is done, and its model was told {said!r}"


def nobody_broke(world: World) -> Iterator[str]:
    """Senders meet what they were told of, and nothing else."""
    for note in world.notes:
        if note["what"] == "broke":
            yield f"the sender of {note['n']} met {note['error']}"


def transcripts_verify(world: World) -> Iterator[str]:
    for each in world.transcripts:
        for problem in each.problems:
            yield f"{each.path}: {problem}"


def nothing_is_held(world: World) -> Iterator[str]:
    for name, count in world.holds.items():
        if count:
            yield f"{count} {name} left"


CHECKS: Final[tuple[Callable[[World], Iterator[str]], ...]] = (
    accepted_is_answered,
    what_was_said_is_so,
    one_turn_a_key,
    outcomes_are_what_was_told,
    one_final_a_reply,
    one_question_a_turn,
    merged_is_answered,
    delivered_once,
    received_as_owed,
    delivered_whole,
    delivered_in_order,
    never_means_once,
    nobody_broke,
    transcripts_verify,
    nothing_is_held,
)


def check(world: World) -> dict[str, list[str]]:
    """What is wrong, by the name of the check; nothing: all is well."""
    found = {each.__name__: list(each(world)) for each in CHECKS}
    return {name: problems for name, problems in found.items() if problems}


def duplicates(problems: Mapping[str, list[str]]) -> int:
    """How often something was there twice."""
    twice = (
        "one_turn_a_key",
        "one_final_a_reply",
        "one_question_a_turn",
        "delivered_once",
        "never_means_once",
    )
    return sum(len(problems.get(name, ())) for name in twice)


def _name(turn: Row) -> str:
    return f"turn {turn['turn_id']} ({turn['lane']}, {turn['policy']}, {turn['text'][:40]!r})"
