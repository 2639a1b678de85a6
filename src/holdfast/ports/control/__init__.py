"""What the runtime asks of the rows that coordinate, by subject."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from holdfast.ports.control.admitting import Admitting
from holdfast.ports.control.delivering import Delivering
from holdfast.ports.control.leasing import Leasing
from holdfast.ports.control.looking import Looking
from holdfast.ports.control.making import Making
from holdfast.ports.control.owning import Owning
from holdfast.ports.control.telling import Telling
from holdfast.ports.control.trimming import Trimming

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.errors import HoldfastError

__all__ = ["ControlStore"]


class ControlStore(
    Owning, Admitting, Leasing, Making, Delivering, Looking, Telling, Trimming, Protocol
):
    """
    The rows that coordinate.

    Authority: the store issues admission numbers and fencing tokens, and nobody else does.
    A token never repeats and never goes back, not even after its lease has ended.
    """

    @property
    def outgrown(self) -> HoldfastError | None:
        """
        A newer Holdfast has migrated this store under us; None: not that we know.

        Nothing new is begun here from then on: `admit`, `pick` and `reset` raise it.  What
        runs may end.
        """
        ...

    async def close(self) -> None: ...
    def watch(self, told: Callable[[], object]) -> Callable[[], None]:
        """
        Hint *told* (on the running loop) when others commit.  If it answers False nobody cares
        now, and the next hint may be some milliseconds late.  Returns: stops watching.
        """
        ...
