"""What happened and what stands, for people.  Each function is one consistent look."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final

from holdfast._core import delivery
from holdfast.backends.memory.places import place
from holdfast.backends.memory.queries import PAGE
from holdfast.backends.memory.rows import fetch_room
from holdfast.types import EventRow, FencingToken, Holder, LaneState, Owed, Waiting, Why

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from holdfast._core.settings import Lane
    from holdfast.backends.memory.world import Lease, Room, World
    from holdfast.types import Delivery, SessionId, Turn

__all__ = ["events", "holders", "lanes", "newest_event", "why"]

WAITING_MAX: Final = 100  #: Of each lane of a session; the rest is counted.
OWED_MAX: Final = 50


def events(
    world: World,
    after: int,
    *,
    kinds: Collection[str] = (),
    session_id: SessionId | None = None,
    limit: int = PAGE,
) -> list[EventRow]:
    """A page of events behind number *after*, oldest first."""
    found = (
        EventRow(**row)
        for event_id, row in world.events.items()
        if event_id > after
        and (not kinds or row["kind"] in kinds)
        and (session_id is None or row["session_id"] == session_id)
    )
    return list(islice(found, min(limit, PAGE)))


def newest_event(world: World) -> int:
    return next(reversed(world.events), 0)


def lanes(world: World, known: Mapping[str, Lane]) -> list[LaneState]:
    """Every lane of *known*, and every other that has a turn."""
    running = Counter([*world.slots.values(), *world.wanted.values()])
    waiting = Counter[str]()
    first: dict[str, Turn] = {}
    for room in world.rooms.values():
        waiting.update(world.turns[turn_id].lane for turn_id in room.waiting)
        for lane, queue in room.queues.items():
            if queue and (lane not in first or queue[0][0] < first[lane].admission):
                first[lane] = world.turns[queue[0][1]]
    now_ms = world.clock_ms()
    found = []
    for lane in [*known, *sorted((running.keys() | waiting.keys()) - known.keys())]:
        told, oldest = known.get(lane), first.get(lane)
        found.append(
            LaneState(
                lane, told.concurrency if told else 0, told.priority if told else 0,
                running[lane], waiting[lane], oldest.accepted_at if oldest else None,
                max(0, now_ms - oldest.accepted_ms) if oldest else 0,
            )
        )  # fmt: skip
    return found


def why(world: World, session_id: SessionId, known: Mapping[str, Lane]) -> Why:
    """Who holds a session, who waits for it and for what."""
    room = fetch_room(world, session_id)
    lease = world.leases.get(session_id)
    waiting = [Waiting(t, place(world, t.turn_id, known)) for t in _first(world, room, lease)]
    waiting.sort(key=lambda w: (w.turn.host is not None, w.place.position, w.turn.admission))
    runners = [
        (row.owner, row.agents[room.session.agent_id])
        for row in world.owners.values()
        if room.session.agent_id in row.agents and not row.draining
    ]
    owed = [
        each
        for each in world.deliveries.values()
        if each.session_id == session_id and not delivery.terminal(each.state)
    ]
    deliveries = tuple(_owed(world, each) for each in owed[:OWED_MAX])
    senders = sorted({each.owner_id for each in deliveries if each.owner_id is not None})
    return Why(
        session=room.session,
        keys=tuple(sorted(room.keys)),
        holder=None if lease is None else _holder(world, lease),
        waiting=tuple(waiting),
        waiting_count=len(room.waiting),
        runners=tuple(sorted(runners, key=lambda one: (not one[1], one[0].owner_id))),
        owed=len(owed),
        deliveries=deliveries,
        senders=tuple(world.owners[each].owner for each in senders if each in world.owners),
    )


def _first(world: World, room: Room, lease: Lease | None) -> list[Turn]:
    """The first that wait in each lane of a session, and those merged into any of them."""
    found = [each for queue in room.queues.values() for each in queue[:WAITING_MAX]]
    hosts = [turn_id for _, turn_id in found] + ([] if lease is None else [lease.turn_id])
    found += [each for host in hosts for each in world.guests.get(host, [])[:WAITING_MAX]]
    return [world.turns[turn_id] for _, turn_id in found]


def holders(world: World) -> list[Holder]:
    """Every lease that is held, longest first."""
    held = sorted(world.leases.values(), key=lambda lease: lease.taken_at)
    return [_holder(world, lease) for lease in held[:PAGE]]


def _holder(world: World, lease: Lease) -> Holder:
    row = world.owners.get(lease.owner_id)
    return Holder(
        turn=world.turns[lease.turn_id],
        token=FencingToken(lease.token),
        owner=None if row is None else row.owner,
        since=lease.taken_at,
        effective=lease.effective,
        recovering=lease.recovering,
        progress=dict(lease.progress),
    )


def _owed(world: World, each: Delivery) -> Owed:
    before = (
        world.deliveries[delivery_id]
        for seq, delivery_id in sorted(world.owed.get(each.target, {}).items())
        if seq < each.seq
    )
    ahead = next((other.delivery_id for other in before if not other.overtaken), None)
    return Owed(
        each.delivery_id, each.turn_id, each.target, each.state, each.part, each.parts,
        each.attempts, max(0, each.not_before_ms - world.clock_ms()), ahead, each.owner_id,
        each.reason, each.created_at,
    )  # fmt: skip
