"""
Pages of a transcript, for whoever reads along: no lock, no row, no byte changed.

A cursor is ``<generation>.<offset behind the entry>``.  Whoever rewrites a file raises the
generation, and then every older cursor starts over.  The header is not an entry.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from holdfast._core import jsonl
from holdfast.backends.files import fs
from holdfast.errors import BadRequestError, BadTranscriptError
from holdfast.types import EntriesPage

if TYPE_CHECKING:
    from holdfast.errors import StoreError
    from holdfast.types import Entry

__all__ = ["last_entries", "offset_of", "page", "size_of", "unreadable"]

CHUNK_BYTES: Final = 256 * 1024
#: A page is cut short here, so that its memory is bounded; one entry is always whole.
PAGE_BYTES: Final = 4 * 1024 * 1024

#: It is what the path names that cannot be read; anything else is the medium's fault.
_NOT_OURS: Final = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO),
    *(errno.EACCES, errno.EPERM),
}


def offset_of(cursor: str | None, generation: int) -> int:
    """
    Where to go on reading.

    Raises:
        BadRequestError: not a cursor that we gave.
    """
    if cursor is None:
        return 0
    numbered, _, offset = cursor.partition(".")
    if not (_is_number(numbered) and _is_number(offset)):
        raise BadRequestError(
            detail=f"after = {cursor[:80]!r} is not a cursor",
            hint="give one that an earlier answer gave as `cursor` or `next`",
        )
    return int(offset) if int(numbered) == generation else 0


def page(path: str, generation: int, start: int, limit: int) -> EntriesPage:
    """
    At most *limit* entries that begin at or after *start*.

    A start beyond the end of the file, or inside a line, is one of another file: it starts
    over at the beginning.

    Raises:
        BadTranscriptError: it is not a file that we may read.
        StoreError: its medium fails.
    """
    fd = _open(path)
    if fd is None:
        return EntriesPage((), f"{generation}.0")
    found: list[tuple[str, Entry]] = []
    try:
        at = start = start if _at_a_line(fd, start) else 0
        while len(found) < limit and at - start < PAGE_BYTES:
            if not (data := _whole_lines(fd, at)):
                break
            found += _entries(data, at, generation)
            at += len(data)
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        fs.close_quietly(fd)
    rest = found[limit:]
    del found[limit:]
    return EntriesPage(tuple(found), found[-1][0] if rest else f"{generation}.{at}")


def last_entries(path: str, generation: int, count: int) -> EntriesPage:
    """The last *count* entries there are.  Reads from the end, more until it is enough."""
    fd = _open(path)
    if fd is None:
        return EntriesPage((), f"{generation}.0")
    size = CHUNK_BYTES
    try:
        end = fs.table.fstat(fd).st_size
        while True:
            start = max(0, end - size)
            data = fs.table.pread(fd, end - start, start)
            skipped = data.find(b"\n") + 1 if start else 0  # Begun in the middle of a line.
            found = _entries(data[skipped:], start + skipped, generation)
            if not start or len(found) >= count:
                break
            size *= 4
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        fs.close_quietly(fd)
    whole = start + data.rfind(b"\n") + 1
    return EntriesPage(tuple(found[-count:]), f"{generation}.{whole}")


def size_of(path: str) -> int:
    """The file's size; 0 if there is none yet."""
    try:
        return fs.table.stat(path).st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise unreadable(path, error) from error


def _entries(data: bytes, offset: int, generation: int) -> list[tuple[str, Entry]]:
    """With their cursors.  What stands at the very beginning is the header."""
    return [
        (f"{generation}.{line.offset + len(line.raw) + 1}", line.entry)
        for line in jsonl.lines(data, offset=offset)
        if line.entry is not None and line.offset
    ]


def _whole_lines(fd: int, start: int) -> bytes:
    """Some whole lines from *start* on; nothing if none has its newline yet."""
    data = b""
    while chunk := fs.table.pread(fd, CHUNK_BYTES, start + len(data)):
        data += chunk
        if b"\n" in chunk:
            break
    return data[: data.rfind(b"\n") + 1]


def _at_a_line(fd: int, start: int) -> bool:
    return start == 0 or fs.table.pread(fd, 1, start - 1) == b"\n"


def _open(path: str) -> int | None:
    try:
        return fs.open_fd(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: str, error: OSError) -> StoreError:
    """What to raise: it is not a file that we may read, or its medium fails."""
    if error.errno in _NOT_OURS:
        return BadTranscriptError(path=path, detail=f"cannot be read: {error.strerror}")
    return fs.store_error(error, path, "reading the transcript")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 18
