"""
Making a damaged transcript one that may be appended to again.  Lines in, lines out.

Nothing that parses is ever dropped, and a line that has nothing wrong keeps every byte.  What
each finding of `verify.py` gets:

| finding | what repair does |
|---|---|
| unparsable | the line is moved out: it stands in the copy of the file, under its number |
| torn_tail | gets its newline if it parses, as the next append would; else it is moved out |
| no_header | a recovered header goes before; a header that stands first below rubbish counts |
| bad_header | the header gets the session's id |
| bad_version | becomes 3; below 3 it is migrated (below); above 3 the file is left alone |
| bad_entry_type | `message` if it holds one, else `custom`, `holdfast:untyped` |
| no_id | gets a new id, and the head as its parent if it names none |
| duplicate_id | the later one gets a new id, beside the branch: readers did not see it before |
| unknown_parent | the head of what stands before it |
| two_finals | the later one is no longer final |
| final_without_question | nothing: that turns ran blind has happened, and `verify` says so |

What an entry had in a field that was changed stays in it, so that nothing is lost even there:
`"holdfast": {…, "repaired": {"<field>": <what it had, or null>}}`; all other fields keep their
bytes.  A last entry, `custom` of `holdfast:repaired`, says what was done, names the copy and
holds the head, so that readers which take the last line for the head find the right one.

Migration: a version 1 transcript is linear: its entries get ids and parents, and a
compaction's `firstKeptEntryIndex`, which counts the header as 0, becomes `firstKeptEntryId`.
In version 2 the role `hookMessage` becomes `custom`.  None of that is stamped.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast._core import jsonl
from holdfast._core.stamped import is_final, turn_of
from holdfast._core.tree import VERSION, Tree
from holdfast._core.verify import REPAIRED_BY

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.types import Entry

__all__ = ["NewerFormatError", "Repair", "with_fields"]

_encode: Final = msgspec.json.encode
_raw_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
#: What `Tree` needs in order to know where the head is.
_ABOUT: Final = ("type", "id", "parentId", "targetId", "appendMode")


class NewerFormatError(Exception):
    """The header names a format version that we do not know: this is no damage."""

    def __init__(self, version: int) -> None:
        super().__init__(f"format version {version}; only {VERSION} is known")


def with_fields(raw: bytes, fields: dict[str, Any]) -> bytes:
    """
    The JSON object *raw* with *fields* set; all others keep their bytes and their places.

    A field of `msgspec.UNSET` is taken out.
    """
    found: dict[str, Any] = dict(_raw_fields.decode(raw))
    found.update(fields)
    kept = {name: value for name, value in found.items() if value is not msgspec.UNSET}
    return bytes(_encode(kept))


class Repair:
    """
    One pass over one transcript.

    Feed it `line` by line, then `tail`, `settle`, `restore`, and if it `changed` anything
    `end`; what they return, one after the other, is the repaired file.

    Args:
        session_id: for a header that has none.
        now: RFC 3339, for what is added.
        new_id: makes ids that no other entry has.
    """

    def __init__(self, *, session_id: str, now: str, new_id: Callable[[], str]) -> None:
        self._session_id, self._now, self._new_id = session_id, now, new_id
        self._tree = Tree(header={})  # Fed with entries alone.
        self._finals: set[str] = set()
        self._version = VERSION
        self._order: list[str | None] = []  #: Ids by place; for version 1 alone.
        self._headed = False
        self.number = 0  #: Of the last line fed, from 1.
        self.counts: Counter[str] = Counter()  #: By finding; and `migrated`, `restored`.
        self.moved_out: list[int] = []  #: Lines, from 1, as they stand in the copy.
        self.parsed = 0  #: Lines that went in and are JSON objects.
        self.had_header = False  #: One of them was the header.

    @property
    def changed(self) -> bool:
        return bool(self.counts)

    def line(self, raw: bytes) -> bytes:
        """What stands for one whole line, given without its newline.  Raises NewerFormat."""
        self.number += 1
        if not raw.strip():
            return raw + b"\n" if self._headed else b""
        found = next(jsonl.lines(raw + b"\n"))
        if found.entry is None:
            self.counts["unparsable"] += 1
            self.moved_out.append(self.number)
            return b""
        self.parsed += 1
        if self._headed:
            return self._entry(raw, found.entry)
        self._headed = True
        if found.entry.get("type") != "session":
            return self._recovered() + self._entry(raw, found.entry)
        if self.moved_out:
            self.counts["no_header"] += 1
        self.had_header = True
        return self._header(raw, found.entry)

    def tail(self, raw: bytes) -> bytes:
        """What stands for the bytes after the last newline."""
        if not raw:
            return b""
        self.counts["torn_tail"] += 1
        parses = raw.strip() and next(jsonl.lines(raw + b"\n")).entry is not None
        if parses:
            return self.line(raw)
        self.number += 1
        self.moved_out.append(self.number)
        return b""

    def settle(self) -> bytes:
        """A header, if none of the lines was one or needed one.  After `tail`."""
        if self._headed:
            return b""
        self._headed = True
        return self._recovered()

    def restore(self, lines: bytes) -> bytes:
        """Those of *lines* whose ids are not there: what a commit vouched for comes back."""
        found = b""
        for line in jsonl.lines(lines):
            if line.entry is None or line.entry.get("id") in self._tree.entries:
                continue
            found += self.settle()
            self.counts["restored"] += 1
            found += self._entry(line.raw, line.entry)
        return found

    def end(self, *, copy: str, generation: int | None) -> bytes:
        """
        The last line.

        Args:
            copy: the name of the file that keeps everything as it was.
            generation: what the session's becomes; None: it belongs to no store.
        """
        data: dict[str, Any] = {"copy": copy, "counts": dict(self.counts)}
        if generation is not None:  # With whose: the transcript may be imported elsewhere.
            data |= {"session": self._session_id, "generation": generation}
        entry = {
            "type": "custom",
            "id": self._new_id(),
            "parentId": self._tree.leaf,
            "timestamp": self._now,
            "customType": REPAIRED_BY,
            "data": data,
        }
        return jsonl.encode([entry])

    # ------------------------------------------------------------------------- header

    def _recovered(self) -> bytes:
        self.counts["no_header"] += 1
        return jsonl.encode(
            [
                {
                    "type": "session",
                    "version": VERSION,
                    "id": self._session_id,
                    "timestamp": self._now,
                    "cwd": "",
                    "holdfast": {"recovered": True},
                }
            ]
        )

    def _header(self, raw: bytes, header: Entry) -> bytes:
        fixed: dict[str, Any] = {}
        had: dict[str, Any] = {}
        if not isinstance(header.get("id"), str):
            self.counts["bad_header"] += 1
            had["id"], fixed["id"] = header.get("id"), self._session_id
        version = header.get("version")
        if version != VERSION or isinstance(version, bool):
            if isinstance(version, int) and version > VERSION:
                raise NewerFormatError(version)
            older = version is None or (version in {1, 2} and not isinstance(version, bool))
            self._version = (version or 1) if older else VERSION
            self.counts["migrated" if older else "bad_version"] += 1
            fixed["version"] = VERSION
            if not older:
                had["version"] = version
        self._order.append(None)
        return self._written(raw, header, fixed, had)

    # ------------------------------------------------------------------------ entries

    def _entry(self, raw: bytes, entry: Entry) -> bytes:
        fixed: dict[str, Any] = {}
        had: dict[str, Any] = {}
        self._fix_type(entry, fixed, had)
        self._fix_parent(entry, fixed, had)
        self._fix_id(entry, fixed, had)
        stamp = self._fix_final(entry, had)
        if self._version < VERSION:
            self._migrate(entry, fixed)
        told = {**entry, **fixed}
        about = {name: told[name] for name in _ABOUT if told.get(name) is not None}
        self._tree.feed([jsonl.Line(0, b"", about)])
        if self._version < 2:
            self._order.append(about["id"])
        return self._written(raw, entry, fixed, had, stamp)

    def _fix_type(self, entry: Entry, fixed: dict[str, Any], had: dict[str, Any]) -> None:
        if isinstance(entry.get("type"), str):
            return
        self.counts["bad_entry_type"] += 1
        message = entry.get("message")
        had["type"] = entry.get("type")
        if isinstance(message, dict) and isinstance(message.get("role"), str):
            fixed["type"] = "message"
            return
        fixed["type"] = "custom"
        if "customType" not in entry:
            had["customType"], fixed["customType"] = None, "holdfast:untyped"

    def _fix_parent(self, entry: Entry, fixed: dict[str, Any], had: dict[str, Any]) -> None:
        parent = entry.get("parentId")
        if isinstance(parent, str) and parent in self._tree.entries:
            return
        nameless = not isinstance(entry.get("id"), str)
        if parent is None and not (nameless and "parentId" not in entry):
            return  # A root.
        fixed["parentId"] = self._tree.leaf
        if parent is not None:
            self.counts["unknown_parent"] += 1
            had["parentId"] = parent
        elif self._version == VERSION:
            had["parentId"] = None

    def _fix_id(self, entry: Entry, fixed: dict[str, Any], had: dict[str, Any]) -> None:
        entry_id = entry.get("id")
        if not isinstance(entry_id, str):
            fixed["id"] = self._new_id()
            if self._version < 2:
                self.counts["migrated"] += 1
                return
            self.counts["no_id"] += 1
            had["id"] = entry_id
        elif entry_id in self._tree.entries:
            self.counts["duplicate_id"] += 1
            had["id"], fixed["id"] = entry_id, self._new_id()
            if entry.get("appendMode") != "side":
                had["appendMode"], fixed["appendMode"] = entry.get("appendMode"), "side"

    def _fix_final(self, entry: Entry, had: dict[str, Any]) -> dict[str, Any]:
        """The second reply of one turn is not one.  Returns what its stamp loses."""
        turn = turn_of(entry)
        if turn is None or not is_final(entry):
            return {}
        if turn not in self._finals:
            self._finals.add(turn)
            return {}
        self.counts["two_finals"] += 1
        had["final"] = True
        return {"final": msgspec.UNSET}

    def _migrate(self, entry: Entry, fixed: dict[str, Any]) -> None:
        message = entry.get("message")
        if isinstance(message, dict) and message.get("role") == "hookMessage":
            self.counts["migrated"] += 1
            fixed["message"] = {"role": "custom"}
        index = entry.get("firstKeptEntryIndex")
        if self._version < 2 and entry.get("type") == "compaction" and index is not None:
            self.counts["migrated"] += 1
            fixed["firstKeptEntryIndex"] = msgspec.UNSET
            at = index if isinstance(index, int) else -1
            if 0 < at < len(self._order):
                fixed["firstKeptEntryId"] = self._order[at]

    def _written(
        self,
        raw: bytes,
        entry: Entry,
        fixed: dict[str, Any],
        had: dict[str, Any],
        stamp: dict[str, Any] | None = None,
    ) -> bytes:
        """The line: untouched, or with what was fixed, and beside it what was there."""
        if not fixed and not had:
            return raw + b"\n"
        fields = _raw_fields.decode(raw)
        if "message" in fixed:
            message = with_fields(bytes(fields["message"]), fixed["message"])
            fixed = {**fixed, "message": msgspec.Raw(message)}
        if had:
            fixed = {**fixed, "holdfast": self._stamped(fields, entry, had, stamp or {})}
        return with_fields(raw, fixed) + b"\n"

    @staticmethod
    def _stamped(
        fields: dict[str, msgspec.Raw], entry: Entry, had: dict[str, Any], stamp: dict[str, Any]
    ) -> Any:
        """The entry's stamp, with what it had; in the bytes that it had it in."""
        told: dict[str, Any] = {
            name: value if name == "final" else fields.get(name) for name, value in had.items()
        }
        before = entry.get("holdfast")
        if isinstance(before, dict):
            earlier = before.get("repaired")
            if isinstance(earlier, dict):
                again = {name: value for name, value in told.items() if name in earlier}
                told = {**told, **earlier, **({"again": again} if again else {})}
            more = {**stamp, "repaired": told}
            return msgspec.Raw(with_fields(bytes(fields["holdfast"]), more))
        if "holdfast" in fields:
            told["holdfast"] = fields["holdfast"]
        return {"repaired": told}
