"""What nobody needs any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.backends.memory import retention
from holdfast.backends.memory.two_ways import TwoWays

if TYPE_CHECKING:
    from holdfast.types import Trimmed

__all__ = ["Trimming"]


class Trimming(TwoWays):
    async def trim(self, kind: str, *, keep_days: int, after: str = "") -> Trimmed:
        return await self._write(
            lambda w: retention.trim(w, kind, keep_days, after), pokes=False
        )
