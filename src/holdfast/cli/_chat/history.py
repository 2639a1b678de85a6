"""
The lines that were typed, for the next time: one JSON string a line, private, bounded.

A convenience: what goes wrong with it is said once and costs nothing else.
"""

from __future__ import annotations

import logging
import os
from typing import Final

import msgspec

from holdfast._stamps import uuid7
from holdfast.backends.files import fs

__all__ = ["History"]

LINES_MAX: Final = 1_000
LINE_CHARS_MAX: Final = 4_096  #: What is longer was pasted, and is not typed again.
FILE_BYTES_MAX: Final = 8 * 1024 * 1024

_log = logging.getLogger("holdfast.chat")


class History:
    """
    Args:
        path: the file; its directory must be there.  None: nothing is kept.
        secret: a line that holds this is not kept.
    """

    def __init__(self, path: str | None, secret: str | None = None) -> None:
        self._path, self._secret = path, secret

    def load(self) -> list[str]:
        """The latest lines, oldest first.  Cuts a file that has grown too long."""
        if self._path is None:
            return []
        try:
            data = self._read(self._path)
        except FileNotFoundError:
            return []
        except OSError as error:
            return self._give_up("cannot be read", error)
        lines = data.split(b"\n")
        found = [line for raw in lines[-2 * LINES_MAX :] if (line := _line(raw)) is not None]
        if len(lines) > 2 * LINES_MAX:
            self._cut(self._path, found[-LINES_MAX:])
        return found[-LINES_MAX:]

    def add(self, line: str) -> bool:
        """Keep *line*, if it is one to keep.  Returns whether it may be offered again."""
        if not line.strip() or len(line) > LINE_CHARS_MAX:
            return False
        if self._secret and self._secret in line:
            return False
        if self._path is not None:
            try:
                self._append(self._path, msgspec.json.encode(line) + b"\n")
            except (OSError, UnicodeEncodeError) as error:
                self._give_up("cannot be written", error)
        return True

    def _read(self, path: str) -> bytes:
        fd = fs.open_fd(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            size = fs.table.fstat(fd).st_size
            start = max(0, size - FILE_BYTES_MAX)
            return fs.table.pread(fd, size - start, start)
        finally:
            fs.close_fd(fd)

    def _append(self, path: str, data: bytes) -> None:
        """One write: lines of two chats never mix."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = fs.open_fd(path, flags)
        try:
            if fs.table.fstat(fd).st_mode & 0o077:
                os.fchmod(fd, 0o600)
            fs.table.write(fd, data)
        finally:
            fs.close_fd(fd)

    def _cut(self, path: str, lines: list[str]) -> None:
        """A line that another chat adds at this very moment may go with the old ones."""
        new = f"{path}.{uuid7()}"
        try:
            self._append(new, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
            os.rename(new, path)
        except OSError as error:
            fs.remove_own(new)
            self._give_up("cannot be cut", error)

    def _give_up(self, what: str, error: Exception) -> list[str]:
        _log.warning("the history of what was typed %s: %s: %s", what, self._path, error)
        self._path = None
        return []


def _line(raw: bytes) -> str | None:
    """None: not a line of ours."""
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
