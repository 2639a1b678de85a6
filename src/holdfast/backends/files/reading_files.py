"""Single transcripts, read from outside."""

from __future__ import annotations

import os

from holdfast.backends.files import fs
from holdfast.errors import BadTranscriptError, NotFoundError

__all__ = ["read_transcript"]


def read_transcript(path: str) -> bytes:
    """
    The bytes of any transcript file.

    Raises:
        NotFoundError: no such file.
        BadTranscriptError: not a file that can be read.
    """
    try:
        return _read_from(path, 0)
    except FileNotFoundError:
        raise NotFoundError(what="transcript", name=path) from None
    except OSError as error:
        detail = f"cannot be read: {error.strerror}"
        raise BadTranscriptError(path=path, detail=detail, hint="name a file") from error


def _read_from(path: str, start: int) -> bytes:
    """What stands in *path* from *start* on.  Raises OSError."""
    # O_NONBLOCK: a named pipe must not hang who looks at it.
    fd = fs.open_fd(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        chunks = []
        end = fs.table.fstat(fd).st_size
        while start < end and (chunk := fs.table.pread(fd, end - start, start)):
            chunks.append(chunk)
            start += len(chunk)
        return b"".join(chunks)
    finally:
        fs.close_fd(fd)
