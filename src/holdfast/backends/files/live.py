"""
Live output on files: `<state>/live/<turn>.<token>.ndjson`, one file a token.

Only the lease holder writes; anybody may read, in any process.  A reader leaves a file for
good once a newer token's exists, so what a fenced owner still writes is never shown.  Never
synced: it is a view of work in progress, not a record.  One line an event:

    {"id": "<token>.<n>", "event": "started|attempt|text|tool", "at": …, "data": {…}}
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from holdfast.backends.files import fs

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.types import FencingToken, TurnId

__all__ = ["FilesLive", "LiveFile"]


class LiveFile:
    """One token's log, open for appending."""

    def __init__(self, path: str) -> None:
        self._fd = fs.open_fd(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, line: bytes) -> None:
        """One line, newline included.  Raises OSError."""
        fs.table.write(self._fd, line)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            fs.close_fd(fd)


class FilesLive:
    """The `LiveOutput` port on a state directory."""

    def __init__(self, state: str) -> None:
        self._directory = os.path.join(state, "live")

    def open(self, turn_id: TurnId, token: FencingToken) -> LiveFile:
        """Raises OSError; live output is a view, and its loss must not cost a turn."""
        with suppress(FileExistsError):
            fs.table.mkdir(self._directory, 0o700)
        return LiveFile(os.path.join(self._directory, f"{turn_id}.{token}.ndjson"))

    def turn_ids(self) -> set[str]:
        """Every turn that has a log."""
        try:
            names = fs.table.listdir(self._directory)
        except FileNotFoundError:
            return set()
        return {name.partition(".")[0] for name in names if name.endswith(".ndjson")}

    def remove(self, is_over: Callable[[str], bool]) -> int:
        """Remove the logs of turns that *is_over*; returns how many files went."""
        removed = 0
        try:
            names = fs.table.listdir(self._directory)
        except FileNotFoundError:
            return 0
        for name in names:
            if name.endswith(".ndjson") and is_over(name.partition(".")[0]):
                with suppress(FileNotFoundError):
                    fs.table.unlink(os.path.join(self._directory, name))
                    removed += 1
        return removed
