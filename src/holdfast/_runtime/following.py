"""
Following a turn or a session, from any process.

What a turn *does* stands in its live log; what it *is* stands in the control store.  A slow
follower costs a position in a file and no memory: it is given more when it asks for more.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.turns import State
from holdfast._runtime.following_owed import follow_owed
from holdfast._runtime.receipts import outcome_of, place_reason
from holdfast.errors import BadRequestError, NotFoundError
from holdfast.types import Pulse, SessionEvent, TurnEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from holdfast._runtime.watching import Topic, Watchers
    from holdfast.ports import LiveTail, Store
    from holdfast.types import LiveEvent, LogId, Place, Session, Turn, TurnId, TurnState

__all__ = ["follow_session", "follow_turn", "log_id"]

PAGE: Final = 100  #: Entries read at once.


def log_id(text: str) -> LogId:
    """
    What an event's id says.

    Raises:
        BadRequestError: not ``<token>.<n>``.
    """
    token, _, number = text.partition(".")
    if not all(
        part.isascii() and part.isdecimal() and len(part) < 19 for part in (token, number)
    ):
        raise BadRequestError(
            detail=f"{text[:80]!r} is not an event id",
            hint="ids look like 3.14: token, then number; give the last one you saw, or none",
        )
    return int(token), int(number)


# ---------------------------------------------------------------------------------- turns


async def follow_turn(
    store: Store, watchers: Watchers, turn: Turn, after: LogId | None
) -> AsyncGenerator[TurnEvent, None]:
    """See `Holdfast.follow`."""
    with watchers.listed(watchers.turns, turn.turn_id) as topic:
        await watchers.newest(turn.turn_id, topic)
        topic.known = now = await _now(store, watchers, turn.turn_id)
        gone = now.outcome is not None and not topic.newest  # So is the turn's log.
        if after is None and not gone:
            yield _accepted(turn, _place(now.place, turn, watchers))
        place, waited_ms = now.place, topic.waited_ms
        tail = store.live.tail(turn.turn_id)
        while True:
            # Taken before the look: what changes meanwhile is not slept through.
            changed, now = topic.changed, topic.known or now
            if now.outcome is not None:  # The log was complete before that was booked.
                await watchers.newest(turn.turn_id, topic)
            for event in _new_events(tail, topic, after):
                yield event
            if now.outcome is not None:
                break
            before, place, waited_ms = (place, waited_ms), now.place, topic.waited_ms
            if (place, waited_ms) != before and now.state == State.ACCEPTED.value:
                late = {} if waited_ms == before[1] else {"waited_ms": waited_ms}
                yield TurnEvent("position", _place(place, turn, watchers) | late)
            watchers.check_open()
            await changed.wait()
    turn = await store.control.turn(turn.turn_id)
    if turn.final_entry is not None and not gone:
        yield TurnEvent("committed", {"final_entry": turn.final_entry}, at=turn.ended_at)
    yield TurnEvent(
        "outcome", (await outcome_of(store.control, turn)).to_json(), at=turn.ended_at
    )
    if not gone:
        async with aclosing(follow_owed(store, watchers, turn)) as owed:
            async for event in owed:
                yield event


async def _now(store: Store, watchers: Watchers, turn_id: TurnId) -> TurnState:
    found = await store.control.turn_states([turn_id], watchers.lanes)
    if turn_id not in found:
        raise NotFoundError(what="turn", name=turn_id[:80])
    return found[turn_id]


def _new_events(
    tail: LiveTail, topic: Topic[TurnState], after: LogId | None
) -> Iterator[TurnEvent]:
    while events := tail.read(topic.newest):
        for event in events:
            if after is None or event.log_id > after:
                yield _told(event)


def _told(event: LiveEvent) -> TurnEvent:
    token, number = event.log_id
    return TurnEvent(event.kind, event.data, f"{token}.{number}", event.at)


def _accepted(turn: Turn, place: dict[str, Any]) -> TurnEvent:
    ids = {"turn_id": turn.turn_id, "session_id": turn.session_id}
    return TurnEvent("accepted", ids | place, at=turn.accepted_at)


def _place(place: Place, turn: Turn, watchers: Watchers) -> dict[str, Any]:
    return {
        "position": place.position,
        "waiting_for": place.waiting_for,
        "reason": place_reason(place, turn.agent_id, watchers.lanes),
    }


# ------------------------------------------------------------------------------- sessions


async def follow_session(
    store: Store, watchers: Watchers, session: Session, after: str | None
) -> AsyncGenerator[SessionEvent, None]:
    """See `Holdfast.watch`."""
    loop, transcripts = asyncio.get_running_loop(), store.transcripts
    with watchers.listed(watchers.sessions, session.session_id) as topic:
        topic.known = scene = await watchers.scene(session)
        told, end = Pulse(None, 0, session.generation), -1
        while True:
            changed, scene = topic.changed, topic.known or scene
            session = replace(session, generation=scene.pulse.generation)
            while scene.end != end:
                page = await loop.run_in_executor(
                    None, partial(transcripts.page, session, after, limit=PAGE)
                )
                after, end = page.next, end if page.entries else scene.end
                for cursor, entry in page.entries:
                    yield SessionEvent("entry", {"entry": entry}, cursor)
                del page  # An idle watcher keeps nothing of what it has told.
            async for event in _pulse_events(store, told, scene.pulse):
                yield event
            told = scene.pulse
            watchers.check_open()
            await changed.wait()


async def _pulse_events(
    store: Store, before: Pulse, now: Pulse
) -> AsyncGenerator[SessionEvent, None]:
    if now.waiting != before.waiting:
        yield SessionEvent("waiting", {"count": now.waiting})
    if now.running == before.running:
        return
    if now.running is None:
        yield SessionEvent("idle", {})
        return
    turn = await store.control.turn(now.running)
    yield SessionEvent(
        "running",
        {
            "turn_id": turn.turn_id,
            "lane": turn.lane,
            "source": turn.source,
            "text": turn.text,
        },
    )
