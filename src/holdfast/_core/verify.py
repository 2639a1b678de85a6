"""
What is wrong with a transcript, line by line.  Bytes in, findings out.

    unparsable              a whole line that is not a JSON object; a torn line in the middle
    torn_tail               bytes after the last newline: an entry that nobody acknowledged
    no_header               the first line is not a session header
    bad_header              it is one, but has no id
    bad_version             it is one, of a format version that we do not know
    bad_entry_type          an entry without a type
    no_id · duplicate_id    an entry that cannot be named, or not alone
    unknown_parent          `parentId` names no entry of the file before this one
    two_finals              one turn has two replies
    final_without_question  a reply that was made blind; see below

Unknown types and fields are not problems: the format keeps them.  A parent must stand before
its child, so a cycle cannot be written down.

A reply is *blind* if, on the way up from it, something that another turn said comes before its
own question, although that entry's writer did not come before the reply's.  The fencing token
says who came first: whoever holds token n has loaded all that smaller tokens wrote, so a turn
that went back to its place and was overtaken there has seen what overtook it.  An equal or a
greater token, or none, means that two turns ran at once.  Side entries are not on the way,
and a question that was merged into the reply's turn is its own.  A reply marked `rebased` was
put over what its model had not seen, knowingly.
Nobody can tell what stood above an entry whose parent is missing, or was put in by a repair.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast._core import jsonl
from holdfast._core.stamped import host_of, is_final, is_question, stamp_of, turn_of
from holdfast._core.tree import VERSION, as_message

if TYPE_CHECKING:
    from holdfast.types import Entry

__all__ = ["REPAIRED_BY", "Problem", "Report", "Verifier", "verify"]

#: The `customType` of the entry that every repair leaves behind; see `repair.py`.
REPAIRED_BY: Final = "holdfast:repaired"

NAME_CHARS_MAX: Final = 80  #: Of an id, as told in a finding.


@dataclass(frozen=True, slots=True)
class Problem:
    line: int  #: From 1, as editors count.
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    entries: int  #: Whole lines that are JSON objects, the header not counted.
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(data: bytes) -> Report:
    """Everything that is wrong with the transcript *data*, in the order of its lines."""
    verifier = Verifier()
    verifier.feed(data)
    return verifier.finish()


class Verifier:
    """
    Verifies a transcript piece by piece, so that nobody need have all of it in memory.

    Cost:
        Some 300 bytes of memory an entry, whatever its length, and the longest line.
    """

    def __init__(self) -> None:
        self._checking = _Checking()
        self._pieces: list[bytes] = []  #: Of a line whose newline has not come yet.
        self._number = 1  #: Of that line.

    def feed(self, piece: bytes) -> None:
        """The next bytes of the file, cut anywhere."""
        end = piece.rfind(b"\n") + 1
        if end:
            whole = b"".join([*self._pieces, piece[:end]]) if self._pieces else piece[:end]
            self._pieces.clear()
            self._lines(whole)
        if end < len(piece):
            self._pieces.append(piece[end:])

    def finish(self) -> Report:
        """Once, after the last piece."""
        checking, tail = self._checking, sum(map(len, self._pieces))
        if not checking.headed:
            checking.tell(1, "no_header", "there is no line in it")
        if tail:
            detail = f"{tail} bytes after the last newline"
            checking.tell(self._number, "torn_tail", detail)
        return Report(checking.entries, tuple(checking.problems))

    def knows(self, entry_id: str) -> bool:
        """Whether an entry of this id has been seen."""
        return entry_id in self._checking.seen

    @property
    def salvaged(self) -> list[tuple[int, str]]:
        """Line and turn of each reply that was kept beside the branch."""
        return self._checking.salvaged

    @property
    def repaired(self) -> tuple[int, int, object] | None:
        """Line, generation and session of the newest repair that says them; None: none does."""
        return self._checking.repaired

    def _lines(self, data: bytes) -> None:
        checking, number, at = self._checking, self._number, 0
        for line in jsonl.lines(data):
            number += data.count(b"\n", at, line.offset)
            at = line.offset
            if line.entry is None:
                checking.unparsable(number)
            elif not checking.headed:
                checking.header(number, line.entry)
            else:
                checking.entry(number, line.entry)
        self._number = number + data.count(b"\n", at)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What later lines may need to know of an entry."""

    line: int
    parent: str | None
    broken: bool  #: Its parent is not there: nobody can tell what stands above it.
    turn: str | None  #: None: not one of ours.
    token: int | None
    asks: bool  #: It is its turn's question.
    host: str | None = None  #: The turn into which that question was merged.
    speaks: bool = True  #: A model is told of it.


