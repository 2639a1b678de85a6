"""
What stood in a file, as one number: SHA-256 of its first bytes, made off the event loop.

A digest is made from a descriptor of its own.  So it goes on reading the file that stood
there when it was asked for, whatever takes that file's place, and it never touches the
descriptor that carries the latch.
"""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from holdfast.backends.files import fs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Job", "later"]

CHUNK_BYTES: Final = 1024 * 1024

#: Who may touch: `_executor` and `_generation` under `_guard` only.
_guard = threading.Lock()
_executor: ThreadPoolExecutor | None = None
_generation = -1


class Job:
    """A digest in the making.  Owns its descriptor."""

    def __init__(
        self,
        fd: int,
        end: int,
        still: Callable[[os.stat_result], bool],
        after: Job | None = None,
    ) -> None:
        """
        Args:
            fd: from `fs.open_fd`; closed when the job is over.
            end: how many bytes, from the beginning.
            still: asked at the end, of the file's `fstat`; False: it was changed meanwhile.
            after: an earlier job on the same file; what it has hashed is not read again.
        """
        self._fd, self._still, self._after = fd, still, after
        self.end = end
        self._stopped = threading.Event()
        self.made: Future[hashlib._Hash | None] = Future()

    def stop(self) -> None:
        """Nobody wants to know any more.  Idempotent; any thread."""
        self._stopped.set()

    def run(self) -> None:
        """In a worker thread.  The result is None if it cannot be known."""
        wanted, sha = self.made.set_running_or_notify_cancel(), None
        try:
            sha = self._read() if wanted else None
        except OSError:
            sha = None  # Not known: what depends on it is decided as if it had changed.
        finally:
            fs.close_quietly(self._fd)
            if wanted:
                self.made.set_result(sha)

    def _read(self) -> hashlib._Hash | None:
        sha, at = self._begun()
        while at < self.end:
            chunk = fs.table.pread(self._fd, min(CHUNK_BYTES, self.end - at), at)
            if not chunk or self._stopped.is_set():
                return None
            sha.update(chunk)
            at += len(chunk)
        return sha if self._still(fs.table.fstat(self._fd)) else None

    def _begun(self) -> tuple[hashlib._Hash, int]:
        """Jobs of one process run one after the other: an earlier one is over by now."""
        after, self._after = self._after, None
        if after is not None and after.end <= self.end and after.made.done():
            sha = None if after.made.cancelled() else after.made.result()
            if sha is not None:
                return sha.copy(), after.end
        return hashlib.sha256(), 0


def later(
    path: str,
    end: int,
    still: Callable[[os.stat_result], bool],
    *,
    after: Job | None = None,
) -> Job | None:
    """
    Start hashing the first *end* bytes of the file that stands at *path* now.

    Costs one open and a hand-over to the one worker thread; None: it cannot be opened.
    """
    try:
        fd = fs.open_fd(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return None
    job = Job(fd, end, still, after)
    try:
        _worker().submit(job.run)
    except RuntimeError:  # The interpreter is going down.
        fs.close_quietly(fd)
        return None
    return job


def _worker() -> ThreadPoolExecutor:
    """One thread a process; a forked child gets its own."""
    global _executor, _generation  # noqa: PLW0603
    with _guard:
        if _executor is None or _generation != fs.fork_generation():
            _executor = ThreadPoolExecutor(1, thread_name_prefix="holdfast-digest")
            _generation = fs.fork_generation()
        return _executor
