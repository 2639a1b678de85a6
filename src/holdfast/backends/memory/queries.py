"""Reading.  Each function is one consistent look; lists come in pages, as they do on files."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from holdfast.backends.memory.order import heads
from holdfast.backends.memory.places import place
from holdfast.backends.memory.rows import fetch_room
from holdfast.errors import NotFoundError
from holdfast.types import Counts, FencingToken, Pulse, TurnState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from holdfast._core.settings import Lane
    from holdfast.backends.memory.world import Room, World
    from holdfast.types import OwnerId, Session, SessionId, Turn, TurnId

__all__ = [
    "aborts",
    "counts",
    "ended",
    "has_heads",
    "is_head",
    "newest_token",
    "pulses",
    "session_facts",
    "session_of_key",
    "sessions",
    "turn_states",
    "turns",
]

PAGE: Final = 500  #: Rows a page.


def newest_token(world: World, session_id: SessionId) -> tuple[int, str] | None:
    """(token, owner) of the session's lease as it stands."""
    lease = world.leases.get(session_id)
    return None if lease is None else (FencingToken(lease.token), lease.owner_id)


def has_heads(
    world: World,
    agents: Collection[str],
    session_id: SessionId | None,
    me: OwnerId | None = None,
) -> bool:
    """
    Whether an idle session, or *session_id* alone, has a head that *agents* may run; less
    those whose home, other than *me*, is alive to start them.
    """
    live = {each for each, row in world.owners.items() if not row.draining}
    others = live - {me} if me is not None else set()
    return any(
        turn.agent_id in agents and not turn.bound and turn.home not in others
        for turn in heads(world, session_id)
    )


def is_head(world: World, turn_id: TurnId) -> bool:
    turn = world.turns.get(turn_id)
    found = [] if turn is None else heads(world, turn.session_id)
    return any(each.turn_id == turn_id for each in found)


def session_of_key(world: World, key: str) -> Session:
    session_id = world.keys.get(world.aliases.get(key, key))
    if session_id is None:
        raise NotFoundError(what="session", name=key[:80])
    return fetch_room(world, session_id).session


def sessions(
    world: World, after: str = "", *, newest_first: bool = False
) -> list[tuple[Session, dict[str, Any]]]:
    """
    A page of sessions by id, each with its keys, its counts and who runs it.

    Ids are in the order of creation; *after* is the last one seen.
    """
    order = sorted(world.rooms, reverse=newest_first)
    if after:
        order = [each for each in order if (each < after if newest_first else each > after)]
    return [
        (
            room.session,
            {
                "keys": json.dumps(room.keys),
                "turns": len(room.turns),
                "waiting": len(room.waiting),
                "running": _running(world, room),
            },
        )
        for room in (world.rooms[each] for each in order[:PAGE])
    ]


def turns(
    world: World,
    *,
    session_id: SessionId | None = None,
    state: str | None = None,
    after: int = 0,
) -> list[Turn]:
    """A page of turns in admission order."""
    if session_id is None:
        each: Iterable[Turn] = world.turns.values()
    else:
        room = world.rooms.get(session_id)
        each = [] if room is None else (world.turns[turn_id] for turn_id in room.turns)
    found = (t for t in each if t.admission > after and (state is None or t.state == state))
    return list(islice(found, PAGE))


def ended(world: World, turn_ids: Iterable[TurnId]) -> list[Turn]:
    """Those of *turn_ids* that have their outcome."""
    found = (world.turns.get(turn_id) for turn_id in turn_ids)
    return [turn for turn in found if turn is not None and turn.ended]


def aborts(world: World, owner_id: OwnerId) -> dict[TurnId, str]:
    """Turns that this owner runs and somebody wants ended."""
    running = (world.turns[turn_id] for turn_id in world.running)
    mine = [t for t in running if t.owner_id == owner_id and t.abort_requested]
    mine.sort(key=lambda turn: turn.admission)
    return {turn.turn_id: turn.abort_reason or "cancelled" for turn in mine}


def turn_states(
    world: World, turn_ids: Iterable[TurnId], lanes: Mapping[str, Lane]
) -> dict[TurnId, TurnState]:
    """State and place of each of *turn_ids*.  One that is not there is left out."""
    found = (world.turns.get(turn_id) for turn_id in turn_ids)
    return {
        turn.turn_id: TurnState(turn.state, turn.outcome, place(world, turn.turn_id, lanes))
        for turn in found
        if turn is not None
    }


def pulses(world: World, session_ids: Iterable[SessionId]) -> dict[SessionId, Pulse]:
    """What goes on in each of *session_ids*."""
    found = (world.rooms.get(session_id) for session_id in session_ids)
    return {
        room.session.session_id: Pulse(
            _running(world, room), len(room.waiting), room.session.generation
        )
        for room in found
        if room is not None
    }


def counts(world: World) -> Counts:
    """The whole store in numbers."""
    waiting = sum(len(room.waiting) for room in world.rooms.values())
    return Counts(waiting, len(world.running), len(world.leases), len(world.rooms))


def session_facts(world: World, session_id: SessionId) -> dict[str, Any]:
    """Keys, aliases and counts of one session."""
    room = world.rooms.get(session_id)
    keys = [] if room is None else sorted(room.keys)
    return {
        "keys": keys,
        "aliases": sorted(alias for alias, key in world.aliases.items() if key in keys),
        "turns": 0 if room is None else len(room.turns),
        "waiting": 0 if room is None else len(room.waiting),
        "running": None if room is None else _running(world, room),
    }


def _rooms(world: World, session_id: SessionId | None) -> Iterable[Room]:
    if session_id is None:
        return world.lined.values()
    room = world.rooms.get(session_id)
    return () if room is None else (room,)


def _running(world: World, room: Room) -> TurnId | None:
    lease = world.leases.get(room.session.session_id)
    return None if lease is None else lease.turn_id
