"""
The entries that Holdfast writes: their form, their ids and their stamp.

Every entry carries `"holdfast": {"turn", "attempt", "token", "seq", …}` at its top level; the
transcript format keeps unknown fields.  `seq` counts the entries of one turn's batch.  It says
more of some entries:

    final      the turn's reply; nothing else is one
    seed       history that the turn has brought along, neither its question nor a reply
    salvaged   of a reply whose place was gone; a side entry, never final
    rebased    of a reply that was put over a rewritten transcript, unseen by its model
    promoted   a salvaged reply that somebody put onto the branch; `from` is its old id
    host       of a question that was taken into the run of that turn, under its token
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast._core.turns import ENDED_BY
from holdfast._stamps import now_iso, uuid7

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from holdfast._core.branch import Branch
    from holdfast._core.tree import Tree
    from holdfast.types import Entry, FencingToken, Leased, MadeEntry, Turn

__all__ = [
    "Stamp",
    "anew",
    "asked",
    "ended",
    "left_branch",
    "made",
    "promoted",
    "question",
    "rebased",
    "reparented",
    "reply",
    "salvaged",
    "seeded",
]

#: `customType` of the root that follows a rolled back first turn.
ROLLED_BACK: Final = "holdfast:rolled-back"


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which attempt writes."""

    turn: str
    attempt: int
    token: FencingToken
    host: str | None = None  #: The turn whose run has taken this question in.

    def mark(self, seq: int, *, final: bool = False, seed: bool = False) -> dict[str, Any]:
        stamp = {"turn": self.turn, "attempt": self.attempt, "token": self.token, "seq": seq}
        more = {"final": final, "seed": seed}
        host = {} if self.host is None else {"host": self.host}
        return {**stamp, **host, **{name: True for name, said in more.items() if said}}


def question(turn: Turn, stamp: Stamp, parent: str | None) -> Entry:
    """The user's message.  It is on disk before any model is called."""
    return _entry(parent, stamp.mark(0), type="message", message=_message("user", turn.text))


def seeded(
    messages: Sequence[Mapping[str, Any]], turn: Turn, stamp: Stamp, parent: str | None,
    *, start: int = 0,
) -> list[Entry]:  # fmt: skip
    """
    What the first turn of a session appends: earlier messages, and after them its question.

    *start*: so many of the messages stand already; a write was torn after them.
    """
    chain: list[Entry] = []
    for seq, message in list(enumerate(messages))[start:]:
        told = _message(message["role"], message["content"])
        chain.append(_entry(parent, stamp.mark(seq, seed=True), type="message", message=told))
        parent = chain[-1]["id"]
    return [*chain, question(turn, stamp, parent)]


def asked(
    leased: Leased, stamp: Stamp, branch: Branch, whole: Callable[[], Tree]
) -> list[Entry]:
    """A turn's question; before it its seed, if the session has no message yet."""
    turn, start = leased.turn, None
    if leased.seed is not None and not branch.speaks(turn.turn_id):
        start = whole().seeded(turn.turn_id)
    if leased.seed is None or start is None:
        return [question(turn, stamp, branch.leaf)]
    seed = msgspec.json.decode(leased.seed)
    return seeded(seed, turn, stamp, branch.leaf, start=start)


def reply(
    messages: Sequence[Mapping[str, Any]], stamp: Stamp, parent: str | None,
    ids: Sequence[str] = (),
) -> list[Entry]:  # fmt: skip
    """
    A chain of message entries under *parent*; the last one is the turn's final entry.

    *ids*: those that the first messages have already; see `made.py`.
    """
    chain: list[Entry] = []
    for seq, message in enumerate(messages, start=1):
        final = seq == len(messages)
        mark = stamp.mark(seq, final=final)
        entry = _entry(parent, mark, type="message", message=dict(message))
        chain.append({**entry, "id": ids[seq - 1]} if seq <= len(ids) else entry)
        parent = chain[-1]["id"]
    return chain


