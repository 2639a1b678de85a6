"""
The control store in memory.  A transaction is one block under the world's mutex.

Every write gives the loop one turn first, as a store with a disk does: no task that talks to
its store without end can starve the others, and who is cancelled there has done nothing.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, TypeVar

from holdfast.errors import ForkedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.backends.memory.world import World
    from holdfast.errors import HoldfastError
    from holdfast.types import OwnerId

__all__ = ["TwoWays"]

T = TypeVar("T")


class TwoWays:
    """A `World`, for one owner.  Usable from any loop or thread."""

    def __init__(self, world: World, owner_id: OwnerId) -> None:
        self._world, self._owner_id = world, owner_id
        self._pid = os.getpid()

    async def close(self) -> None:
        """Nothing of this owner goes on.  Idempotent."""
        self._world.kill(self._owner_id)

    def watch(self, told: Callable[[], object]) -> Callable[[], None]:
        """Call *told* on this event loop after each change of the rows."""
        self.check_open()
        return self._world.watch(self._owner_id, told)

    def check_open(self) -> None:
        """Raises UnavailableError once this owner was closed or killed; ForkedError."""
        if os.getpid() != self._pid:
            raise ForkedError(what="this open store")
        if self._owner_id in self._world.gone:
            raise UnavailableError(path="memory:", detail="the store is closed")

    @property
    def outgrown(self) -> HoldfastError | None:
        return None

    # -------------------------------------------------------------------- the two ways

    async def _write(self, run: Callable[[World], T], *, pokes: bool = True) -> T:
        await asyncio.sleep(0)
        done = self._read(run)
        if pokes:
            self._world.poke()
        return done

    def _read(self, run: Callable[[World], T]) -> T:
        with self._world.mutex:
            self.check_open()
            return run(self._world)
