"""
Transcripts on files: one JSONL file a session, written only under its write lock.

The lock is taken for a load or an append, never across a model call.  What is done under it
is in `held.py`, and does not know of sessions.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from holdfast._core import jsonl
from holdfast._core.tree import VERSION, Tree
from holdfast._stamps import now_iso
from holdfast.backends.files import fs
from holdfast.backends.files.lock.climb import Names
from holdfast.backends.files.lock.latch import publish_file
from holdfast.backends.files.lock.write_lock import STALE_MS, WriteLock
from holdfast.backends.files.transcript import paging
from holdfast.backends.files.transcript.held import HeldFile
from holdfast.backends.files.transcript.loaded import Reading, check_header, read_bytes, stat_of
from holdfast.errors import BadTranscriptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.types import (
        EntriesPage,
        Entry,
        FencingToken,
        Session,
        SessionId,
        TurnId,
        Vouched,
    )

__all__ = ["FilesTranscripts", "read_tree"]


SALVAGE: Final = "salvage"  #: In the state directory: replies without a transcript.


class FilesTranscripts:
    """The `Transcripts` port on a state directory."""

    def __init__(
        self, state: str, *, durability: str, max_hold_ms: int, stale_ms: int = STALE_MS
    ) -> None:
        self._state = os.path.realpath(state)
        self._durability = durability
        self._max_hold_ms, self._stale_ms = max_hold_ms, stale_ms
        self._reading = Reading()

    def path(self, session: Session) -> str:
        """
        Where the session's transcript is.

        Raises:
            BadTranscriptError: a symlink leads out of the state directory.
        """
        return self._names(session).given

    def _names(self, session: Session) -> Names:
        path = os.path.join(self._state, session.transcript)
        try:
            names = Names.of(path)
        except OSError as error:
            raise fs.store_error(error, path, "resolving the path") from error
        if not names.resolved.startswith(self._state + os.sep):
            raise BadTranscriptError(
                path=path, detail=f"it leads out of the state directory, to {names.resolved}"
            )
        return names

    def is_at(self, session: Session, path: str) -> bool:
        """By device and inode: symlinks and hard links are it, too."""
        try:
            ours, theirs = fs.table.stat(self.path(session)), fs.table.stat(path)
        except (OSError, ValueError):
            return False
        return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)

    async def acquire(
        self,
        session: Session,
        *,
        timeout_s: float,
        token: FencingToken | None,
        run_id: str | None,
        lane: str | None,
    ) -> HeldFile:
        """
        Take the write lock.

        Raises:
            LockTimeoutError: not within *timeout_s*, one total deadline.
            BadTranscriptError: not a transcript we may append to.
            StoreError: the file system failed.
        """
        names = self._names(session)
        lock = WriteLock(
            names.given,
            timeout_s=timeout_s,
            max_hold_ms=self._max_hold_ms,
            stale_ms=self._stale_ms,
            lane=lane,
            run_id=run_id,
            session_id=session.session_id,
            token=token,
            header=self._header(session, names.given),
            names=names,
        )
        hold = await lock.acquire()
        return HeldFile(
            hold, self._reading, durability=self._durability, generation=session.generation
        )

    def salvage(
        self, turn_id: TurnId, token: FencingToken, entries: Sequence[Entry]
    ) -> str | None:
        """`salvage/<turn>.<token>.jsonl`; a second one for the same token changes nothing."""
        directory = os.path.join(self._state, SALVAGE)
        path = os.path.join(directory, f"{turn_id}.{token}.jsonl")
        try:
            fs.make_dirs(directory)
            publish_file(path, lambda: jsonl.encode(entries))
            fs.sync_dir(self._state)
        except OSError as error:
            raise fs.store_error(error, path, "keeping a reply") from error
        return os.path.relpath(path, self._state)

    def read(self, session: Session) -> Tree:
        """The transcript as it stands.  No lock, no row, no byte changed."""
        return read_tree(self.path(session))

    def page(
        self, session: Session, after: str | None, *, limit: int, last: int | None = None
    ) -> EntriesPage:
        path = self.path(session)
        if last is not None:
            return paging.last_entries(path, session.generation, last)
        start = paging.offset_of(after, session.generation)
        return paging.page(path, session.generation, start, limit)

    def shorter(self, vouched: Sequence[Vouched]) -> list[SessionId]:
        """Those whose file is shorter than its rows say, or gone.  One stat each."""
        return [
            each.session_id
            for each in vouched
            if _size(os.path.join(self._state, each.transcript)) < each.end_offset
        ]

    def end(self, session: Session) -> int:
        return paging.size_of(self.path(session))

    def _header(self, session: Session, path: str) -> Any:
        directory = os.path.dirname(path)
        try:
            fs.make_dirs(directory)
        except OSError as error:
            raise fs.store_error(error, directory, "making a directory") from error

        def publish() -> bytes:
            if session.end_offset:
                raise BadTranscriptError(
                    path=path,
                    detail=f"it is gone, with {session.end_offset} bytes that were committed",
                    hint="put the file back from a backup; a new one would forget all of it",
                )
            header = {
                "type": "session",
                "version": VERSION,
                "id": session.session_id,
                "timestamp": now_iso(),
                "cwd": self._state,
            }
            return jsonl.encode([header])

        return publish


def _size(path: str) -> int:
    """-1: it is not there, or cannot be looked at."""
    try:
        return fs.table.stat(path).st_size
    except OSError:
        return -1


def read_tree(path: str) -> Tree:
    """
    Any transcript file, without a lock.

    Raises:
        BadTranscriptError: a directory, unreadable, or without a header.
    """
    try:
        fd = fs.open_fd(path, os.O_RDONLY | os.O_NONBLOCK)
    except IsADirectoryError as error:
        raise BadTranscriptError(path=path, detail="it is a directory") from error
    except OSError as error:
        raise paging.unreadable(path, error) from error
    try:
        tree = Tree()
        data = read_bytes(fd, 0, stat_of(fd, path).st_size, path)
        tree.feed(jsonl.lines(data))
    finally:
        fs.close_quietly(fd)
    check_header(tree, path)
    return replace(tree)
