"""
What a turn needs of a transcript, without reading all of it: from its end, and by a search.

Read with `pread`, never mapped: a file that somebody cuts short while it is mapped kills the
process that looks at it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from holdfast._core import jsonl
from holdfast._core.branch import Backwards
from holdfast._core.tree import bad_header
from holdfast.backends.files.transcript.loaded import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast._core.branch import Branch

__all__ = ["behind_header", "can_search", "lines_with", "read_branch"]

BACK_BYTES: Final = 128 * 1024  #: Read at once, from the end upwards.
SEARCH_BYTES: Final = 1024 * 1024  #: Read at once, when a name is looked for.
HEADER_BYTES: Final = 4 * 1024  #: Read at first; a longer header costs one more read.

#: No JSON encoder has a second way to write these, short of wanting to.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_:.-]+")


def can_search(name: str) -> bool:
    """Whether *name* has the same bytes in every transcript that says it."""
    return _PLAIN.fullmatch(name) is not None


def read_branch(fd: int, size: int, path: str) -> Branch | None:
    """
    The active branch of a file of *size* bytes, read from its end.

    Returns:
        None: only the whole file can tell; or what it begins with is no header of ours.

    Raises:
        StoreError, BadTranscriptError: it cannot be read.

    Cost:
        Grows with what is kept of the branch, not with the file.
    """
    top = behind_header(fd, size, path)
    if top is None:
        return None
    back: Backwards | None = None
    upto, length = size, BACK_BYTES
    while upto > top:
        start = max(upto - length, top)
        data = read_bytes(fd, start, upto, path)
        # The first line may be cut: it is read with what stands before it.
        first = data.find(b"\n") + 1 if start > top else 0
        end = data.rfind(b"\n") + 1
        if back is None and end:
            back = Backwards(start + end)
        if start > top and first in {0, len(data)}:
            length *= 2  # Not one whole line yet.
            continue
        if back is None:
            break  # Nothing but a torn tail.
        for line in jsonl.lines_back(data[first:], offset=start + first):
            if back.take(line):
                return back.found(top=False)
        upto, length = start + first, BACK_BYTES
    return None if back is None else back.found(top=True)


def behind_header(fd: int, size: int, path: str) -> int | None:
    """Where the first entry begins; None: not sure that a header stands before it."""
    length = HEADER_BYTES
    while True:
        data = read_bytes(fd, 0, min(length, size), path)
        if (end := data.find(b"\n") + 1) or length >= size:
            break
        length *= 4
    header = next(jsonl.lines(data[:end]), None)
    if header is None or bad_header(header.entry) is not None:
        return None
    return end


def lines_with(fd: int, name: str, start: int, size: int, path: str) -> Iterator[jsonl.Line]:
    """
    Every whole line between *start*, where a line begins, and *size* that says *name*, and
    perhaps more.  The header is none.

    Raises StoreError.  Costs one look at each byte: 100 MB are some 50 ms; nothing else is
    decoded.
    """
    needle, at, length = name.encode(), start, SEARCH_BYTES
    while at < size:
        data = read_bytes(fd, at, min(at + length, size), path)
        end = data.rfind(b"\n") + 1
        if not end:
            if at + len(data) >= size or len(data) < length:
                return  # A torn tail.
            length *= 2
            continue
        for line in jsonl.lines_with(data, needle, offset=at):
            if line.offset:
                yield line
        at, length = at + end, SEARCH_BYTES
