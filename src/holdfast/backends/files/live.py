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
from typing import TYPE_CHECKING, Any, Final

from holdfast._core import jsonl
from holdfast.backends.files import fs, inotify
from holdfast.types import LiveEvent, TurnId

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from holdfast.types import FencingToken

__all__ = ["FilesLive", "LiveFile", "LiveTail"]

_END: Final = ".ndjson"
#: Read at once: a slow reader's backlog stays in the file.  An event is far smaller.
CHUNK_BYTES: Final = 65_536


class LiveFile:
    """One token's log, open for appending."""

    def __init__(self, path: str) -> None:
        self._fd = fs.open_fd(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, line: bytes) -> None:
        """One line, newline included.  Raises OSError."""
        fs.table.write(self._fd, line)

    def close(self) -> None:
        """Never raises: it is a view, and what is in it is in it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            fs.close_quietly(fd)


class FilesLive:
    """The `LiveOutput` port on a state directory."""

    def __init__(self, state: str) -> None:
        self._directory = os.path.join(state, "live")

    def open(self, turn_id: TurnId, token: FencingToken) -> LiveFile:
        """Raises OSError; live output is a view, and its loss must not cost a turn."""
        path = self.path(turn_id, token)
        try:
            return LiveFile(path)
        except FileNotFoundError:
            self._make_directory()
        return LiveFile(path)

    def turn_ids(self) -> set[str]:
        """Every turn that has a log."""
        return {turn_id for turn_id, _ in self._logs()}

    def newest(self, turn_ids: Collection[TurnId]) -> dict[TurnId, int]:
        """The newest token that has a log, of each of *turn_ids* that has any."""
        found: dict[TurnId, int] = {}
        for turn_id, token in self._logs():
            if turn_id in turn_ids:
                found[turn_id] = max(token, found.get(turn_id, 0))
        return found

    def tail(self, turn_id: TurnId) -> LiveTail:
        """Reads the logs of one turn as they grow."""
        return LiveTail(lambda token: self.path(turn_id, token))

    def watch(self, told: Callable[[TurnId, int], None]) -> Callable[[], None]:
        """
        Call *told* on the running event loop, with turn and token, when a log has grown.

        A hint; see `inotify.watch` for what it raises.  Returns: stops watching.
        """
        self._make_directory()

        def each(names: set[str]) -> None:
            for name in names:
                if (log := _log(name)) is not None:
                    told(*log)

        return inotify.watch(self._directory, each)

    def remove(self, is_over: Callable[[str], bool]) -> int:
        """Remove the logs of turns that *is_over*; returns how many went.  StoreError."""
        removed = 0
        for turn_id, token in self._logs():
            if is_over(turn_id):
                path = self.path(turn_id, token)
                try:
                    fs.table.unlink(path)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise fs.store_error(error, path, "removing a live log") from error
                removed += 1
        return removed

    def _make_directory(self) -> None:
        with suppress(FileExistsError):
            fs.table.mkdir(self._directory, 0o700)

    def path(self, turn_id: str, token: int) -> str:
        """Where the log of one token is."""
        return os.path.join(self._directory, f"{turn_id}.{token}{_END}")

    def _logs(self) -> list[tuple[TurnId, int]]:
        try:
            names = fs.table.listdir(self._directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise fs.store_error(error, self._directory, "listing live logs") from error
        return [log for name in names if (log := _log(name)) is not None]


class LiveTail:
    """The logs of one turn, read as they grow: the newest token's, and never an older one."""

    def __init__(self, path: Callable[[int], str]) -> None:
        self._path = path
        self._token, self._at = 0, 0

    def read(self, newest: int) -> list[LiveEvent]:
        """
        Some new events, at most CHUNK_BYTES of them; none: there are no more for now.

        Args:
            newest: the newest token known to have a log.

        Raises:
            StoreError: the log is there and cannot be read.
        """
        if newest > self._token:
            self._token, self._at = newest, 0
        if not self._token:
            return []
        path = self._path(self._token)
        try:
            data = _chunk(path, self._at)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise fs.store_error(error, path, "reading a live log") from error
        whole = data[: data.rfind(b"\n") + 1]  # The last line may still be growing.
        self._at += len(whole)
        lines = (line.entry for line in jsonl.lines(whole))
        return [event for line in lines if line and (event := _event(line)) is not None]


def _chunk(path: str, start: int) -> bytes:
    fd = fs.open_fd(path, os.O_RDONLY)
    try:
        data = fs.table.pread(fd, CHUNK_BYTES, start)
        while data and b"\n" not in data:  # One event longer than a chunk: it is read whole.
            if not (more := fs.table.pread(fd, CHUNK_BYTES, start + len(data))):
                break
            data += more
        return data
    finally:
        fs.close_quietly(fd)


def _log(name: str) -> tuple[TurnId, int] | None:
    turn_id, _, token = name.removesuffix(_END).partition(".")
    return (TurnId(turn_id), int(token)) if name.endswith(_END) and token.isdecimal() else None


def _event(line: dict[str, Any]) -> LiveEvent | None:
    token, _, number = str(line.get("id")).partition(".")
    data = line.get("data")
    if not (token.isdecimal() and number.isdecimal() and isinstance(data, dict)):
        return None
    return LiveEvent(
        (int(token), int(number)), str(line.get("event")), str(line.get("at")), data
    )
