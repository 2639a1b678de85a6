"""
A transcript as a tree: which entries are on the active branch, and what a model should see.

Every entry but the header has an `id` and a `parentId`.  The active branch is the path from
the root to the *leaf*.  An appended entry becomes the leaf, with three exceptions:

    side entries (`appendMode: "side"`)   stand beside the branch
    `leaf` entries                        say themselves where the leaf is
    anything that is not conversation     (labels, session info, unknown types) moves the leaf
                                          only if it extends the branch: a rename must not
                                          cut a conversation short (pi #9930)

Unknown fields and types are kept because nothing here is ever written back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast._core import turns
from holdfast._core.stamped import is_final, is_question, is_seed, turn_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from holdfast._core.jsonl import Line
    from holdfast.types import Entry

__all__ = [
    "VERSION",
    "End",
    "Tree",
    "as_message",
    "bad_header",
    "first_kept",
    "messages_of",
    "moves_leaf",
    "text_of",
]

VERSION: Final = 3

_MOVES_LEAF: Final = frozenset(
    {
        "message",
        "thinking_level_change",
        "model_change",
        "compaction",
        "branch_summary",
        "custom",
        "custom_message",
    }
)


@dataclass(frozen=True, slots=True)
class End:
    """How a turn ended, as the transcript tells it."""

    outcome: str
    reason: str | None
    entry_id: str
    text: str


def bad_header(entry: Mapping[str, Any] | None) -> str | None:
    """What is wrong with a first line, in words; None if it is a header we can append to."""
    if entry is None:
        return "the first line is not a JSON object"
    if entry.get("type") != "session":
        return "the first line is not a session header"
    if not isinstance(entry.get("id"), str):
        return "the session header has no id"
    version = entry.get("version")
    if version != VERSION:
        return f"the session header says format version {version}; only {VERSION} is known"
    return None


@dataclass(slots=True)
class Tree:
    """What is known of one transcript.  Fed with its lines, in order; never fed twice."""

    header: Entry | None = None
    leaf: str | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    ends: dict[str, End] = field(default_factory=dict)  #: By turn id.
    questions: dict[str, str] = field(default_factory=dict)  #: Turn id → its user entry.
    #: Lines that say nothing to us: (offset, why).  `verify` tells them in words.
    skipped: list[tuple[int, str]] = field(default_factory=list)

    def feed(self, lines: Iterable[Line]) -> None:
        for line in lines:
            if line.entry is None:
                self.skipped.append((line.offset, "unparsable"))
            elif self.header is None:
                self.header = line.entry
            else:
                self._add(line.offset, line.entry)

    def _add(self, offset: int, entry: Entry) -> None:
        entry_id = entry.get("id")
        if not isinstance(entry_id, str):
            self.skipped.append((offset, "no_id"))
            return
        if entry_id in self.entries:
            self.skipped.append((offset, "duplicate_id"))
            return
        self.entries[entry_id] = entry
        self._move_leaf(entry_id, entry)
        self._note_turn(entry_id, entry)

    def _move_leaf(self, entry_id: str, entry: Entry) -> None:
        if entry.get("type") == "leaf":
            target = entry.get("targetId")
            if isinstance(target, str) and target in self.entries:
                self.leaf = target
        elif entry.get("appendMode") == "side":
            return
        elif moves_leaf(entry) or entry.get("parentId") == self.leaf:
            self.leaf = entry_id

    def _note_turn(self, entry_id: str, entry: Entry) -> None:
        turn = turn_of(entry)
        if turn is None:
            return
        message = entry.get("message")
        if is_final(entry):
            self.ends.setdefault(turn, End("replied", None, entry_id, text_of(message)))
        elif entry.get("customType") == turns.ENDED_BY:
            data = entry.get("data")
            data = data if isinstance(data, dict) else {}
            outcome = str(data.get("outcome", "failed"))
            reason = data.get("reason")
            self.ends.setdefault(turn, End(outcome, reason, entry_id, ""))
        elif is_question(entry):
            self.questions.setdefault(turn, entry_id)

    def path(self, to: str | None = None) -> list[Entry]:
        """Entries from the root to *to* (default: the leaf).  A broken chain starts late."""
        found: list[Entry] = []
        seen: set[str] = set()
        here = self.leaf if to is None else to
        while here is not None and here not in seen:
            entry = self.entries.get(here)
            if entry is None:
                break
            seen.add(here)
            found.append(entry)
            parent = entry.get("parentId")
            here = parent if isinstance(parent, str) else None
        found.reverse()
        return found

    def history(self, *, without: Collection[str] = ()) -> tuple[Mapping[str, Any], ...]:
        """
        The messages that a model should see, oldest first.

        The latest compaction on the branch replaces everything before the first entry that
        it kept.  *without* leaves out the entries of these turns, but not the earlier
        messages that they have seeded the session with.
        """
        return messages_of(self.path(), without)

    def seeded(self, turn: str) -> int | None:
        """
        How many entries of its seed *turn* has left here; None: too late for a seed, because
        there is a message that is none of them.

        Less than the whole seed without a question after it is what a torn write leaves.
        """
        count = 0
        for entry in self.entries.values():
            if is_seed(entry) and turn_of(entry) == turn:
                count += 1
            elif as_message(entry) is not None:
                return None
        return count


def first_kept(path: list[Entry]) -> tuple[int | None, int]:
    """
    Where the latest compaction of *path* stands (None: there is none), and where what a
    model gets to see begins: the first entry that it kept, or else itself.
    """
    at = next(
        (i for i in reversed(range(len(path))) if path[i].get("type") == "compaction"), None
    )
    if at is None:
        return None, 0
    first = path[at].get("firstKeptEntryId")
    return at, next((i for i in range(at) if path[i].get("id") == first), at)


def messages_of(path: list[Entry], without: Collection[str]) -> tuple[Mapping[str, Any], ...]:
    """What a model sees of *path*, which goes up at least to `first_kept`: see `history`."""
    at, start = first_kept(path)
    if at is not None:
        path = [path[at], *path[start:at], *path[at + 1 :]]
    messages: list[Mapping[str, Any]] = []
    for entry in path:
        if turn_of(entry) in without and not is_seed(entry):
            continue
        message = as_message(entry)
        if message is not None:
            messages.append(message)
    return tuple(messages)


def moves_leaf(entry: Mapping[str, Any]) -> bool:
    """Whether *entry* becomes the leaf when it is appended, whatever its parent is."""
    kind = entry.get("type")
    known = isinstance(kind, str) and kind in _MOVES_LEAF
    return known and entry.get("appendMode") != "side"


def text_of(message: object) -> str:
    """The text of a message object, its text parts joined."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (p.get("text") for p in content if isinstance(p, dict) and p.get("type") == "text")
    return "".join(text for text in parts if isinstance(text, str))


def as_message(entry: Entry) -> Mapping[str, Any] | None:
    """What a model sees of one entry; None: nothing."""
    match entry.get("type"):
        case "message":
            message = entry.get("message")
            return message if isinstance(message, dict) else None
        case "compaction" | "branch_summary":
            return {"role": "compactionSummary", "summary": str(entry.get("summary", ""))}
        case "custom_message":
            return {"role": "user", "content": entry.get("content", "")}
    return None
