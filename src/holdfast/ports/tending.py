"""What the commands that tend transcripts ask of a store that keeps them in files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from holdfast.types.tending import Deleted, Imported, Repaired

__all__ = ["Tending"]


class Tending(Protocol):
    """
    Repairing, bringing in and taking away whole transcripts.

    Not a part of `Store`: a memory or a database store has no files to tend.  Every method
    blocks its thread, and none may be called on an event loop that serves anybody else.
    """

    def repair(self, path: str, *, timeout_s: float) -> Repaired:
        """
        Make the damaged transcript at *path* one that may be appended to again.

        Raises:
            LockWaitError: the write lock was not had within *timeout_s*.
            TakeoverError: somebody changed the file all the same; nothing was changed.
            BadTranscriptError: not a file, or of a format version that we do not know.
            StoreError: the medium failed; the file is the old one or the new one, whole,
                and the new one only if the copy of the old one stands.
        """
        ...

    def bring(self, path: str, key: str | None) -> Imported:
        """
        A new session with the transcript at *path*, or nothing.

        Raises:
            BadRequestError: the key has a conversation already.
            BadTranscriptError: damaged; names the line.
            LockStaleError: another program writes it at this moment.
        """
        ...

    def delete(self, key: str, *, purge: bool, timeout_s: float) -> Deleted:
        """
        Take the session of *key* away.  A message sent from now on finds a new session.

        Raises:
            SessionBusyError: a turn runs or waits; nothing was changed.
            LockWaitError: the write lock was not had within *timeout_s*.
        """
        ...
