"""What the runtime asks of one state directory or database."""

from __future__ import annotations

from enum import Flag, auto
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from holdfast.ports.control import ControlStore
    from holdfast.ports.transcripts import LiveOutput, Transcripts
    from holdfast.types import (
        HoldStatistics,
        Owner,
    )

__all__ = [
    "Guarantees",
    "Store",
]


class Guarantees(Flag):
    """What a store can promise beyond the semantics that all stores share."""

    NONE = 0
    #: Whoever has the write lock is the only writer, and sees at once who holds the lease:
    #: an append by an old token is refused, whatever its process went through.
    FENCES_APPENDS = auto()
    #: `is_dead` can be True: an owner whose process is gone is replaced at once, without
    #: waiting for its lease to run out.
    PROVES_DEATH = auto()
    #: A `watch` is told of every change that somebody may wait for; polling behind it finds
    #: nothing that it missed.
    WAKES_WAITERS = auto()


class Store(Protocol):
    """One state directory or database, opened by one process."""

    @property
    def where(self) -> str: ...
    @property
    def owner(self) -> Owner:
        """This process, as others see it."""
        ...

    @property
    def guarantees(self) -> Guarantees: ...
    @property
    def control(self) -> ControlStore: ...
    @property
    def transcripts(self) -> Transcripts: ...
    @property
    def live(self) -> LiveOutput: ...
    def secret(self, name: str) -> tuple[str, bool]:
        """
        A random secret of this store, the same for all who ask, made by the first.

        Returns:
            The secret, and whether this call made it.
        """
        ...

    def hold_statistics(self) -> HoldStatistics:
        """The write locks of this process."""
        ...

    def is_dead(self, other: Owner) -> bool:
        """Proof of death, not suspicion.  False also means: cannot be known from here."""
        ...

    def locks(self) -> list[dict[str, Any]]:
        """
        Every write lock that can be seen from outside a process, as `holdfast locks list
        --json` tells them.  Takes none.  Walks the store: call it in a thread.

        Raises:
            StoreError: the store cannot be read.
        """
        ...

    def frozen_holder(self) -> str | None:
        """
        Who is stopped while it holds the store against every writer, as one line for the log.

        None: nobody; or there can be no such thing here; or nobody can tell.  One look, a few
        microseconds; any thread.
        """
        ...

    async def close(self) -> None: ...
