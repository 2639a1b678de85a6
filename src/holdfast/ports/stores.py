"""What the runtime asks of one state directory or database."""

from __future__ import annotations

from enum import Flag, auto
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast._core.frozen import Verdict
    from holdfast.ports.control import ControlStore
    from holdfast.ports.transcripts import LiveOutput, Transcripts
    from holdfast.types import (
        Around,
        FrozenHolder,
        HoldStatistics,
        Owner,
        Session,
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

    def around(self, session: Session, owners: Collection[Owner]) -> Around:
        """
        What stands around a session beyond its rows; *owners*: whose life is asked for.

        Takes nothing, changes nothing.  Blocks for up to 0.1 s: call it in a thread.
        """
        ...

    def frozen(self, owners: Collection[Owner]) -> list[FrozenHolder]:
        """
        Who is stopped while it holds the store against every writer, and who of *owners* is
        while it holds a write lock.

        Empty: nobody; or there can be no such thing here; or nobody can tell.  One look, some
        microseconds an owner; any thread.
        """
        ...

    def end_frozen(
        self, holder: FrozenHolder, owners: Collection[Owner], stopped_ms: int
    ) -> Verdict:
        """
        Do about *holder* what `_core.frozen` says, with all facts read anew.

        Args:
            owners: those registered, as read just now.
            stopped_ms: for how long it has been seen so.

        Returns:
            What it said.  KILL: it was.
        """
        ...

    async def close(self) -> None: ...
