"""Reading transcripts of any size, in pieces, without a lock; and what their end says."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from holdfast._core import jsonl
from holdfast._core.verify import Verifier
from holdfast.backends.files import fs
from holdfast.errors import BadTranscriptError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast._core.verify import Report
    from holdfast.types.tending import Belonging, Commitment

__all__ = ["cut_short", "opened", "pieces", "raw_lines", "settled_end", "verified"]

PIECE_BYTES: Final = 1024 * 1024
SETTLE_TRIES: Final = 3  #: A torn tail that still grows is a write under way.
_SETTLE_S: Final = 0.005


@contextmanager
def opened(path: str) -> Iterator[int]:
    """
    A descriptor for reading *path*, whatever takes its name meanwhile.

    Raises:
        NotFoundError: there is no such file.
        BadTranscriptError: it cannot be read, here or while it is used.
    """
    try:
        # O_NONBLOCK: a named pipe must not hang who looks at it.
        fd = fs.open_fd(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFoundError(what="transcript", name=path) from None
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        yield fd
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        fs.close_quietly(fd)


def _unreadable(path: str, error: OSError) -> BadTranscriptError:
    detail = f"cannot be read: {error.strerror or error}"
    return BadTranscriptError(path=path, detail=detail, hint="name a file")


def pieces(fd: int, end: int) -> Iterator[bytes]:
    """The bytes up to *end*, or to where the file ends earlier.  Raises OSError."""
    at = 0
    while at < end and (piece := fs.table.pread(fd, min(PIECE_BYTES, end - at), at)):
        yield piece
        at += len(piece)


def raw_lines(parts: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each line without its newline, and whether it had one; only the last may not."""
    held: list[bytes] = []
    for part in parts:
        *whole, rest = part.split(b"\n")
        for line in whole:
            yield b"".join([*held, line]) if held else line, True
            held.clear()
        if rest:
            held.append(rest)
    if held:
        yield b"".join(held), False


def settled_end(fd: int) -> int:
    """
    How far the file goes, once nobody is in the middle of a line, as far as can be seen.

    An end inside a line is waited for a moment; what does not move then is torn.
    """
    end = fs.table.fstat(fd).st_size
    for _ in range(SETTLE_TRIES):
        if end == 0 or fs.table.pread(fd, 1, end - 1) == b"\n":
            break
        fs.table.sleep(_SETTLE_S)
        now = fs.table.fstat(fd).st_size
        if now == end:
            break
        end = now
    return end


def verified(
    path: str, *, told: Callable[[int], None] | None = None
) -> tuple[Report, Verifier, int]:
    """
    What is wrong with *path*, what its reader knows, and how long it is.

    *told*: called with the bytes read so far.

    Raises:
        NotFoundError, BadTranscriptError: as `opened`.
    """
    verifier, done = Verifier(), 0
    with opened(path) as fd:
        end = settled_end(fd)
        for piece in pieces(fd, end):
            verifier.feed(piece)
            done += len(piece)
            if told is not None:
                told(done)
    return verifier.finish(), verifier, end


def cut_short(fd: int, size: int, belonging: Belonging) -> list[Commitment] | None:
    """
    Whether a transcript of *size* lost its end, by the rule of recovery.

    It did if it is of the generation that the commits vouch for, is shorter than they say,
    and the last committed final entry that still fits stands where it was.

    Returns:
        None: it is as long as it was.  Else the commitments whose lines are to be put back,
        in their order; empty: it was rewritten, and nothing is.

    Raises:
        OSError: the file cannot be read.
    """
    session = belonging.session
    if size >= session.end_offset:
        return None
    ours = [
        commitment
        for commitment in belonging.commitments
        if commitment.generation == session.generation and commitment.end_offset is not None
    ]
    fitting = [each for each in ours if (each.end_offset or 0) <= size]
    if fitting and not _stands(fd, fitting[-1]):
        return []
    return [each for each in ours if each not in fitting and each.entries is not None]


def _stands(fd: int, commitment: Commitment) -> bool:
    """Whether the commitment's final entry is the line that ends at its offset."""
    end = commitment.end_offset or 0
    back = PIECE_BYTES
    while True:
        start = max(0, end - back)
        data = fs.table.pread(fd, end - start, start)
        begin = data.rfind(b"\n", 0, len(data) - 1) + 1
        if begin or not start:
            break
        back *= 8
    line = next(jsonl.lines(data[begin:]), None)
    entry = None if line is None else line.entry
    return entry is not None and entry.get("id") == commitment.final_entry
