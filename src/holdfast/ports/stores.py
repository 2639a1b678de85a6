"""What the runtime asks of one state directory or database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from holdfast.ports.control import ControlStore
    from holdfast.ports.transcripts import LiveOutput, Transcripts
    from holdfast.types import (
        HoldStatistics,
        Owner,
    )

__all__ = [
    "Store",
]


class Store(Protocol):
    """One state directory or database, opened by one process."""

    @property
    def where(self) -> str: ...
    @property
    def owner(self) -> Owner:
        """This process, as others see it."""
        ...

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

    async def close(self) -> None: ...
