"""What nobody needs any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from holdfast.types import Trimmed

__all__ = ["Trimming"]


class Trimming(Protocol):
    """What nobody needs any more; the rules are in `_core/retention.py`."""

    async def trim(self, kind: str, *, keep_days: int, after: str = "") -> Trimmed:
        """
        Remove one slice of what is over: a transaction of 5 ms or less.

        Args:
            kind: one of `retention.KINDS`.
            keep_days: how long an ended turn is kept.
            after: go on behind this, which the last slice gave.
        """
        ...
