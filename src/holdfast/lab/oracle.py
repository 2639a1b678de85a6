"""
What a transcript itself says about the turns in it.

The race and the first light are judged here, from the file alone: a counter in the code
under test would agree with that code.

    question   a user's message that carries a mark (`holdfast.turn`, or `race`)
    reply      ``holdfast.final``; in a race without a guard, the marked assistant message
    seen       the reply is on the active branch, and leads back to its own question before
               it meets an entry of another turn: the next turn sees it as the answer
    lost       anything else
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from holdfast._core import jsonl
from holdfast._core.stamped import is_final, stamp_of, turn_of
from holdfast._core.tree import Tree, bad_header, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.types import Entry

__all__ = ["Exchange", "Facts", "judge", "read"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question, and what became of it."""

    turn: str
    text: str
    replies: tuple[str, ...]  #: Texts of its final entries, in file order.  One is right.
    asked_at: datetime
    replied_at: tuple[datetime, ...]
    seen: bool
    interleaved: bool  #: Another turn's entries stand between it and its reply.


@dataclass(frozen=True, slots=True)
class Facts:
    exchanges: tuple[Exchange, ...]  #: In the order of the questions in the file.
    problems: tuple[str, ...]  #: Why it is no valid transcript; empty if it is one.

    @property
    def seen(self) -> int:
        return sum(exchange.seen for exchange in self.exchanges)

    @property
    def interleaved(self) -> int:
        return sum(exchange.interleaved for exchange in self.exchanges)


def read(path: str) -> Facts:
    """Read the transcript at *path*.  Raises OSError."""
    with open(path, "rb") as file:
        return judge(file.read())


def judge(data: bytes) -> Facts:
    """The facts in a transcript's bytes."""
    tree = Tree()
    tree.feed(jsonl.lines(data))
    order = {entry_id: at for at, entry_id in enumerate(tree.entries)}
    branch = {entry["id"] for entry in tree.path()}
    return Facts(
        exchanges=tuple(
            _exchange(tree, order, branch, turn, entries)
            for turn, entries in _by_turn(tree).items()
            if _is_question(entries[0])
        ),
        problems=tuple(_problems(data, tree, order)),
    )


def _exchange(
    tree: Tree, order: Mapping[str, int], branch: set[str], turn: str, entries: Sequence[Entry]
) -> Exchange:
    question, replies = entries[0], [entry for entry in entries if _is_reply(entry)]
    between = list(tree.entries.values())
    if replies:
        between = between[order[question["id"]] : order[replies[0]["id"]]]
    return Exchange(
        turn=turn,
        text=text_of(question.get("message")),
        replies=tuple(text_of(entry.get("message")) for entry in replies),
        asked_at=_time(question),
        replied_at=tuple(_time(entry) for entry in replies),
        seen=any(
            entry["id"] in branch and _answers(tree, entry, question) for entry in replies
        ),
        interleaved=bool(replies) and any(_turn_of(e) not in {turn, None} for e in between),
    )


def _answers(tree: Tree, reply: Entry, question: Entry) -> bool:
    """Whether *reply* leads back to *question* before it meets another turn."""
    turn = _turn_of(question)
    for entry in reversed(tree.path(reply["id"])):
        if entry["id"] == question["id"]:
            return True
        if _turn_of(entry) not in {turn, None}:
            return False
    return False


def _by_turn(tree: Tree) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in tree.entries.values():
        if (turn := _turn_of(entry)) is not None:
            found.setdefault(turn, []).append(entry)
    return found


def _turn_of(entry: Entry) -> str | None:
    """Which turn wrote *entry*, by its mark; None: nobody's."""
    turn, race = turn_of(entry), entry.get("race")
    if turn is not None:
        return turn
    if isinstance(race, dict):
        return f"{race.get('lane')} {race.get('n')}"
    return None


def _role(entry: Entry) -> str | None:
    message = entry.get("message")
    return str(message.get("role")) if isinstance(message, dict) else None


def _is_question(entry: Entry) -> bool:
    return _role(entry) == "user"


def _is_reply(entry: Entry) -> bool:
    if stamp_of(entry):
        return is_final(entry)
    return _role(entry) == "assistant"


def _time(entry: Entry) -> datetime:
    return datetime.fromisoformat(str(entry["timestamp"]))


def _problems(data: bytes, tree: Tree, order: Mapping[str, int]) -> list[str]:
    found = [f"at byte {offset}: {why}" for offset, why in tree.skipped]
    if (header := bad_header(tree.header)) is not None:
        found.append(header)
    if not data.endswith(b"\n"):
        found.append("its last line is torn")
    for entry_id, entry in tree.entries.items():
        parent = entry.get("parentId")
        if parent is not None and order.get(parent, len(order)) >= order[entry_id]:
            found.append(f"entry {entry_id}: its parent is not above it")
    return found
