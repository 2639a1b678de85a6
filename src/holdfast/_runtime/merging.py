"""
Questions of other turns inside a turn's run: collected before it began, steered into it since.

A merge is provisional.  Its user entry stands in the transcript under the host's token, with
its own turn id; whether it is answered is decided by one fact: that entry is an ancestor of
the host's final entry, or it is not.

    …  question(host) ◀── question(merged) ◀── made… ◀── question(steered) ◀── … ◀── final(host)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast._core.stamped import host_of, turn_of
from holdfast._core.tree import text_of
from holdfast._runtime import entries
from holdfast.types import MadeEntry, TurnId

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from holdfast.ports import HeldTranscript
    from holdfast.types import Entry, FencingToken, Turn

__all__ = ["Standing", "answered", "questions_of", "since", "standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands on the branch behind a host's question, of the host and its merges."""

    text: str  #: The host's question and those that follow it at once, joined.
    made: tuple[MadeEntry, ...]  #: The rest, in order; a steered question is a user message.
    taken: Mapping[TurnId, str]  #: Merged turn → its user entry.


def questions_of(
    merges: Iterable[Turn], host: str, token: FencingToken, parent: str | None
) -> list[Entry]:
    """The user entries of *merges*, a chain under *parent*, under the host's token."""
    chain: list[Entry] = []
    for turn in merges:
        stamp = entries.Stamp(turn.turn_id, turn.attempts, token, host)
        chain.append(entries.question(turn, stamp, parent))
        parent = chain[-1]["id"]
    return chain


def since(kept: Sequence[Entry], question: str) -> Sequence[Entry]:
    """What follows the entry *question* on the branch *kept*; nothing if it is not on it."""
    at = next((n for n, entry in enumerate(kept) if entry.get("id") == question), None)
    return () if at is None else kept[at + 1 :]


def standing(
    text: str, behind: Sequence[Entry], host: str, merges: Collection[str]
) -> Standing:
    """Read what a host's earlier runs have left *behind* its question."""
    texts, made, taken = [text], list[MadeEntry](), dict[TurnId, str]()
    for entry in behind:
        turn, message = turn_of(entry), entry.get("message")
        if turn is None or not isinstance(message, dict):
            continue
        entry_id = entry["id"]
        if turn in merges and message.get("role") == "user":
            taken[TurnId(turn)] = entry_id
            if not made:
                texts.append(text_of(message))
                continue
        elif turn != host:
            continue
        made.append(MadeEntry(entry_id, message))
    return Standing("\n\n".join(texts), tuple(made), taken)


def answered(
    held: HeldTranscript, hosted: Iterable[Turn], final_parent: str | None, host: str
) -> tuple[TurnId, ...]:
    """
    Those of *hosted* whose question is an ancestor of what is appended under *final_parent*.

    Under the write lock.  Costs nothing for a turn without merges.
    """
    names = {turn.turn_id for turn in hosted}
    if not names:
        return ()
    branch = held.branch()
    kept = branch.kept if branch.leaf == final_parent else held.load().path(final_parent)
    found = _asked_in(kept, names, host)
    if found != names and not branch.whole:  # A compaction may have hidden some.
        found = _asked_in(held.load().path(final_parent), names, host)
    return tuple(sorted(found))


def _asked_in(path: Iterable[Entry], names: Collection[str], host: str) -> set[TurnId]:
    found = set[TurnId]()
    for entry in path:
        turn = turn_of(entry)
        if turn is not None and turn in names and host_of(entry) == host:
            found.add(TurnId(turn))
    return found
