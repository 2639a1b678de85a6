"""One's own words and everybody else's, in one order, whichever of the two comes first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from holdfast.cli._chat import talk as module
from holdfast.cli._chat import told
from holdfast.cli._chat.door import Accepted, Facts, Outgoing, Whose
from holdfast.cli._chat.talk import Sending, Talk
from holdfast.errors import HoldfastError, QueueFullError, WireError
from holdfast.types import EntriesPage, SessionEvent, TurnEvent

Entry = dict[str, Any]


class FakeDoor:
    """Says what the test puts into it, when the test puts it there."""

    name = "nowhere"

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.feed: asyncio.Queue[tuple[str, Entry] | HoldfastError] = asyncio.Queue()
        self.turn: asyncio.Queue[TurnEvent] = asyncio.Queue()
        self.may_submit = asyncio.Event()
        self.refuse: HoldfastError | None = None
        self.cancelled: list[str] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def submit(self, message: Outgoing) -> Accepted:
        del message
        await self.may_submit.wait()
        if self.refuse is not None:
            raise self.refuse
        return Accepted("mine", "session", 0, None)

    async def follow(self, turn_id: str) -> AsyncGenerator[TurnEvent, None]:
        assert turn_id == "mine"
        while True:
            event = await self.turn.get()
            yield event
            if event.kind == "outcome":
                return

    async def watch(self, after: str | None) -> AsyncGenerator[SessionEvent, None]:
        del after
        while True:
            thing = await self.feed.get()
            if isinstance(thing, HoldfastError):
                raise thing
            yield SessionEvent("entry", {"entry": thing[1]}, thing[0])

    async def recent(self, count: int) -> EntriesPage | None:
        last = self.entries[-count:]
        return EntriesPage(tuple((f"1.{n}", e) for n, e in enumerate(last)), "1.99")

    async def whose(self, turn_id: str) -> Whose:
        return Whose("cron", f"of {turn_id}")

    async def cancel(self, turn_id: str) -> str | None:
        self.cancelled.append(turn_id)
        return None

    async def facts(self) -> Facts:
        return Facts("session", 0, None, "somebody")

    # ------------------------------------------------------------------ for the test

    def say(self, kind: str, **data: Any) -> None:
        self.turn.put_nowait(TurnEvent(kind, data))

    def end(self, outcome: str = "replied", text: str | None = "reply") -> None:
        self.say("outcome", outcome=outcome, text=text)

    def write(self, entry: Entry, cursor: str = "1.100") -> None:
        self.feed.put_nowait((cursor, entry))


def question(turn: str, text: str = "?", at: str = "2") -> Entry:
    return _entry(turn, "user", text, at)


def final(turn: str, text: str = "reply", at: str = "2") -> Entry:
    return _entry(turn, "assistant", text, at, final=True)


def _entry(turn: str, role: str, text: str, at: str, **stamp: Any) -> Entry:
    return {
        "type": "message", "timestamp": at, "holdfast": {"turn": turn, **stamp},
        "message": {"role": role, "content": [{"type": "text", "text": text}]},
    }  # fmt: skip


class Chat:
    def __init__(self, door: FakeDoor) -> None:
        self.door, self.things = door, list[told.Told]()
        self._come = asyncio.Event()
        self.talk = Talk(door, self._tell, Sending())

    def _tell(self, thing: told.Told) -> None:
        self.things.append(thing)
        self._come.set()

    @property
    def shown(self) -> list[str]:
        """What a person would see."""
        found: list[str] = []
        for thing in self.things:
            match thing:
                case told.OwnText(_, text):
                    found.append(text)
                case told.OwnEnded(outcome):
                    found.append(f"ended {outcome['outcome']}")
                case told.Other(exchange, whose, mine):
                    who = "me" if mine else whose.source if whose else "stranger"
                    found.append(f"{who}: {exchange.question} {exchange.reply}")
        return found

    async def until(self, *shown: str) -> None:
        async with asyncio.timeout(10):
            while self.shown != list(shown):
                self._come.clear()
                await self._come.wait()

    async def until_told(self, kind: type) -> Any:
        async with asyncio.timeout(10):
            while not any(isinstance(thing, kind) for thing in self.things):
                self._come.clear()
                await self._come.wait()
        return next(thing for thing in self.things if isinstance(thing, kind))


@asynccontextmanager
async def chatting(*before: Entry) -> AsyncIterator[Chat]:
    door = FakeDoor()
    door.entries = list(before)
    chat = Chat(door)
    await chat.talk.begin(3)
    yield chat
    await chat.talk.close()


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_reply_waits_for_what_stands_before_it_in_the_transcript() -> None:
    async with chatting() as chat:
        chat.door.may_submit.set()
        chat.talk.say("hi")
        chat.door.say("started")
        chat.door.say("text", text="re")
        await chat.until_told(told.OwnAccepted)
        await settle()
        assert chat.shown == []
        chat.door.write(question("other", "first"))
        chat.door.write(final("other", "yes"))
        chat.door.write(question("mine"))
        await chat.until("of other: first yes", "re")


async def test_what_comes_after_a_reply_waits_for_its_end() -> None:
    async with chatting() as chat:
        chat.door.may_submit.set()
        chat.talk.say("hi")
        await settle()
        chat.door.write(question("mine"))
        chat.door.write(final("mine"))
        chat.door.write(question("other"))
        chat.door.write(final("other"))
        await chat.until_told(told.EntryTold)
        await settle()
        assert chat.shown == []
        chat.door.say("text", text="reply")
        chat.door.end()
        await chat.until("reply", "ended replied", "of other: ? reply")
        # And the end waits for what is before it.
        assert isinstance(chat.things[-1], told.Other)


async def test_a_reply_ends_only_when_the_transcript_has_come_to_it() -> None:
    async with chatting() as chat:
        chat.door.may_submit.set()
        chat.talk.say("hi")
        chat.door.write(question("mine"))
        chat.door.end()
        await settle()
        assert chat.shown == []
        chat.door.write({"type": "message", "message": {"role": "user", "content": "by hand"}})
        chat.door.write(final("mine"))
        await chat.until("stranger: by hand None", "ended replied")


async def test_nothing_is_anothers_before_it_is_known_what_is_ones_own() -> None:
    """The reply is in the transcript before the receipt is here."""
    async with chatting() as chat:
        chat.talk.say("hi")
        await settle()  # It is on its way.
        chat.door.write(question("mine"))
        chat.door.write(final("mine"))
        await settle()
        assert chat.things == []
        chat.door.may_submit.set()
        chat.door.say("text", text="reply")
        chat.door.end()
        await chat.until("reply", "ended replied")
        await settle()
        assert chat.shown == ["reply", "ended replied"]


async def test_what_is_left_comes_once_and_is_ones_own() -> None:
    async with chatting() as chat:
        chat.door.may_submit.set()
        chat.talk.say("hi")
        chat.door.write(question("mine", "hi"))
        chat.door.say("text", text="re")
        await chat.until("re")
        assert chat.talk.open_turns == ("mine",)
        chat.talk.leave()
        await chat.until_told(told.Done)
        await chat.talk.cancel()
        assert chat.door.cancelled == ["mine"]
        chat.door.write(final("mine"))
        await chat.until("re", "me: hi reply")
        assert chat.talk.open_turns == ()


async def test_an_end_without_a_reply_is_told_once() -> None:
    async with chatting() as chat:
        chat.door.may_submit.set()
        chat.talk.say("hi")
        chat.door.end("failed", None)
        await chat.until("ended failed")
        ended = {**question("mine"), "type": "custom", "customType": "holdfast:turn-ended"}
        chat.door.write({**ended, "message": None, "data": {"outcome": "failed"}})
        chat.door.write(question("other"))
        chat.door.write(final("other"))
        await chat.until("ended failed", "of other: ? reply")


async def test_a_refused_message_says_why_and_holds_nobody_up() -> None:
    async with chatting() as chat:
        chat.door.refuse = QueueFullError(session="s", limit=1)
        chat.talk.say("hi")
        chat.door.write(question("other"))
        chat.door.write(final("other"))
        chat.door.may_submit.set()
        await chat.until("of other: ? reply")
        assert (await chat.until_told(told.Failed)).error is chat.door.refuse
        await chat.until_told(told.Done)


@pytest.mark.parametrize("fate", ["ends", "is late"])
async def test_a_feed_that_is_cut_off_costs_the_order_and_not_the_reply(
    fate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ORDER_S", 5.0 if fate == "ends" else 0.01)
    async with chatting() as chat:
        chat.door.may_submit.set()
        if fate == "ends":
            chat.door.feed.put_nowait(WireError(detail="cut"))
        chat.talk.say("hi")
        chat.door.say("text", text="reply")
        chat.door.end()
        await chat.until("reply", "ended replied")
        if fate == "ends":
            assert (await chat.until_told(told.Failed)).error.code == "wire"
        else:  # It comes after all, and is not told again.
            chat.door.write(question("mine"))
            chat.door.write(final("mine"))
            chat.door.write(question("other"))
            chat.door.write(final("other"))
            await chat.until("reply", "ended replied", "of other: ? reply")


async def test_what_had_begun_before_ends_with_its_question() -> None:
    old = [question("old", at="1"), final("old", at="1"), question("long", "long?", at="1")]
    async with chatting(*old) as chat:
        recent = await chat.until_told(told.Recent)
        assert [each.turn_id for each in recent.exchanges] == ["old"]
        chat.door.write(final("long"))
        await chat.until("of long: long? reply")


async def test_a_transcript_that_is_read_again_is_not_told_again() -> None:
    old = [question("old", at="1"), final("old", at="1")]
    async with chatting(*old) as chat:
        chat.door.write(question("a", at="2"), "1.100")
        chat.door.write(final("a", at="3"), "1.200")
        for entry in (*old, question("a", at="2"), final("a", at="3")):
            chat.door.write(entry, "2.50")
        chat.door.write(question("b", at="4"), "2.60")
        chat.door.write(final("b", at="5"), "2.70")
        await chat.until("of a: ? reply", "of b: ? reply")
