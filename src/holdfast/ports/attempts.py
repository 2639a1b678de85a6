"""What a lone attempt asks of the transcript it works on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from holdfast.ports.transcripts import HeldTranscript

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["AttemptFile", "HeldAlone"]


class HeldAlone(HeldTranscript, Protocol):
    """A transcript whose write lock a lone attempt holds."""

    def abort(self, reason: str) -> bool:
        """
        Take the lock from whoever uses it: no write begins any more.

        Returns:
            True: it is given back.  False: a write is under way, and gives it back.
        """
        ...


class AttemptFile(Protocol):
    """One transcript: its write lock, and the line of prompt windows in front of it."""

    @property
    def path(self) -> str: ...
    async def acquire(self, timeout_s: float) -> HeldAlone:
        """
        Take the write lock.

        Raises:
            LockWaitError: not within *timeout_s*.
            ClaimUnknownError: nobody can say whether our claim landed.
            StoreError: the medium failed, or this is no transcript.

        Cancellation:
            Safe; nothing stays held.
        """
        ...

    def join(self) -> bool:
        """Stand in the line of windows.  True: first.  Raises DeadlockError, StoreError."""
        ...

    async def wait(self, timeout_s: float) -> None:
        """Until we are first.  Raises OwnerWaitError, StoreError; then we are out of line."""
        ...

    def vacate(self) -> None:
        """Give the place up.  Idempotent; never raises."""
        ...

    def set_aside(self, entries: Sequence[Mapping[str, Any]]) -> str:
        """
        Keep *entries* beside a file that is no transcript any more, durably.

        Returns:
            The path of the file that has them.  Raises StoreError.
        """
        ...
