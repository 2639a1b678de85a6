"""Owners (processes) and runners: who is there, who can run what.  Transaction bodies."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from holdfast._core.turns import State
from holdfast.backends.memory.leases import heads
from holdfast.backends.memory.rows import change
from holdfast.backends.memory.world import OwnerRow
from holdfast.errors import UnavailableError
from holdfast.types import FencingToken, Look, Standing

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast.backends.memory.world import World
    from holdfast.types import Owner, OwnerId

__all__ = [
    "beat",
    "bury",
    "leave",
    "look",
    "permanent_runners",
    "register",
    "register_runner",
    "set_draining",
    "trim_events",
]

EVENTS_SLICE: Final = 500


def register(world: World, owner: Owner) -> None:
    world.owners.setdefault(owner.owner_id, OwnerRow(owner))


def register_runner(
    world: World, owner_id: OwnerId, agents: Collection[str], *, permanent: bool
) -> None:
    row = world.owners.get(owner_id)
    if row is None:  # Buried meanwhile; it registers anew when its beat says so.
        raise UnavailableError(path="memory:", detail=f"owner {owner_id} is not registered")
    world.agents.update(agents)
    row.agents.update(dict.fromkeys(agents, permanent))


def permanent_runners(world: World, agent_id: str) -> list[Owner]:
    """Those registered; a dead one stays so until it is buried."""
    return [
        row.owner
        for row in world.owners.values()
        if row.agents.get(agent_id) and not row.draining
    ]


def beat(world: World, owner_id: OwnerId) -> bool:
    """Say that we are here.  False: somebody has buried us; every lease of ours is gone."""
    row = world.owners.get(owner_id)
    if row is not None:
        row.beat += 1
    return row is not None


def set_draining(world: World, owner_id: OwnerId) -> None:
    """Take no new turn; let others adopt what waits for us."""
    if (row := world.owners.get(owner_id)) is not None:
        row.draining = True
    _let_go(world, owner_id)


def leave(world: World, owner_id: OwnerId) -> None:
    """Our own orderly end.  Leases must be given back before."""
    _let_go(world, owner_id)
    world.owners.pop(owner_id, None)


def bury(world: World, owner_id: OwnerId, reason: str) -> bool:
    """Forget an owner that is dead or silent.  Its leases must have been moved before."""
    _let_go(world, owner_id)
    row = world.owners.pop(owner_id, None)
    if row is not None:
        world.event("buried", None, None, owner_id, reason=reason)
    return row is not None


def _let_go(world: World, owner_id: OwnerId) -> None:
    for room in world.rooms.values():
        for turn_id in room.waiting:
            turn = world.turns[turn_id]
            if turn.home == owner_id and not turn.bound:
                change(world, turn_id, home=None)


def look(world: World, owner_id: OwnerId) -> Look:
    """Everything that is held, and by whom.  *owner_id*: who is looking."""
    owners = tuple((row.owner, row.beat) for row in world.owners.values())
    leases = tuple(
        Standing(
            lease.session_id, lease.turn_id, FencingToken(lease.token), lease.owner_id,
            lease.recovering,
        )
        for lease in world.leases.values()
    )  # fmt: skip
    waiting = (world.turns[each] for room in world.rooms.values() for each in room.waiting)
    orphans = tuple(
        (turn.turn_id, turn.home)
        for turn in waiting
        if turn.bound and turn.home is not None and turn.state == State.ACCEPTED.value
    )
    foreign = tuple(
        turn.turn_id
        for turn in heads(world)
        if not turn.bound and turn.home is not None and turn.home != owner_id
    )
    return Look(owners, leases, orphans, foreign)


def trim_events(world: World, keep: int) -> int:
    """Remove one slice of the oldest events beyond *keep*; returns how many went."""
    newest = next(reversed(world.events), 0)
    old = [
        event_id for event_id in islice(world.events, EVENTS_SLICE) if event_id <= newest - keep
    ]
    for event_id in old:
        del world.events[event_id]
    return len(old)
