"""
Transcripts on files: one JSONL file a session, written only under its write lock.

The lock is taken for a load or an append, never across a model call.  Nothing here decides
whether an append is allowed: the caller checks its token *after* it has the lock, and this
module writes the batch with one write while the lock is still held.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from holdfast._core import jsonl
from holdfast._core.tree import VERSION, Tree, bad_header
from holdfast._stamps import now_iso
from holdfast.backends.files import fs, paging
from holdfast.backends.files.write_lock import WriteLock
from holdfast.errors import BadTranscriptError
from holdfast.types import Appended, Mark

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.backends.files.hold import Hold
    from holdfast.types import Advance, EntriesPage, FencingToken, Session

__all__ = ["FilesTranscripts", "HeldTranscript", "read_tree"]

TAIL_BYTES: Final = 4096  #: Read back to see that what stood before the mark still does.
KEPT_MAX: Final = 64  #: Sessions whose decoded entries stay in memory.
KEPT_BYTES_MAX: Final = 8 * 1024 * 1024  #: A longer transcript is decoded anew each time.


@dataclass(slots=True)
class _Loaded:
    """What has been read so far of one file, so that only its tail need be read again."""

    device: int
    inode: int
    end: int  #: Offset behind the last whole line that `tree` has been fed.
    tail: bytes  #: The bytes just before `end`.
    tree: Tree


class FilesTranscripts:
    """The `Transcripts` port on a state directory."""

    def __init__(self, state: str, *, durability: str, max_hold_ms: int) -> None:
        self._state = os.path.realpath(state)
        self._durability, self._max_hold_ms = durability, max_hold_ms
        self._kept: OrderedDict[str, _Loaded] = OrderedDict()

    def path(self, session: Session) -> str:
        """
        Where the session's transcript is.

        Raises:
            BadTranscriptError: a symlink leads out of the state directory.
        """
        path = os.path.join(self._state, session.transcript)
        resolved = fs.table.realpath(path)
        if not resolved.startswith(self._state + os.sep):
            raise BadTranscriptError(
                path=path, detail=f"it leads out of the state directory, to {resolved}"
            )
        return path

    async def acquire(
        self,
        session: Session,
        *,
        timeout_s: float,
        token: FencingToken | None,
        run_id: str | None,
        lane: str | None,
    ) -> HeldTranscript:
        """
        Take the write lock.

        Raises:
            LockTimeoutError: not within *timeout_s*, one total deadline.
            BadTranscriptError: not a transcript we may append to.
            StoreError: the file system failed.
        """
        path = self.path(session)
        lock = WriteLock(
            path,
            timeout_s=timeout_s,
            max_hold_ms=self._max_hold_ms,
            lane=lane,
            run_id=run_id,
            session_id=session.session_id,
            token=token,
            header=self._header(session, path),
        )
        hold = await lock.acquire()
        return HeldTranscript(self, session, hold)

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

    def end(self, session: Session) -> int:
        return paging.size_of(self.path(session))

    def _header(self, session: Session, path: str) -> Any:
        directory = os.path.dirname(path)
        if not os.path.isdir(directory):
            try:
                os.makedirs(directory, mode=0o700, exist_ok=True)
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

    def syncs(self, *, final: bool) -> bool:
        """Whether this append is synced: `turn` syncs the question and the final batch."""
        return self._durability == "always" or (self._durability == "turn" and final)

    def load(self, session: Session, hold: Hold) -> Tree:
        """Everything in the file, reading only what is new since this process last looked."""
        stat, path = fs.table.fstat(hold.fd), hold.path
        kept = self._kept.pop(session.session_id, None)
        if kept is None or not _continues(kept, hold.fd, stat):
            kept = _Loaded(stat.st_dev, stat.st_ino, 0, b"", Tree())
        data = _read(hold.fd, kept.end, stat.st_size, path)
        whole = data.rfind(b"\n") + 1
        kept.tree.feed(jsonl.lines(data[:whole], offset=kept.end))
        _check_header(kept.tree, path)
        kept.end += whole
        kept.tail = (kept.tail + data[:whole])[-TAIL_BYTES:]
        if kept.end <= KEPT_BYTES_MAX:
            self._kept[session.session_id] = kept
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        return kept.tree


class HeldTranscript:
    """A transcript whose write lock we hold.  Not to be kept across a model call."""

    def __init__(self, store: FilesTranscripts, session: Session, hold: Hold) -> None:
        self._store, self._session, self._hold = store, session, hold

    @property
    def path(self) -> str:
        return self._hold.path

    def load(self) -> Tree:
        """
        The transcript's entries.

        Raises:
            BadTranscriptError: no header that we know; names the file and the line.
        """
        return self._store.load(self._session, self._hold)

    def mark(self) -> Mark:
        """How far the transcript goes now, and what stands at its leaf."""
        stat, tree = fs.table.fstat(self._hold.fd), self.load()
        return Mark(stat.st_dev, stat.st_ino, stat.st_size, tree.leaf)

    def advance(self, mark: Mark) -> Advance:
        """
        What has happened since *mark*.

        A file that only grew is `appended`.  Anything else is read whole, and is `appended`
        as long as the entry that the mark stood on is still there to go on from.
        """
        stat = fs.table.fstat(self._hold.fd)
        same_file = (stat.st_dev, stat.st_ino) == (mark.device, mark.inode)
        if same_file and stat.st_size == mark.size:
            return "same"
        tree = self.load()
        if mark.leaf is not None and mark.leaf not in tree.entries:
            return "rewritten"
        return "same" if tree.leaf == mark.leaf and stat.st_size == mark.size else "appended"

    def append(self, entries: Sequence[Mapping[str, Any]], *, final: bool) -> Appended:
        """
        Append *entries* with one write, and sync as `session.durability` says.

        Args:
            entries: complete, with ids and parents; all of them or none are written.
            final: the batch ends its turn, or is the question that begins it.

        Raises:
            LockLostError: our claim is gone.  Nothing was written.
            StoreError: nothing was written, unless ``landed`` says otherwise.
        """
        data, synced = jsonl.encode(entries), self._store.syncs(final=final)
        end = self._hold.append(data, sync=synced)
        return Appended(data, end, self._session.generation, synced)

    def release(self) -> None:
        """Give the write lock back.  Idempotent; never raises."""
        self._hold.release()


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
        raise BadTranscriptError(
            path=path, detail=f"cannot be read: {error.strerror}"
        ) from error
    try:
        tree = Tree()
        data = _read(fd, 0, fs.table.fstat(fd).st_size, path)
        tree.feed(jsonl.lines(data))
    finally:
        fs.close_fd(fd)
    _check_header(tree, path)
    return replace(tree)


def _check_header(tree: Tree, path: str) -> None:
    problem = None
    if tree.header is None:
        problem = "the session header is missing"
    elif tree.skipped and tree.skipped[0][0] == 0:
        problem = bad_header(None)
    else:
        problem = bad_header(tree.header)
    if problem is not None:
        raise BadTranscriptError(path=path, detail=problem, line=1)


def _continues(kept: _Loaded, fd: int, stat: os.stat_result) -> bool:
    if (kept.device, kept.inode) != (stat.st_dev, stat.st_ino) or stat.st_size < kept.end:
        return False
    start = kept.end - len(kept.tail)
    return fs.table.pread(fd, len(kept.tail), start) == kept.tail


def _read(fd: int, start: int, end: int, path: str) -> bytes:
    chunks = []
    try:
        while start < end:
            chunk = fs.table.pread(fd, end - start, start)
            if not chunk:
                break
            chunks.append(chunk)
            start += len(chunk)
    except OSError as error:
        if isinstance(error, IsADirectoryError):
            raise BadTranscriptError(path=path, detail="it is a directory") from error
        raise fs.store_error(error, path, "reading the transcript") from error
    return b"".join(chunks)
