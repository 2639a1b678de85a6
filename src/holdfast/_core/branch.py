"""
The active branch of a transcript, as far as a model gets to see it: what a turn needs.

A model sees nothing above the first entry that the latest compaction has kept.  So what a
turn needs of a transcript stands near its end, and is found by reading it backwards, however
long the rest is:

    …  first kept ◀── … ◀── compaction ◀── … ◀── leaf
       └──────────── `Branch.kept`, oldest first ────┘

Every answer is the one that the whole `Tree` gives.  Where the lines that were read cannot
tell (a `leaf` entry that points further up, a parent that was not read yet), more is read;
at worst everything.  Relies on one thing: no id stands both in the lines that were read and
further up.  There the tree keeps the earlier entry, and nobody can know without reading all
of it; `verify` finds such a pair, `repair` mends it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast._core import fence
from holdfast._core.stamped import is_seed, turn_of
from holdfast._core.tree import as_message, first_kept, messages_of, moves_leaf

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from holdfast._core.jsonl import Line
    from holdfast._core.tree import Tree
    from holdfast.types import Entry

__all__ = ["Backwards", "Branch"]


@dataclass(slots=True)
class Branch:
    """What is kept of the active branch.  Grows with the file: see `feed`."""

    leaf: str | None
    kept: list[Entry]  #: From the first entry that a model may see, to the leaf.
    end: int  #: Offset behind the last line that was fed.
    size: int  #: Bytes that were read for it, roughly: bounds what it remembers.
    whole: bool  #: `kept` begins where the branch does.
    missing: str | None = None  #: The parent that the branch breaks off at.
    _seen: set[str] = field(default_factory=set)  #: Ids read so far, on the branch or not.
    _at: dict[str, int] = field(default_factory=dict)  #: Where in `kept`, by id.
    _compacted: int = -1  #: Where in `kept` the latest compaction is; -1: there is none.

    @classmethod
    def of(cls, tree: Tree, end: int) -> Branch:
        """The branch of a tree that was fed up to *end*."""
        path = tree.path()
        top = path[0].get("parentId") if path else None
        missing = top if isinstance(top, str) and top not in tree.entries else None
        size = end * len(path) // max(len(tree.entries), 1)
        found = cls(tree.leaf, path, end, size, whole=True, missing=missing)
        found._seen = set(tree.entries)
        found._trim()
        return found

    def history(self, *, without: Collection[str] = ()) -> tuple[Mapping[str, Any], ...]:
        """As `Tree.history`."""
        return messages_of(self.kept, without)

    def speaks(self, turn: str) -> bool:
        """Whether it has a message that is none of *turn*'s seed: then no seed may come."""
        return any(
            as_message(entry) is not None and not (is_seed(entry) and turn_of(entry) == turn)
            for entry in self.kept
        )

    def feed(self, lines: Iterable[Line]) -> bool:
        """
        More lines of the file, in order; those that were fed before are passed over.

        Returns:
            False: they point to what is not kept.  This branch is of no use any more.
        """
        for line in lines:
            if line.offset < self.end:
                continue
            self.end = line.offset + len(line.raw) + 1
            self.size += len(line.raw)
            entry = line.entry
            if entry is None or not isinstance(entry_id := entry.get("id"), str):
                continue
            if entry_id in self._seen:
                continue
            self._seen.add(entry_id)
            if entry_id == self.missing or not self._add(entry_id, entry):
                return False
        return True

    def _add(self, entry_id: str, entry: Entry) -> bool:
        parent = entry.get("parentId")
        if entry.get("type") == "leaf":
            target = entry.get("targetId")
            return not isinstance(target, str) or self._cut(target)
        if entry.get("appendMode") == "side":
            return True
        if not moves_leaf(entry) and parent != self.leaf:
            return True
        if not isinstance(parent, str):
            self._restart()
        elif parent != self.leaf and not self._cut(parent):
            return False
        self._at[entry_id] = len(self.kept)
        self.kept.append(entry)
        self.leaf = entry_id
        return entry.get("type") != "compaction" or self._compact(entry)

    def _restart(self) -> None:
        """What comes next is a root."""
        self.kept, self._at, self._compacted = [], {}, -1
        self.whole, self.missing = True, None

    def _cut(self, leaf: str) -> bool:
        """Go back to *leaf*, if nothing above the latest compaction is needed for it."""
        at = self._at.get(leaf)
        if at is None or at < self._compacted:
            return False
        for entry in self.kept[at + 1 :]:
            del self._at[entry["id"]]
        del self.kept[at + 1 :]
        self.leaf = leaf
        return True

    def _compact(self, entry: Entry) -> bool:
        first = entry.get("firstKeptEntryId")
        if isinstance(first, str) and first not in self._at and not self.whole:
            return False
        self._trim()
        return True

    def _trim(self) -> None:
        """Let go of what no model gets to see."""
        at, start = first_kept(self.kept)
        if start:
            self.whole = False
            self.kept = self.kept[start:]
        self._compacted = -1 if at is None else at - start
        self._at = {entry["id"]: n for n, entry in enumerate(self.kept)}


