"""
A session, live, as one stream of fragments.

A browser opens six connections to a server and no more, so a tab gets everything over one:
what is written to the transcript (`hf.watch`) and what the running turn says (`hf.follow`).

    event     data                                      what the page does with it
    entry     {html}, with a cursor                     appends it to the log
    again     {html}                                    replaces an entry of the log
    running   {turn_id, html}                           begins the running turn's block anew
    text      {turn_id, text}                           appends to the block
    attempt   {turn_id, n, reason}                      voids the block's text
    tool      {turn_id, name, call_id, state}           notes it in the block
    idle      {}                                        removes the block
    ended     {html}                                    shows a turn that left no entry
    waiting   {html}                                    replaces the queue

Only the log has a cursor.  Whoever comes back is told the running turn from its beginning and
the queue as it stands, so there is no gap, and nothing twice.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.stamped import turn_of
from holdfast._core.turns import State
from holdfast._runtime.receipts import place_reason
from holdfast.errors import DrainingError, NotFoundError
from holdfast.gateway import _console_pages as pages
from holdfast.gateway import _console_view as views
from holdfast.gateway import sse
from holdfast.types import TurnId

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from holdfast._core.settings import Lane
    from holdfast._runtime.runtime import Holdfast
    from holdfast.types import Entry, Place, SessionEvent, Turn, TurnEvent

__all__ = ["session_events", "shown", "turns_of"]

#: Why a turn waits may change without a word; so often it is looked at while one does.
LOOK_AGAIN_S: Final = 2.0
WAITING_SHOWN_MAX: Final = 20
DROPPED_SHOWN_MAX: Final = 3
_SHOWN: Final = frozenset({"text", "attempt", "tool"})
_WAITS_FOR: Final = {
    "no_runner": "nobody serves this agent now",
    "slot": "waits for a free slot in its lane",
    "write_lock": "another program holds the transcript",
    "drained": "goes on in a moment",
    "unknown": "",
}


async def turns_of(hf: Holdfast, entries: Iterable[Entry]) -> dict[str, Turn]:
    """The rows of the turns that wrote *entries*, as far as they are still kept."""
    ids = {turn_id for entry in entries if (turn_id := turn_of(entry)) is not None}
    found: dict[str, Turn] = {}
    if ids:
        control = hf.store.control
        ended = await control.ended([TurnId(each) for each in ids])
        found = {str(turn.turn_id): turn for turn in ended}
        for turn_id in ids - found.keys():
            with suppress(NotFoundError):
                found[turn_id] = await control.turn(TurnId(turn_id))
    return found


async def shown(
    hf: Holdfast, entries: Iterable[tuple[str, Entry]]
) -> list[tuple[str, views.View]]:
    """Those of *entries* that a page shows, with their cursors."""
    listed = list(entries)
    turns = await turns_of(hf, (entry for _, entry in listed))
    seen = (
        (cursor, views.view_of(entry, cursor, turns.get(turn_of(entry) or "")))
        for cursor, entry in listed
    )
    return [(cursor, view) for cursor, view in seen if view is not None]


async def session_events(
    hf: Holdfast, key: str, after: str | None
) -> AsyncGenerator[bytes, None]:
    """
    What happens in a session from the cursor *after* on, as Server-Sent Events.

    A session that is not there yet is waited for.  Never ends by itself.

    Raises:
        DrainingError: this process closes.

    Cancellation:
        Safe.

    Cost:
        One event; and, while a turn waits, a look at the queue every 2 s.  While there is no
        such session the process polls, as for all who wait for a change: 20 times a second.
    """
    while not await _is_there(hf, key):
        if hf.draining:
            raise DrainingError
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AGAIN_S):
                await hf.change()
    async with aclosing(_Telling(hf, key).events(after)) as events:
        async for event in events:
            yield event


async def _is_there(hf: Holdfast, key: str) -> bool:
    try:
        await hf.session(key)
    except NotFoundError:
        return False
    return True


class _Telling:
    """What one page has been told of one session."""

    def __init__(self, hf: Holdfast, key: str) -> None:
        self._hf, self._key = hf, key
        self._running: TurnId | None = None
        self._over: TurnId | None = None  #: The latest turn whose ending entry was told.
        self._unsettled: list[tuple[str, Entry]] = []
        self._queue = pages.fragment("_waiting.html", waiting=[], more=0, dropped=[])
        self._waiting: set[TurnId] = set()
        self._dropped: list[Turn] = []  #: Ended in the queue; the transcript never knew them.

    async def events(self, after: str | None) -> AsyncGenerator[bytes, None]:
        async with _Sources() as sources:
            watched = self._hf.watch(self._key, after=after)
            sources.add(watched)
            while watched in sources:
                looks_again = self._waiting or self._unsettled
                found = await sources.next(LOOK_AGAIN_S if looks_again else None)
                if found is None:
                    for told in await self._look():
                        yield told
                    continue
                source, event = found
                if source is not watched:
                    if (said := self._of_turn(event)) is not None:
                        yield said
                    continue
                for told in await self._of_session(event):
                    yield told
                if event.kind in {"running", "idle"}:
                    await sources.keep_only(watched)
                if event.kind == "running":
                    sources.add(_follow(self._hf, event.data["turn_id"]))

    async def _of_session(self, event: SessionEvent) -> list[bytes]:
        match event.kind:
            case "entry":
                return await self._entry(event.data["entry"], event.cursor or "")
            case "running":
                turn_id = event.data["turn_id"]
                told = [*await self._ended(), *await self._look()]
                self._running = turn_id
                turn = await self._hf.store.control.turn(turn_id)
                html = pages.fragment("_running.html", turn=turn, origin=views.origin_of(turn))
                return [*told, sse.event("running", {"turn_id": turn_id, "html": html})]
            case "idle":
                told = [*await self._ended(), sse.event("idle", {}), *await self._look()]
                self._running = None
                return told
        return await self._look()

    async def _entry(self, entry: Entry, cursor: str) -> list[bytes]:
        found = await shown(self._hf, [(cursor, entry)])
        if not found:
            return []
        ((_, view),) = found
        if view.ends:
            self._over = TurnId(view.turn)
        if view.settles:
            self._unsettled.append((cursor, entry))
        return [sse.event("entry", {"html": pages.fragment("_entry.html", view=view)}, cursor)]

    def _of_turn(self, event: TurnEvent) -> bytes | None:
        """What the running turn says; nothing once its ending entry is out."""
        if event.kind not in _SHOWN or self._running in {None, self._over}:
            return None
        return sse.event(event.kind, {"turn_id": self._running, **event.data})

    async def _ended(self) -> list[bytes]:
        """The turn that ran runs no more.  If no entry said so, its row does."""
        if self._running is None or self._running == self._over:
            return []
        turn = await self._hf.store.control.turn(self._running)
        view = views.outcome_view(turn)
        if view is None:
            return []
        return [sse.event("ended", {"html": pages.fragment("_entry.html", view=view)})]

    async def _look(self) -> list[bytes]:
        """The queue, if it changed; and endings whose rows say more by now."""
        told = []
        unsettled, self._unsettled = self._unsettled, []
        for cursor, entry in unsettled:
            for _, view in await shown(self._hf, [(cursor, entry)]):
                if view.settles:
                    self._unsettled.append((cursor, entry))
                else:
                    html = pages.fragment("_entry.html", view=view)
                    told.append(sse.event("again", {"html": html}))
        queue = await self._shown_queue()
        if queue != self._queue:
            self._queue = queue
            told.append(sse.event("waiting", {"html": queue}))
        return told

    async def _shown_queue(self) -> str:
        control, lanes = self._hf.store.control, self._hf.settings.lanes
        session = await self._hf.session(self._key)
        turns = await control.turns(session_id=session.session_id, state=State.ACCEPTED.value)
        before, self._waiting = self._waiting, {turn.turn_id for turn in turns}
        for turn in await control.ended(list(before - self._waiting)):
            if turn.started_at is None:
                self._dropped = [*self._dropped, turn][-DROPPED_SHOWN_MAX:]
        turns.sort(key=lambda turn: (-turn.priority, turn.admission))
        first = turns[:WAITING_SHOWN_MAX]
        states = await control.turn_states([turn.turn_id for turn in first], lanes)
        waiting = [
            {
                "turn": turn,
                "origin": views.origin_of(turn),
                "ahead": states[turn.turn_id].place.position,
                "why": _why(turn, states[turn.turn_id].place, lanes),
            }
            for turn in first
            if turn.turn_id in states
        ]
        more = len(turns) - len(first)
        return pages.fragment(
            "_waiting.html", waiting=waiting, more=more, dropped=self._dropped
        )


def _why(turn: Turn, place: Place, lanes: Mapping[str, Lane]) -> str:
    """What it waits for, if not for those that the page shows before it."""
    if place.waiting_for in {None, "turn", "queue"}:
        return ""
    known = _WAITS_FOR.get(place.waiting_for or "")
    return place_reason(place, turn.agent_id, lanes) if known is None else known


class _Sources:
    """Several generators, each asked for its next event when the last one was taken."""

    def __init__(self) -> None:
        self._coming: dict[asyncio.Future[Any], AsyncGenerator[Any, None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.keep_only(None)

    def __contains__(self, events: object) -> bool:
        """Whether *events* have not ended."""
        return any(each is events for each in self._coming.values())

    def add(self, events: AsyncGenerator[Any, None]) -> None:
        self._coming[asyncio.ensure_future(anext(events))] = events

    async def keep_only(self, kept: AsyncGenerator[Any, None] | None) -> None:
        """Close all the others."""
        dropped = {c: events for c, events in self._coming.items() if events is not kept}
        for coming, events in dropped.items():
            del self._coming[coming]
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
            await events.aclose()

    async def next(
        self, within_s: float | None
    ) -> tuple[AsyncGenerator[Any, None], Any] | None:
        """
        The next event and whose it is; None: not *within_s*, or all have ended.
        """
        while self._coming:
            done, _ = await asyncio.wait(
                self._coming, timeout=within_s, return_when=asyncio.FIRST_COMPLETED
            )
            coming = next((each for each in self._coming if each in done), None)
            if coming is None:
                return None
            events = self._coming.pop(coming)
            try:
                event = coming.result()
            except StopAsyncIteration:
                continue
            self.add(events)
            return events, event
        return None


async def _follow(hf: Holdfast, turn_id: str) -> AsyncGenerator[TurnEvent, None]:
    with suppress(NotFoundError):  # Its row may be gone: then the log has said everything.
        async with aclosing(hf.follow(turn_id)) as events:
            async for event in events:
                yield event
