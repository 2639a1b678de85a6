"""One owner's access to a world: what a process has open of a store."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.frozen import Verdict, What
from holdfast.backends.memory.control import MemoryControl
from holdfast.backends.memory.live import MemoryLive
from holdfast.backends.memory.transcripts import MemoryTranscripts
from holdfast.backends.memory.world import World
from holdfast.ports import Guarantees
from holdfast.types import Around, Owner, OwnerId

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast._core.settings import Settings
    from holdfast.types import FrozenHolder, HoldStatistics, Session

__all__ = ["MemoryStore", "open_named"]

SECRET_BYTES: Final = 32


class MemoryStore:
    """
    The `Store` port on a `World`.

    Several of them over one world behave like several processes with one store between
    them.  Each is its own owner.  Closed, or killed (`World.kill`), it is proven dead for
    the others, and whatever it is still asked for raises UnavailableError.

    Args:
        settings: taken for the sake of one signature for all stores; memory needs none:
            nothing in it is synced, and `session.durability` has nothing to say.
    """

    def __init__(
        self,
        world: World,
        settings: Settings,  # noqa: ARG002  See above.
        *,
        where: str = "memory:",
    ) -> None:
        self.where = where
        self.world = world
        self.owner = Owner(
            OwnerId(world.new_id()), os.getpid(), 0, "memory", 0, socket.gethostname()
        )
        self.control = MemoryControl(world, self.owner.owner_id)
        self.transcripts = MemoryTranscripts(
            world, self.owner.owner_id, self.control.check_open
        )
        self.live = MemoryLive(world, self.owner.owner_id)

    @property
    def guarantees(self) -> Guarantees:
        return Guarantees.FENCES_APPENDS | Guarantees.WAKES_WAITERS

    def secret(self, name: str) -> tuple[str, bool]:
        """A random secret of this world, made by the first who asks."""
        with self.world.mutex:
            made = name not in self.world.secrets
            if made:
                self.world.secrets[name] = secrets.token_urlsafe(SECRET_BYTES)
            return self.world.secrets[name], made

    def hold_statistics(self) -> HoldStatistics:
        """The write locks of this owner."""
        return self.transcripts.statistics()

    def is_dead(self, other: Owner) -> bool:
        """Whether *other* was closed or killed.  False for one we know nothing of."""
        return other.owner_id in self.world.gone

    def locks(self) -> list[dict[str, Any]]:
        return []  # They are this program's own, and gone with it: nobody is outside.

    def around(self, session: Session, owners: Collection[Owner]) -> Around:  # noqa: ARG002
        """Who is closed or killed is dead; files, and who stops, there are none."""
        gone = self.world.gone
        lives = {o.owner_id: "dead" if o.owner_id in gone else "alive" for o in owners}
        return Around(lives)

    def frozen(self, owners: Collection[Owner]) -> list[FrozenHolder]:  # noqa: ARG002
        return []  # Who is stopped here is the whole program.

    def end_frozen(
        self,
        holder: FrozenHolder,  # noqa: ARG002
        owners: Collection[Owner],  # noqa: ARG002
        stopped_ms: int,  # noqa: ARG002
    ) -> Verdict:
        return Verdict(What.NOTHING, "unknown")

    async def close(self) -> None:
        """Let go of everything; see the class.  Idempotent."""
        await self.control.close()
        _forget(self)


# ------------------------------------------------------------------------- worlds by name

# Who may touch: under `_mutex` only.  A world is forgotten with the last store on it.
_mutex = threading.Lock()
_named: dict[str, tuple[World, set[OwnerId]]] = {}


def open_named(name: str, settings: Settings) -> MemoryStore:
    """
    A store on the world of that *name* in this process; without a name, on one of its own.

    The world is there for as long as a store on it is open.
    """
    if not name:
        return MemoryStore(World(), settings)
    with _mutex:
        world, open_ones = _named.setdefault(name, (World(), set()))
        store = MemoryStore(world, settings, where=f"memory:{name}")
        open_ones.add(store.owner.owner_id)
        return store


def _forget(store: MemoryStore) -> None:
    name = store.where.partition(":")[2]
    with _mutex:
        world, open_ones = _named.get(name, (None, set()))
        if world is store.world:
            open_ones.discard(store.owner.owner_id)
            if not open_ones:
                del _named[name]
