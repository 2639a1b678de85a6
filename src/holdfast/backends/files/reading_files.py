"""Single files of a state directory, read from outside: transcripts and live logs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from holdfast._core import jsonl
from holdfast.backends.files import fs
from holdfast.errors import BadTranscriptError, NotFoundError

if TYPE_CHECKING:
    from holdfast.types import Entry

__all__ = ["LiveTail", "read_transcript"]


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


class LiveTail:
    """
    The live log of one turn, read as it grows.

    A file is left for good once a newer token's exists: what a fenced owner still writes
    is never shown.
    """

    def __init__(self, state: str, turn_id: str) -> None:
        self._directory, self._turn_id = os.path.join(state, "live"), turn_id
        self._token, self._at = 0, 0

    @property
    def path(self) -> str | None:
        """The newest log there is."""
        token = max(self._tokens(), default=0)
        return self._file(token) if token else None

    def read(self) -> list[Entry]:
        """New events.  A newer token's begin again with `started`."""
        newest = max(self._tokens(), default=0)
        if newest > self._token:
            self._token, self._at = newest, 0
        if not self._token:
            return []
        try:
            data = _read_from(self._file(self._token), self._at)
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        return [line.entry for line in jsonl.lines(whole) if line.entry is not None]

    def _file(self, token: int) -> str:
        return os.path.join(self._directory, f"{self._turn_id}.{token}.ndjson")

    def _tokens(self) -> list[int]:
        try:
            names = fs.table.listdir(self._directory)
        except FileNotFoundError:
            return []
        start, end = self._turn_id + ".", ".ndjson"
        tokens = (n[len(start) : -len(end)] for n in names if n.startswith(start))
        return [int(token) for token in tokens if token.isdecimal()]