def anew(entries: Sequence[Entry]) -> list[Entry]:
    """
    A chain of finished entries with other ids.

    A reply that is salvaged and whose turn runs again: the run goes on after what was made, and
    an id stands in a transcript once.
    """
    chain: list[Entry] = []
    for entry in entries:
        parent = chain[-1]["id"] if chain else entry["parentId"]
        chain.append({**entry, "id": uuid7(), "parentId": parent})
    return chain


def ended(
    stamp: Stamp, parent: str | None, outcome: str, reason: str | None, *, side: bool
) -> Entry:
    """
    What stands in the transcript for a turn that ended without a reply.

    *side*: another turn may be running on the branch; do not move its leaf.
    """
    data = {"turn": stamp.turn, "outcome": outcome, "reason": reason}
    mode = {"appendMode": "side"} if side else {}
    return _entry(parent, stamp.mark(1), type="custom", customType=ENDED_BY, data=data, **mode)


def left_branch(stamp: Stamp, leaf: str | None, target: str | None) -> Entry:
    """
    Makes *target* the leaf again: a turn is rolled back.

    No `leaf` entry can point above the first entry: there a new root is begun instead.
    """
    if target is None:
        return _entry(None, stamp.mark(2), type="custom", customType=ROLLED_BACK, data={})
    return _entry(leaf, stamp.mark(2), type="leaf", targetId=target)


def made(each: MadeEntry, stamp: Stamp, parent: str | None, seq: int) -> Entry:
    """A message on the way to a reply, before there is one: a steered question follows it."""
    entry = _entry(parent, stamp.mark(seq), type="message", message=dict(each.message))
    return {**entry, "id": each.entry_id}


def reparented(entries: Sequence[Entry], parent: str | None) -> list[Entry]:
    """Finished entries, put onto another head: only the first one's parent changes."""
    first, *rest = entries
    return [{**first, "parentId": parent}, *rest]


def salvaged(entries: Sequence[Entry], parent: str | None) -> list[Entry]:
    """A finished reply, kept beside the branch: no leaf moves, and it is no reply any more."""
    return [
        {**entry, "appendMode": "side", "holdfast": _stamp(entry, salvaged=True)}
        for entry in reparented(entries, parent)
    ]


def rebased(entries: Sequence[Entry], parent: str | None) -> list[Entry]:
    """A finished reply, put over a transcript that its model has not seen, and marked so."""
    *made, last = reparented(entries, parent)
    marked = [{**entry, "holdfast": _stamp(entry, rebased=True)} for entry in made]
    return [*marked, {**last, "holdfast": _stamp(last, final=True, rebased=True)}]


def promoted(entry: Entry, parent: str | None) -> Entry:
    """A new entry that says what the salvaged *entry* said.  Not its turn's reply."""
    stamp = {**_stamp(entry, promoted=True), "from": entry["id"]}
    kept = {n: v for n, v in entry.items() if n not in {"id", "appendMode", "holdfast"}}
    return {
        **kept,
        "id": uuid7(),
        "parentId": parent,
        "timestamp": now_iso(),
        "holdfast": stamp,
    }


def _stamp(entry: Entry, **more: bool) -> dict[str, Any]:
    mark = ("turn", "attempt", "token", "seq")
    return {**{name: entry["holdfast"][name] for name in mark}, **more}


def _message(role: str, text: str) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": role,
        "content": [{"type": "text", "text": text}],
        "timestamp": time.time_ns() // 1_000_000,
    }
    if role == "assistant":  # Nobody here asked a model for it; the format wants to know.
        names = ("input", "output", "cacheRead", "cacheWrite", "totalTokens")
        used = dict.fromkeys(names, 0)
        message |= {
            "provider": "holdfast",
            "model": "seed",
            "usage": used,
            "stopReason": "stop",
        }
    return message


def _entry(parent: str | None, stamp: dict[str, Any], /, **fields: Any) -> Entry:
    return {
        "type": fields.pop("type"),
        "id": uuid7(),
        "parentId": parent,
        "timestamp": now_iso(),
        **fields,
        "holdfast": stamp,
    }
