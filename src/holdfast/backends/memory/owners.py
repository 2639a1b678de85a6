"""Owners (processes) and runners: who is there, who can run what.  Transaction bodies."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.turns import State
from holdfast.backends.memory.deliveries import disown
from holdfast.backends.memory.order import heads
from holdfast.backends.memory.rows import change
from holdfast.backends.memory.world import OwnerRow
from holdfast.errors import UnavailableError
from holdfast.types import FencingToken, Look, Standing, Vouched
from holdfast.types.tending import Commitment

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from holdfast.backends.memory.world import Lease, World
    from holdfast.types import Owner, OwnerId, SessionId, Turn, TurnId

__all__ = [
    "beat",
    "bury",
    "commits",
    "hand_on",
    "leave",
    "look",
    "permanent_runners",
    "register",
    "register_runner",
    "restored",
    "set_draining",
    "trim_events",
    "vouched",
]

EVENTS_SLICE: Final = 500
VOUCHED_SLICE: Final = 2_000


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


def hand_on(world: World, turn: Turn, owner_id: OwnerId | None) -> Turn:
    """
    Make somebody else than *owner_id*, who let go of *turn*, its home, if anybody can run it.

    First those that stay; other runners run only the session in which they wait themselves.
    """
    waiting = (world.turns[each] for each in world.rooms[turn.session_id].waiting)
    homes = {each.home for each in waiting}
    others = [
        (not row.agents[turn.agent_id], other)
        for other, row in world.owners.items()
        if turn.agent_id in row.agents
        and other != owner_id
        and not row.draining
        and (row.agents[turn.agent_id] or other in homes)
    ]
    return change(world, turn.turn_id, home=min(others)[1]) if others else turn


def beat(
    world: World,
    owner_id: OwnerId,
    progress: Mapping[TurnId, Mapping[str, Any]] | None = None,
) -> bool:
    """Say that we are here.  False: somebody has buried us; every lease of ours is gone."""
    row = world.owners.get(owner_id)
    for lease in world.leases.values() if progress else ():
        if lease.owner_id == owner_id and progress and lease.turn_id in progress:
            lease.progress = dict(progress[lease.turn_id])
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
    disown(world, owner_id)
    world.owners.pop(owner_id, None)


def bury(world: World, owner_id: OwnerId, reason: str) -> bool:
    """Forget an owner that is dead or silent.  Its leases must have been moved before."""
    _let_go(world, owner_id)
    disown(world, owner_id)
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
    leases = tuple(_standing(world, lease) for lease in world.leases.values())
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


def restored(
    world: World,
    session_id: SessionId,
    was: int,
    end_offset: int,
    moved: Mapping[TurnId, int],
    told: Mapping[str, Any],
) -> None:
    """A transcript that was cut is whole again: its rows say where things stand now."""
    for turn_id, end in moved.items():
        world.beside[turn_id].end_offset = end
    room = world.rooms[session_id]
    if room.session.end_offset == was:
        room.session = replace(room.session, end_offset=end_offset)
    world.event("restored", session_id, None, None, **told)


def _standing(world: World, lease: Lease) -> Standing:
    asked_ms = world.turns[lease.turn_id].abort_at_ms
    return Standing(
        lease.session_id, lease.turn_id, FencingToken(lease.token), lease.owner_id,
        lease.recovering, None if asked_ms is None else world.clock_ms() - asked_ms,
    )  # fmt: skip


def trim_events(world: World, keep: int) -> int:
    """Remove one slice of the oldest events beyond *keep*; returns how many went."""
    newest = next(reversed(world.events), 0)
    old = [
        event_id for event_id in islice(world.events, EVENTS_SLICE) if event_id <= newest - keep
    ]
    for event_id in old:
        del world.events[event_id]
    return len(old)


def vouched(world: World, after: SessionId | None) -> list[Vouched]:
    """A page of sessions that a commit has vouched for."""
    found = sorted(
        room.session.session_id
        for room in world.rooms.values()
        if room.session.end_offset and room.session.session_id > (after or "")
    )
    return [
        Vouched(each.session_id, each.transcript, each.generation, each.end_offset)
        for each in (world.rooms[each].session for each in found[:VOUCHED_SLICE])
    ]


def commits(world: World, session_id: SessionId) -> list[Commitment]:
    """The commits of a session, of the generation it has now, by offset."""
    room, found = world.rooms[session_id], list[Commitment]()
    for turn_id in room.turns:
        turn, beside = world.turns[turn_id], world.beside[turn_id]
        if turn.final_entry is None or beside.generation != room.session.generation:
            continue
        found.append(
            Commitment(
                turn_id, turn.final_entry, beside.end_offset, beside.generation, beside.entries
            )
        )
    return sorted(found, key=lambda each: each.end_offset or 0)