class Backwards:
    """
    Finds the branch in the lines of a transcript, taken from the last one upwards.

    Cost:
        What it takes: as many lines as reach up to the first kept entry.
    """

    def __init__(self, end: int) -> None:
        """*end*: offset behind the last whole line."""
        self._end = self._start = end
        self._seen: dict[str, Entry] = {}
        self._after: list[Line] = []  #: Newest first; until the leaf is known.
        self._tried = 0  #: So many of them did not tell the leaf.
        self._leaf: str | None = None
        self._path: list[Entry] = []  #: Newest first.
        self._on: set[str] = set()
        self._want: str | None = None  #: The next one on the way up.
        self._first: str | None = None  #: What the latest compaction says it has kept first.
        self._doubtful = False

    def take(self, line: Line) -> bool:
        """Returns: no more is needed; `found` tells."""
        self._start, entry = line.offset, line.entry
        if entry is None or not isinstance(entry_id := entry.get("id"), str):
            return False
        if entry_id in self._seen:
            self._doubtful = True  # The earlier one counts: all that was found is in doubt.
            return True
        self._seen[entry_id] = entry
        if self._leaf is None and not self._find_leaf(line, entry):
            return False
        return self._climb()

    def found(self, *, top: bool) -> Branch | None:
        """
        The branch.

        Args:
            top: every line up to the header was taken.

        Returns:
            None: only the whole tree can tell.
        """
        if self._doubtful or self._leaf is None:
            return None
        ended = self._want is None or self._want in self._on
        branch = Branch(
            self._leaf, self._path[::-1], self._end, self._end - self._start,
            whole=ended or top,
            missing=self._want if top and not ended else None,
            _seen=set(self._seen),
        )  # fmt: skip
        branch._trim()  # noqa: SLF001
        return branch

    def _find_leaf(self, line: Line, entry: Entry) -> bool:
        """From the last entry that becomes the leaf whatever stands before it."""
        self._after.append(line)
        if not moves_leaf(entry) or len(self._after) < 2 * self._tried:
            return False
        known, leaf = fence.branch_after(entry["id"], reversed(self._after[:-1]))
        if not known:  # A `leaf` entry points further up: tried again after as many more.
            self._tried = len(self._after)
            return False
        self._leaf = self._want = leaf
        self._after.clear()
        return True

    def _climb(self) -> bool:
        """Go up as far as the entries are known.  Returns: no need to go further."""
        while (want := self._want) is not None and want not in self._on:
            entry = self._seen.get(want)
            if entry is None:
                return False
            self._path.append(entry)
            self._on.add(want)
            parent = entry.get("parentId")
            self._want = parent if isinstance(parent, str) else None
            if self._first is None and entry.get("type") == "compaction":
                first = entry.get("firstKeptEntryId")
                if not isinstance(first, str) or first == want:
                    return True
                self._first = first
            elif want == self._first:
                return True
        return True
