"""
A channel of simulated processes, and the world that it hands replies to.

It loses, refuses, is slow, hangs, and answers after the other side has it: what arrived is
remembered outside of all processes, by its key.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.ports.channels import Ambiguous, Reconciled
    from holdfast.testing._sim_world import World
    from holdfast.types import Delivery, Parcel

__all__ = ["CHANNEL", "SETTLED", "Receiver", "SimChannel"]

CHANNEL: Final = "sim"
SETTLED: Final = frozenset({"delivered", "failed"})
PART_CHARS: Final = 24  #: Longer replies go in several parts.

#: What comes of an attempt → how often.
MOODS: Final[Mapping[str, int]] = {
    "arrives": 70, "slow": 8, "busy": 6, "lost": 4, "unheard": 5, "hangs": 4, "gone": 3,
}  # fmt: skip


class Receiver:
    """Everybody that replies are delivered to.  It outlives every process."""

    def __init__(self, world: World, rows: Callable[[], Mapping[str, Delivery]]) -> None:
        self._world, self._rows = world, rows
        self.got: dict[tuple[str, str, int], str] = {}  #: (turn, kind, part) → its key.
        self._bodies: dict[str, bytes] = {}  #: By key.

    def receive(self, parcel: Parcel, owner_id: str) -> None:
        """One attempt has arrived."""
        part = (parcel.turn_id, parcel.kind, parcel.part)
        if self.got.setdefault(part, parcel.key) != parcel.key:
            self._world.fail(f"{part} arrived as {self.got[part]}, and as {parcel.key}")
        if self._bodies.setdefault(parcel.key, parcel.body) != parcel.body:
            self._world.fail(f"{part} arrived with two bodies")
        self._in_order(parcel, owner_id)

    def _in_order(self, parcel: Parcel, owner_id: str) -> None:
        """Whose attempt it is goes in the order of its target; a ghost's may come late."""
        rows = self._rows()
        mine = rows.get(parcel.key)
        if mine is None:
            self._world.fail(f"{parcel.key} arrived, and nobody owes it")
            return
        if (mine.state, mine.owner_id, mine.attempts) != (
            "attempting", owner_id, parcel.attempt,
        ):  # fmt: skip
            return
        for other in rows.values():
            ahead = other.target == mine.target and other.seq < mine.seq
            if ahead and other.state not in SETTLED:
                self._world.fail(
                    f"{parcel.key} arrived before {other.delivery_id}, {other.state}"
                )

    def look(self, before: Mapping[str, Delivery]) -> dict[str, Delivery]:
        """After a transaction.  Returns the rows as they are."""
        rows = dict(self._rows())
        if rows == before:
            return rows
        sending: set[str] = set()
        for key, row in rows.items():
            old = before.get(key)
            if row.state == "attempting":
                if row.target in sending:
                    self._world.fail(f"two parts go to {row.target} at once")
                sending.add(row.target)
            if old is None or old is row:
                continue
            if old.state in SETTLED and row.state != old.state:
                self._world.fail(f"{key} was {old.state}, and is {row.state}")
            if (old.body, old.seq) != (row.body, row.seq):
                self._world.fail(f"{key} was changed: {old} is now {row}")
        if len(rows) < len(before):
            self._world.fail(f"obligations are gone: {sorted(before.keys() - rows.keys())}")
        return rows

    def final(self) -> None:
        """In the end: nothing is owed, and what is called delivered has arrived."""
        for row in self._rows().values():
            if row.state not in SETTLED:
                self._world.fail(f"{row.delivery_id} is {row.state} in the end")
            arrived = (row.turn_id, row.kind, row.part) in self.got
            if row.state == "delivered" and not arrived:
                self._world.fail(f"{row.delivery_id} is delivered, and never arrived")


class SimChannel:
    """The `Channel` port, in one process."""

    name = CHANNEL
    part_chars_max = PART_CHARS
    timeout_s = 0.2

    def __init__(
        self, world: World, receiver: Receiver, owner_id: str, *,
        ambiguous: Ambiguous, reconciles: bool,
    ) -> None:  # fmt: skip
        self._world, self._receiver, self._owner_id = world, receiver, owner_id
        self.ambiguous: Ambiguous = ambiguous
        self.reconciles = reconciles

    async def deliver(self, parcel: Parcel) -> str | None:
        """By a drawn mood."""
        world = self._world
        mood = world.lots.choices(list(MOODS), list(MOODS.values()))[0]
        world.note(f"{world.process.name} delivers {parcel.key}, {parcel.attempt}: {mood}")
        match mood:
            case "slow":
                await asyncio.sleep(0.1)
            case "busy":
                raise DeliveryError(detail="simulated", reason="busy")
            case "gone":
                raise DeliveryError(detail="simulated", reason="gone", permanent=True)
            case "lost":
                raise DeliveryError(detail="simulated", reason="unanswered", landed=None)
            case "hangs":
                await self._hang()
        world.step("effect.deliver", ())
        self._receiver.receive(parcel, self._owner_id)
        world.step("effect.delivered", ())
        if mood == "unheard":
            await self._hang()
        return f"there-{parcel.key}"

    async def _hang(self) -> Any:
        await asyncio.sleep(self.timeout_s)
        raise DeliveryError(detail="simulated", reason="unanswered", landed=None)

    async def reconcile(self, parcel: Parcel) -> Reconciled:
        """What became of an earlier attempt, if this channel can tell."""
        await asyncio.sleep(0.01)
        if not self.reconciles:
            return "unknown"
        arrived = (parcel.turn_id, parcel.kind, parcel.part) in self._receiver.got
        return "delivered" if arrived else "not_delivered"

    async def aclose(self) -> None:
        """It keeps nothing open."""
