"""
The conversation: one's own messages and everybody else's, in one order.

The order is the transcript's.  A turn's question stands in the transcript before a model is
asked, so what a turn of one's own says is held back until the session's feed has come to that
question, and what comes after its reply until the reply has been told.  Waiting for the feed
has a bound (ORDER_S): a feed that is cut off costs the order, never the reply.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast._stamps import uuid7
from holdfast.cli._chat import told
from holdfast.cli._chat.door import Outgoing, Whose, place_of
from holdfast.cli._chat.exchanges import Exchange, Exchanges, turn_of
from holdfast.errors import HoldfastError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast.cli._chat.door import Door
    from holdfast.types import Entry, TurnEvent

__all__ = ["Sending", "Talk"]

ORDER_S: Final = 5.0
RECENT_ENTRIES: Final = 100
RECENT_ENTRIES_MAX: Final = 500  #: What one question may ask a server for.

_log = logging.getLogger("holdfast.chat")


@dataclass(frozen=True, slots=True)
class Sending:
    """How messages of this chat are sent; the fields are those of `Holdfast.submit`."""

    lane: str = "user"
    source: str = "cli"
    policy: str | None = None
    model: str | None = None


@dataclass(slots=True)
class _Own:
    """A turn that is waited for here."""

    turn_id: str
    place: tuple[int, str | None]  #: What has been told of it.
    asked: asyncio.Event = field(default_factory=asyncio.Event)  #: The feed is at it.
    answered: asyncio.Event = field(default_factory=asyncio.Event)  #: …and at its end.
    #: Its outcome has been told, or nobody waits for it here any more.
    told: asyncio.Event = field(default_factory=asyncio.Event)


class Talk:
    """
    Loop-bound.

    Args:
        door: open; whoever opened it closes it.
        tell: called in this loop's thread; must not block.
    """

    def __init__(self, door: Door, tell: Callable[[told.Told], None], sending: Sending) -> None:
        self._door, self._tell, self._sending = door, tell, sending
        self._exchanges = Exchanges()
        self._own: dict[str, _Own] = {}
        self._open: dict[str, str] = {}  #: Turn id → text: sent here, no outcome told yet.
        self._over: set[str] = set()  #: Turns of one's own whose outcome has been told.
        self._seen = _Seen()
        #: Held while a message goes out: until its turn's id is known, nobody can say whose
        #: the next entry is.
        self._whose = asyncio.Lock()
        self._feeding: asyncio.Task[None] | None = None
        self._saying: asyncio.Task[None] | None = None

    async def begin(self, show: int) -> None:
        """Tell the last *show* exchanges, and from there on everything that is written."""
        page = await self._door.recent(RECENT_ENTRIES)
        if page is not None:
            # What has begun by now ends in the feed, which then knows its question.
            before = _together(self._exchanges, page.entries)
            self._seen.begin(page.entries)
            if show and before:
                self._tell(told.Recent(before[-show:]))
        after = None if page is None else page.next
        self._feeding = asyncio.create_task(self._feed(after), name="chat feed")

    async def close(self) -> None:
        """Idempotent."""
        tasks = [task for task in (self._saying, self._feeding) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def open_turns(self) -> tuple[str, ...]:
        """Turns that were sent here and have no outcome that was told here."""
        return tuple(self._open)

    # --------------------------------------------------------------------- one's own words

    def say(self, text: str) -> None:
        """Send *text* and tell what becomes of it; then `Done`.  One at a time."""
        self._saying = asyncio.create_task(self._say(text), name="chat message")

    def leave(self) -> None:
        """Wait for what `say` sent no longer; the turn goes on."""
        if self._saying is not None:
            self._saying.cancel()

    async def _say(self, text: str) -> None:
        own: _Own | None = None
        try:
            own = await self._submit(text)
            async with aclosing(self._door.follow(own.turn_id)) as events:
                async for event in events:
                    await self._own_event(own, event)
        except asyncio.CancelledError:
            self._tell(told.Note(_left(own)))
        except HoldfastError as error:
            self._tell(told.Failed(error))
        finally:
            if own is not None:
                self._own.pop(own.turn_id, None)
                own.told.set()
            self._tell(told.Done())

    async def _submit(self, text: str) -> _Own:
        message = Outgoing(
            text, f"chat-{uuid7()}", self._sending.lane, self._sending.source,
            self._sending.policy, self._sending.model,
        )  # fmt: skip
        async with self._whose:
            accepted = await self._door.submit(message)
            own = _Own(accepted.turn_id, (accepted.position, accepted.waiting_for))
            self._own[own.turn_id] = own
            self._open[accepted.turn_id] = text
        self._tell(told.OwnAccepted(accepted))
        return own

    async def _own_event(self, own: _Own, event: TurnEvent) -> None:
        data, turn_id = event.data, own.turn_id
        match event.kind:
            case "accepted" | "position":
                if (place := place_of(data)) != own.place:
                    own.place = place
                    self._tell(told.OwnPosition(turn_id, *place))
                return
            case "outcome":
                if data.get("outcome") == "replied":
                    await self._in_order(own.answered)
                self._tell(told.OwnEnded(data))
                self._over.add(turn_id)
                self._open.pop(turn_id, None)
                own.told.set()
                return
        await self._in_order(own.asked)
        match event.kind:
            case "text":
                self._tell(told.OwnText(turn_id, str(data["text"])))
            case "attempt":
                self._tell(told.OwnVoid(turn_id, data.get("reason")))
            case "tool":
                self._tell(told.OwnTool(turn_id, str(data["name"]), str(data["state"])))

    async def _in_order(self, reached: asyncio.Event) -> None:
        """Until the feed has come so far; not at all once it has ended."""
        if reached.is_set() or self._feeding is None or self._feeding.done():
            return
        ended = asyncio.ensure_future(reached.wait())
        await asyncio.wait(
            {ended, self._feeding}, timeout=ORDER_S, return_when="FIRST_COMPLETED"
        )
        if not ended.done():
            _log.info("the session's feed is late; going on without its order")
        ended.cancel()

    # ------------------------------------------------------------------- everybody's words

    async def _feed(self, after: str | None) -> None:
        """Tell what is written to the transcript, in its order."""
        try:
            async with aclosing(self._door.watch(after)) as events:
                async for event in events:
                    if event.kind == "entry":
                        await self._entry(event.cursor, event.data["entry"])
        except HoldfastError as error:
            self._tell(told.Failed(error))
            self._tell(told.Note("what others say here is not shown any more"))

    async def _entry(self, cursor: str | None, entry: Entry) -> None:
        if not self._seen.is_new(cursor, entry):
            return
        turn = turn_of(entry)
        async with self._whose:
            own = None if turn is None else self._own.get(turn)
        self._tell(told.EntryTold(cursor, entry))
        exchange = self._exchanges.feed(entry)
        if own is not None:
            own.asked.set()
        if exchange is None:
            return
        if own is not None:
            own.answered.set()
            await self._told(own)
        if exchange.turn_id not in self._over:
            await self._tell_other(exchange)

    async def _told(self, own: _Own) -> None:
        try:
            async with asyncio.timeout(ORDER_S):
                await own.told.wait()
        except TimeoutError:
            _log.info("turn %s: its outcome is late; going on without it", own.turn_id)

    async def _tell_other(self, exchange: Exchange) -> None:
        mine, whose = False, None
        if exchange.turn_id is not None:
            mine = self._open.pop(exchange.turn_id, None) is not None
            try:
                whose = await self._door.whose(exchange.turn_id)
            except NotFoundError:
                whose = Whose("-", "-")  # Its row is gone by now.
            except HoldfastError as error:
                _log.info("turn %s: whose it is is not known: %s", exchange.turn_id, error)
                whose = Whose("-", "-")
        self._tell(told.Other(exchange, whose, mine))

    # ----------------------------------------------------------------------- on request

    async def history(self, count: int) -> None:
        """Tell the last *count* exchanges, as far as RECENT_ENTRIES_MAX entries reach."""
        await self._asked(self._history(count))

    async def cancel(self) -> None:
        """Ask for the end of what was sent here and has none."""
        await self._asked(self._cancel())

    async def facts(self) -> None:
        await self._asked(self._facts())

    async def _asked(self, doing: Awaitable[None]) -> None:
        try:
            await doing
        except HoldfastError as error:
            self._tell(told.Failed(error))
        finally:
            self._tell(told.Done())

    async def _history(self, count: int) -> None:
        page = await self._door.recent(RECENT_ENTRIES_MAX)
        # Not the feed's own: what that has begun must not end by being read again.
        found = () if page is None else _together(Exchanges(), page.entries)
        self._tell(told.Recent(found[-count:]))

    async def _cancel(self) -> None:
        if not self._open:
            self._tell(told.Note("nothing that was sent here is still open"))
        for turn_id in self.open_turns:
            outcome = await self._door.cancel(turn_id)
            said = "its runner was asked to end it" if outcome is None else outcome
            self._tell(told.Note(f"turn {turn_id}: {said}"))

    async def _facts(self) -> None:
        self._tell(told.FactsTold(await self._door.facts()))


class _Seen:
    """
    Knows what has been told when a transcript is rewritten and its reading starts over.

    By the entries' times: it decides what is shown twice, and nothing else.
    """

    def __init__(self) -> None:
        self._generation: str | None = None
        self._newest = self._skip_to = ""

    def begin(self, entries: tuple[tuple[str, Entry], ...]) -> None:
        for cursor, entry in entries:
            self.is_new(cursor, entry)

    def is_new(self, cursor: str | None, entry: Entry) -> bool:
        generation = (cursor or "").partition(".")[0]
        if self._generation not in {None, generation}:
            self._skip_to = self._newest
        self._generation = generation
        at = str(entry.get("timestamp") or "")
        self._newest = max(self._newest, at)
        return at > self._skip_to or not self._skip_to


def _together(
    exchanges: Exchanges, entries: tuple[tuple[str, Entry], ...]
) -> tuple[Exchange, ...]:
    ended = (exchanges.feed(entry) for _, entry in entries)
    return tuple(exchange for exchange in ended if exchange is not None)


def _left(own: _Own | None) -> str:
    if own is None:
        return "no longer sending; whether the message was accepted is not known: see /history"
    return (
        f"no longer waiting; turn {own.turn_id} goes on, and its reply appears here;"
        " /cancel ends it"
    )
