"""
One write at the end of a transcript: whole, or cut back, or unknown and said.

Needs the write lock; `Hold.append` is who has it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from holdfast.backends.files import fs
from holdfast.errors import DiskFullError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.errors import StoreError

__all__ = ["append", "sync"]


def append(fd: int, path: str, data: bytes, stands: Callable[[], bool]) -> int:
    """
    Write *data*, whole lines, after a newline if the last line is torn.

    Args:
        stands: whether our claim does: without it nothing is cut back, because what is there
            may be a stranger's.  May raise OSError.

    Returns:
        The offset behind the last byte of *data*.

    Raises:
        DiskFullError, ReadOnlyError: nothing was written, or it was cut back.
        UnavailableError: see its `landed`.
    """
    try:
        start = fs.table.fstat(fd).st_size
        torn = start > 0 and fs.table.pread(fd, 1, start - 1) != b"\n"
    except OSError as error:
        raise fs.store_error(error, path, "looking at its end") from error
    whole = b"\n" + data if torn else data
    try:
        written = fs.table.write(fd, whole)
    except OSError as error:
        raise _cut_back(fd, path, error, start, whole, stands) from error
    if written < len(whole):
        raise _cut_back(fd, path, None, start, whole[:written], stands)
    try:
        # A writer that knows nothing of locks may have appended in between.
        return fs.table.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return start + written


def sync(fd: int, path: str) -> None:
    """fdatasync.  Raises UnavailableError, with `landed` None."""
    try:
        fs.table.fdatasync(fd)
    except OSError as error:
        raise fs.store_error(error, path, "syncing", landed=None) from error


def _cut_back(
    fd: int, path: str, error: OSError | None, start: int, ours: bytes,
    stands: Callable[[], bool],
) -> StoreError:  # fmt: skip
    """Undo a short or failed write.  Returns what to raise."""
    what = "appending"
    try:
        grown = fs.table.fstat(fd).st_size - start
        # Anything else than our own beginning: a stranger's bytes are among them.
        clean = grown <= 0 or fs.table.pread(fd, grown, start) == ours[:grown]
        if clean and grown > 0:
            clean = stands()
            if clean:
                fs.table.ftruncate(fd, start)
    except OSError:
        clean = False
    if not clean:
        return UnavailableError(
            path=path, detail=f"{what} failed, and so did cutting back", landed=None
        )
    if error is None:
        return DiskFullError(path=path, detail="only a part fitted; it was cut back")
    return fs.store_error(error, path, what)
