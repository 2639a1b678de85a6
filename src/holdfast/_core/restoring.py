"""
A transcript that is shorter than a commit has vouched for: was it cut, or rewritten?

It was *cut* if the last committed final entry that still fits stands at its recorded offset:
what stood before it is as it was, and what stood behind is missing.  Then the missing
entries are put back from the rows, in the order of commit, skipping ids that are there.
Where no final entry fits any more, the transcript's own header has to be its witness.

Anything else is *rewritten*: somebody has changed what we wrote, and may have meant to.  It
is told, and nothing is put back.  In neither case is a committed turn run again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast._core import jsonl
from holdfast.types import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.types import LineEnd
    from holdfast.types.tending import Commitment

__all__ = ["Plan", "plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    what: str  #: whole | cut | rewritten
    detail: str
    size: int = 0  #: Of what stood.
    missing: tuple[Entry, ...] = ()  #: To be appended, in this order.
    turns: tuple[str, ...] = ()  #: Whose entries they are.


def plan(
    lines: Sequence[LineEnd], size: int, vouched: int, commits: Sequence[Commitment]
) -> Plan:
    """
    Args:
        lines: of the transcript as it stands, in order; the header first.
        size: of it.
        vouched: the greatest end offset that a commit has recorded.
        commits: of this generation, by offset.
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
    return Plan("cut", short, size, tuple(missing.values()), turns)


def _stands(commit: Commitment, ends: dict[str, int], boundaries: set[int]) -> bool:
    """
    Whether its final entry is where its row says.

    What recovery has booked has the size at which it was found: a line ends there, and the
    entry stands before it.
    """
    end, said = ends.get(commit.final_entry), commit.end_offset or 0
    return end is not None and (end == said or (end < said and said in boundaries))
