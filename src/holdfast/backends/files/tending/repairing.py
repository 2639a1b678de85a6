"""
Repairing one transcript file.

In this order, under the write lock (`replacing.py` says how a file is replaced):

    lines read and mended into a new file  →  counted and verified there  →  the old file kept
    as the copy  →  rename  →  the session's generation raised

A crash before the rename leaves the old file, and perhaps a copy of it.  One between rename
and row leaves a whole new file under the old generation: its last entry names the generation
that it should have, `sessions verify` reports the difference, and the next repair raises the
row and does nothing else.  Until then a reader's cursor of the old file may start a page
again; recovery finds every committed entry in place, so nothing is put back twice.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from holdfast._core.repair import NewerFormatError, Repair
from holdfast._core.verify import Verifier
from holdfast._stamps import now_iso, uuid7
from holdfast.backends.files import fs
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.backends.files.tending.files import cut_short, opened, pieces, raw_lines
from holdfast.backends.files.transcript.replacing import Replacement
from holdfast.errors import (
    BadTranscriptError,
    NotFoundError,
    TakeoverError,
    UnavailableError,
)
from holdfast.types.tending import Repaired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast._core.verify import Report
    from holdfast.backends.files.lock.hold import Hold
    from holdfast.types.tending import Belonging

__all__ = ["LANE", "MAX_HOLD_MS", "repair_file", "would_repair"]

#: What the claim promises strangers: a gigabyte takes some ten seconds on a slow disk.
MAX_HOLD_MS: Final = 600_000
LANE: Final = "maintenance"
#: What happened cannot be repaired; it keeps nobody from appending.
BORNE: Final = frozenset({"final_without_question"})


def repair_file(
    path: str,
    *,
    timeout_s: float,
    look: Callable[[], Belonging] | None = None,
    book: Callable[[int, int, dict[str, int]], int] | None = None,
) -> Repaired:
    """
    Repair *path* under its write lock.  As `ports.Tending.repair`.

    Args:
        look: the session that it belongs to, asked under the write lock.
        book: raises its generation: (generation, size, counts) → the one that stands.
    """
    if not os.path.lexists(path):
        raise NotFoundError(what="transcript", name=path)
    hold = WriteLock(
        path, timeout_s=timeout_s, max_hold_ms=MAX_HOLD_MS, lane=LANE
    ).acquire_sync()
    new = None
    try:
        belonging = None if look is None else look()
        before, cut = _looked_at(hold, belonging)
        report = before.finish()
        if not cut and all(problem.code in BORNE for problem in report.problems):
            return _nothing_done(hold, before, report, belonging, book)
        new = Replacement(hold)
        return _replace(hold, new, belonging, book)
    finally:
        hold.release()
        if new is not None:
            new.close()


def would_repair(path: str, belonging: Belonging | None) -> Repaired:
    """What `repair_file` would do now.  No lock, no row, no byte changed."""
    after = Verifier()
    with opened(path) as fd:
        repair = _read_through(path, fd, belonging, after.feed)
    return _told(path, repair, after.finish())


def _looked_at(hold: Hold, belonging: Belonging | None) -> tuple[Verifier, bool]:
    """The file, read once by a verifier; and whether it was cut and lines are to return."""
    verifier, size = _read_back(hold.path, hold.fd)
    try:
        cut = None if belonging is None else cut_short(hold.fd, size, belonging)
    except OSError as error:
        raise fs.store_error(error, hold.path, "reading the transcript") from error
    return verifier, bool(cut)


def _read_back(path: str, fd: int) -> tuple[Verifier, int]:
    verifier = Verifier()
    try:
        size = fs.table.fstat(fd).st_size
        for piece in pieces(fd, size):
            verifier.feed(piece)
    except OSError as error:
        raise fs.store_error(error, path, "reading the transcript") from error
    return verifier, size


def _read_through(
    path: str, fd: int, belonging: Belonging | None, write: Callable[[bytes], None]
) -> Repair:
    """One pass: the repaired lines go to *write*, but for the last, which names the copy."""
    repair = Repair(session_id=_session_id(path, belonging), now=now_iso(), new_id=uuid7)
    try:
        size = fs.table.fstat(fd).st_size
        for raw, whole in raw_lines(pieces(fd, size)):
            write(repair.line(raw) if whole else repair.tail(raw))
        write(repair.settle())
        if belonging is not None:
            for lines in _vouched_for(fd, size, belonging, damaged=bool(repair.moved_out)):
                write(repair.restore(lines))
    except NewerFormatError as error:
        raise BadTranscriptError(
            path=path, detail=str(error), line=1, hint="open it with what wrote it"
        ) from error
    except OSError as error:
        raise fs.store_error(error, path, "reading the transcript") from error
    return repair


def _vouched_for(fd: int, size: int, belonging: Belonging, *, damaged: bool) -> Iterator[bytes]:
    """
    Lines of commits that may be missing: from behind a cut, or out of damaged lines.

    In a file that only lacks entries, and is neither, somebody took them out on purpose.
    """
    cut = cut_short(fd, size, belonging)
    if cut:
        yield from (each.entries for each in cut if each.entries is not None)
    elif damaged:
        generation = belonging.session.generation
        for each in belonging.commitments:
            if each.entries is not None and each.generation == generation:
                yield each.entries


def _session_id(path: str, belonging: Belonging | None) -> str:
    if belonging is not None:
        return belonging.session.session_id
    name = os.path.basename(path)
    return name.partition(".jsonl")[0] or name


def _nothing_done(
    hold: Hold,
    before: Verifier,
    report: Report,
    belonging: Belonging | None,
    book: Callable[[int, int, dict[str, int]], int] | None,
) -> Repaired:
    """No line needs anything; but an earlier repair may not have got as far as its row."""
    repaired, generation = before.repaired, None
    if belonging is not None and book is not None:
        generation = belonging.session.generation
        mine = repaired is not None and repaired[2] == belonging.session.session_id
        if mine and repaired is not None and repaired[1] > generation:
            generation = book(repaired[1], hold.size(), {})
    return Repaired(
        hold.path, changed=False, entries=report.entries, generation=generation,
        remaining=tuple((p.line, p.code, p.detail) for p in report.problems),
    )  # fmt: skip


def _replace(
    hold: Hold,
    new: Replacement,
    belonging: Belonging | None,
    book: Callable[[int, int, dict[str, int]], int] | None,
) -> Repaired:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(fs.table.time_ns() // 10**9))
    copy = f"{hold.path}.bak-{stamp}-{uuid4().hex[:8]}"
    generation = None if belonging is None else belonging.session.generation + 1
    buffered = _Buffered(new.write)
    repair = _read_through(hold.path, hold.fd, belonging, buffered)
    buffered(repair.end(copy=os.path.basename(copy), generation=generation))
    buffered.flush()
    after, size = _read_back(hold.path, new.fd)
    told = _told(hold.path, repair, after.finish())
    _check_nothing_lost(hold.path, repair, told)
    unsure: UnavailableError | None = None
    try:
        new.put(copy)
    except UnavailableError as error:
        if error.landed is not None:
            raise
        unsure = error  # It stands; so the row must say so.
    if book is not None and generation is not None:
        generation = book(generation, size, dict(repair.counts))
    if unsure is not None:
        raise unsure
    return replace(told, copy=copy, generation=generation)


class _Buffered:
    """Collects lines into writes of a reasonable size."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write, self._held, self._size = write, list[bytes](), 0

    def __call__(self, data: bytes) -> None:
        self._held.append(data)
        self._size += len(data)
        if self._size >= 1024 * 1024:
            self.flush()

    def flush(self) -> None:
        self._write(b"".join(self._held))
        self._held.clear()
        self._size = 0


def _told(path: str, repair: Repair, report: Report) -> Repaired:
    return Repaired(
        path,
        changed=repair.changed,
        entries=report.entries,
        counts=dict(sorted(repair.counts.items())),
        moved_out=tuple(repair.moved_out),
        remaining=tuple((p.line, p.code, p.detail) for p in report.problems),
    )


def _check_nothing_lost(path: str, repair: Repair, told: Repaired) -> None:
    """
    Counted in the new file itself, before anything is changed.

    Raises TakeoverError: a stranger's write came between the passes; the next try sees it.
    """
    wanted = repair.parsed - repair.had_header + repair.counts["restored"] + 1
    if told.entries != wanted:
        raise TakeoverError(path=path, detail="it was written to meanwhile; try again")
