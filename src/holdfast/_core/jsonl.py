"""
A transcript's bytes: one JSON object a line, only ever appended to.

An entry exists if, and only if, its newline does.  Bytes after the last newline are a *torn
tail*: a writer died in the middle, and nobody was told that the entry exists.  The next
writer gives the tail its newline, in the same write as its own entries, so the file only
grows; the tail then stands as a line that does not parse, which readers skip and `verify`
reports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from holdfast.types import LineEnd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from holdfast.types import Entry

__all__ = ["LINE_BYTES_MAX", "Line", "encode", "ends", "lines", "lines_back", "lines_with"]

#: One line may be this long, newline included: a message with an inlined attachment.
LINE_BYTES_MAX: Final = 64 * 1024 * 1024

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


class Line(NamedTuple):  # Not a dataclass: a long transcript is a million of them.
    offset: int  #: Where it starts, from the beginning of the file.
    raw: bytes  #: Without its newline.
    entry: Entry | None  #: None: not a JSON object.


def encode(entries: Iterable[Mapping[str, Any]]) -> bytes:
    """The batch that one write appends: each entry on a line of its own."""
    return b"".join(_encoder.encode(entry) + b"\n" for entry in entries)


def lines(data: bytes, *, offset: int = 0) -> Iterator[Line]:
    """
    Every whole line of *data*, which starts at *offset* of its file.

    A torn tail is not a line and is not returned.  Lines of white space are passed over.
    """
    start = 0
    # Not splitlines(): that also splits at carriage returns, which are data here.
    while (end := data.find(b"\n", start)) >= 0:
        raw = data[start:end]
        if raw.strip():
            yield Line(offset + start, raw, _object(raw))
        start = end + 1


def ends(data: bytes) -> Iterator[LineEnd]:
    """Where each whole line of a transcript ends, and which entry it is."""
    for line in lines(data):
        end, entry = line.offset + len(line.raw) + 1, line.entry
        if entry is None:
            yield LineEnd(end, None, None)
            continue
        kind, entry_id = entry.get("type"), entry.get("id")
        yield LineEnd(
            end,
            kind if isinstance(kind, str) else "",
            entry_id if isinstance(entry_id, str) and kind != "session" else None,
        )


def lines_back(data: bytes, *, offset: int = 0) -> Iterator[Line]:
    """As `lines`, the last one first; each is decoded only when it is asked for."""
    end = data.rfind(b"\n")
    while end >= 0:
        start = data.rfind(b"\n", 0, end) + 1
        raw = data[start:end]
        if raw.strip():
            yield Line(offset + start, raw, _object(raw))
        end = start - 1


def lines_with(data: bytes, name: bytes, *, offset: int = 0) -> Iterator[Line]:
    """As `lines`, but only those that have the bytes of *name* somewhere in them."""
    end = data.rfind(b"\n")
    at = data.find(name, 0, end + 1)
    while at >= 0:
        start, stop = data.rfind(b"\n", 0, at) + 1, data.index(b"\n", at)
        raw = data[start:stop]
        yield Line(offset + start, raw, _object(raw))
        at = data.find(name, stop, end + 1)


def _object(raw: bytes) -> Entry | None:
    try:
        value = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # Nested too deeply.
        return None
    return value if isinstance(value, dict) else None
