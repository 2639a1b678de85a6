"""
A transcript that is shorter than a commit has vouched for: was it cut, or rewritten?

It was *cut* if the last committed final entry that still fits stands at its recorded offset:
what stood before it is as it was, and what stood behind is missing.  Then the missing
entries are put back from the rows, in the order of commit, skipping ids that are there.
Where no final entry fits any more, the transcript's own header has to be its witness.

What stood between them and is in no row (of turns without a reply, of other programs) is
gone.  Where an entry was made under such a one, a *gap* takes its place, by its id, under
what stands: else the branch would break off there, and no model would see what is above.

Anything else is *rewritten*: somebody has changed what we wrote, and may have meant to.  It
is told, and nothing is put back.  In neither case is a committed turn run again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast._core import jsonl
from holdfast._core.tree import moves_leaf
from holdfast.types import Entry

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from holdfast.types import LineEnd
    from holdfast.types.tending import Commitment

__all__ = ["GAP", "Plan", "plan"]

#: `customType` of what stands where an entry was that is in no row.
GAP: Final = "holdfast:gap"


@dataclass(frozen=True, slots=True)
class Plan:
    what: str  #: whole | cut | rewritten
    detail: str
    size: int = 0  #: Of what stood.
    missing: tuple[Entry, ...] = ()  #: To be appended, in this order.
    turns: tuple[str, ...] = ()  #: Whose entries they are.
    gaps: int = 0  #: So many of them stand for what is in no row.


def plan(
    lines: Sequence[LineEnd],
    size: int,
    vouched: int,
    commits: Sequence[Commitment],
    leaf: str | None,
) -> Plan:
    """
    Args:
        lines: of the transcript as it stands, in order; the header first.
        size: of it.
        vouched: the greatest end offset that a commit has recorded.
        commits: of this generation, by offset.
        leaf: of the transcript as it stands.
    """
    if size >= vouched:
        return Plan("whole", "nothing is missing")
    short = f"{vouched - size} bytes shorter than what was committed"
    if not lines or lines[0].kind != "session":
        return Plan("rewritten", f"{short}, and without its header")
    ends = {line.entry_id: line.end for line in lines if line.entry_id is not None}
    fitting = [each for each in commits if (each.end_offset or 0) <= size]
    if fitting and not _stands(fitting[-1], ends, {line.end for line in lines}):
        turn = fitting[-1].turn_id
        return Plan("rewritten", f"{short}, and the reply of {turn} is not where it stood")
    lost = [each for each in commits[len(fitting) :] if each.final_entry not in ends]
    dropped = [each.turn_id for each in lost if each.entries is None]
    if dropped or not commits:
        whose = ", ".join(dropped) or "anybody"
        return Plan("rewritten", f"{short}; the rows have no copy of what {whose} wrote")
    missing = dict[str, Entry]()
    for each in lost:
        for line in jsonl.lines(each.entries or b""):
            entry_id = None if line.entry is None else line.entry.get("id")
            if line.entry is not None and isinstance(entry_id, str) and entry_id not in ends:
                missing[entry_id] = line.entry
    turns = tuple(each.turn_id for each in lost)
    bridged = _bridged(missing.values(), ends, leaf)
    return Plan("cut", short, size, bridged, turns, len(bridged) - len(missing))


def _bridged(
    missing: Iterable[Entry], stand: Container[object], leaf: str | None
) -> tuple[Entry, ...]:
    """*missing*, with a gap before each entry whose parent is nowhere."""
    found, put = list[Entry](), set[object]()
    for entry in missing:
        parent = entry.get("parentId")
        if isinstance(parent, str) and parent not in stand and parent not in put:
            gap: Entry = {
                "type": "custom",
                "id": parent,
                "parentId": leaf,
                "timestamp": entry.get("timestamp"),
                "customType": GAP,
                "data": {"detail": "what stood here was cut off, and no row has a copy of it"},
            }
            found.append(gap)
            put.add(parent)
            leaf = parent
        found.append(entry)
        put.add(entry["id"])
        if moves_leaf(entry):
            leaf = entry["id"]
    return tuple(found)


def _stands(commit: Commitment, ends: dict[str, int], boundaries: set[int]) -> bool:
    """
    Whether its final entry is where its row says.

    What recovery has booked has the size at which it was found: a line ends there, and the
    entry stands before it.
    """
    end, said = ends.get(commit.final_entry), commit.end_offset or 0
    return end is not None and (end == said or (end < said and said in boundaries))