@dataclass(slots=True)
class _Checking:
    headed: bool = False
    entries: int = 0
    problems: list[Problem] = field(default_factory=list)
    seen: dict[str, _Seen] = field(default_factory=dict)
    finals: dict[str, int] = field(default_factory=dict)  #: Turn id → line of its reply.
    salvaged: list[tuple[int, str]] = field(default_factory=list)
    repaired: tuple[int, int, object] | None = None

    def tell(self, line: int, code: str, detail: str) -> None:
        self.problems.append(Problem(line, code, detail))

    def unparsable(self, line: int) -> None:
        if self.headed:
            self.tell(line, "unparsable", "not a JSON object")
        else:
            self.headed = True
            self.tell(line, "no_header", "the first line is not a JSON object")

    def header(self, line: int, entry: Entry) -> None:
        self.headed = True
        if entry.get("type") != "session":
            self.tell(line, "no_header", "the first line is not a session header")
            self.entry(line, entry)
            return
        if not isinstance(entry.get("id"), str):
            self.tell(line, "bad_header", "the session header has no id")
        version = entry.get("version")
        if version != VERSION or isinstance(version, bool):
            detail = f"format version {_short(version)}; only {VERSION} is known"
            self.tell(line, "bad_version", detail)

    def entry(self, line: int, entry: Entry) -> None:
        self.entries += 1
        if not isinstance(entry.get("type"), str):
            self.tell(line, "bad_entry_type", "the entry has no type")
        parent, broken = self._parent(line, entry)
        entry_id = entry.get("id")
        if not isinstance(entry_id, str):
            self.tell(line, "no_id", "the entry has no id")
            entry_id = None
        elif entry_id in self.seen:
            first = self.seen[entry_id].line
            detail = f"id {_short(entry_id)} stands on line {first} already"
            self.tell(line, "duplicate_id", detail)
            entry_id = None
        here = _see(line, entry, parent, broken=broken)
        if entry_id is not None:
            self.seen[entry_id] = here
        if here.turn is not None:
            stamp = stamp_of(entry)
            if is_final(entry):
                self._final(here, here.turn, rebased=stamp.get("rebased") is True)
            if stamp.get("salvaged") is True:
                self.salvaged.append((line, here.turn))
        self._note_repair(line, entry)

    def _note_repair(self, line: int, entry: Entry) -> None:
        data = entry.get("data")
        if entry.get("customType") == REPAIRED_BY and isinstance(data, dict):
            generation = data.get("generation")
            if isinstance(generation, int):
                self.repaired = (line, generation, data.get("session"))

    def _parent(self, line: int, entry: Entry) -> tuple[str | None, bool]:
        """The entry's parent, and whether that is missing."""
        parent = entry.get("parentId")
        if parent is None or (isinstance(parent, str) and parent in self.seen):
            return (None, True) if _was_moved(entry) else (parent, False)
        detail = f"parentId {_short(parent)} names no entry before this one"
        self.tell(line, "unknown_parent", detail)
        return None, True

    def _final(self, final: _Seen, turn: str, *, rebased: bool) -> None:
        first = self.finals.setdefault(turn, final.line)
        if first != final.line:
            detail = f"turn {_short(turn)} has its reply on line {first} already"
            self.tell(final.line, "two_finals", detail)
        if rebased:  # Blind, and it says so itself.
            return
        here = final
        while here.parent is not None:
            here = self.seen[here.parent]
            if here.turn == turn:
                if here.asks:
                    return
            elif here.speaks and _is_anothers(here, turn) and not _came_before(here, final):
                detail = (
                    f"the reply of turn {_short(turn)} follows line {here.line}, of turn"
                    f" {_short(here.turn)}, before its own question"
                )
                self.tell(final.line, "final_without_question", detail)
                return
        if here.broken:  # Told where it happened.
            return
        detail = f"the reply of turn {_short(turn)} has no question above it"
        self.tell(final.line, "final_without_question", detail)


def _see(line: int, entry: Entry, parent: str | None, *, broken: bool) -> _Seen:
    turn, token = turn_of(entry), stamp_of(entry).get("token")
    token = token if isinstance(token, int) else None
    asks = turn is not None and is_question(entry)
    speaks = as_message(entry) is not None
    return _Seen(line, parent, broken, turn, token, asks, host_of(entry), speaks)


def _is_anothers(entry: _Seen, turn: str) -> bool:
    return entry.turn is not None and entry.host != turn


def _was_moved(entry: Entry) -> bool:
    """Whether a repair gave it its parent: what once stood above it is gone."""
    repaired = stamp_of(entry).get("repaired")
    return isinstance(repaired, dict) and repaired.get("parentId") is not None


def _came_before(other: _Seen, final: _Seen) -> bool:
    return other.token is not None and final.token is not None and other.token < final.token


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= NAME_CHARS_MAX else text[:NAME_CHARS_MAX] + "…"
