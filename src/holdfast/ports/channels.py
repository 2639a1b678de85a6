"""What the runtime asks of a channel: somewhere that committed replies are handed to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from holdfast.types import Parcel

__all__ = ["Ambiguous", "Channel", "Reconciled"]

#: What is done about a part of which nobody can tell whether it arrived.
Ambiguous = Literal["resend", "give_up"]
#: What a channel found out about an earlier attempt.
Reconciled = Literal["delivered", "not_delivered", "unknown"]


@runtime_checkable
class Channel(Protocol):
    """
    Somewhere to deliver to.  Loop-bound; several deliveries, to different addresses, go on at
    once.
    """

    @property
    def name(self) -> str:
        """What stands before the colon of a target: ``[a-z][a-z0-9_-]{0,63}``."""
        ...

    @property
    def part_chars_max(self) -> int:
        """The longest part that it takes, in characters."""
        ...

    @property
    def ambiguous(self) -> Ambiguous:
        """
        ``resend``: sent again under the same key, so a receiver that does not know keys may
        have it twice.  ``give_up``: not sent again, so it may never have arrived.
        """
        ...

    @property
    def timeout_s(self) -> float:
        """
        How long one `deliver` or `reconcile` may take.  Who is not back by then is cancelled,
        and whether the part arrived is unknown.
        """
        ...

    @property
    def reconciles(self) -> bool:
        """Whether `reconcile` can ever tell more than ``unknown``."""
        ...

    async def deliver(self, parcel: Parcel) -> str | None:
        """
        Hand over one part: ``parcel.body`` or ``parcel.text``, under ``parcel.key``.

        Returns:
            What the other side calls it, if it calls it anything.  It has arrived.

        Raises:
            DeliveryError: ``landed`` False: it did not arrive, whatever happens now;
                ``landed`` None: it may have arrived.  ``permanent``: it never will.

        Cancellation:
            Safe; whether it arrived is unknown then.

        Rules:
            No retries inside: the runtime already does, by the table of `_core.delivery`.
        """
        ...

    async def reconcile(self, parcel: Parcel) -> Reconciled:
        """
        What became of an earlier attempt at *parcel* that nobody saw the end of.

        Raises:
            DeliveryError: it cannot be asked now.

        Cancellation:
            Safe.
        """
        ...

    async def aclose(self) -> None:
        """Close what it keeps open.  Idempotent."""
        ...
