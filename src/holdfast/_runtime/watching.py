"""
One look at the store for all who watch in this process.

It is made when something may have changed, at most 20 times a second and for at most a fifth
of the time, however many watch; behind the hints stands a look every second: polling is the
truth, and only while somebody watches.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from holdfast.errors import DrainingError, HoldfastError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from holdfast._core.settings import Lane
    from holdfast.ports import Store
    from holdfast.types import Place, Pulse, Session, SessionId, TurnId, TurnState

__all__ = ["Scene", "Topic", "Watchers"]

T = TypeVar("T")
Key = TypeVar("Key", bound=str)

LOOK_EVERY_S: Final = 0.05
POLL_S: Final = 1.0
SHARE: Final = 4  #: A look that takes one second is followed by this many without.
UNREADABLE: Final = -2  #: In place of a transcript's end.
AT_ONCE: Final = 100  #: Turns a page of reading: a few milliseconds.

_log = logging.getLogger("holdfast.live")


@dataclass(frozen=True, slots=True)
class Scene:
    """A session as one who watches it sees it."""

    pulse: Pulse
    end: int  #: Of its transcript; see `Transcripts.end`.


@dataclass(slots=True)
class Topic(Generic[T]):
    """A turn or a session that somebody watches."""

    known: T | None = None
    newest: int = 0  #: The newest token of the turn that has a live log.
    waited_ms: int = 0  #: As far as it was warned of.
    watchers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """Wake who waits.  Whoever takes `changed` from now on waits for the next time."""
        told, self.changed = self.changed, asyncio.Event()
        told.set()


class Watchers:
    """Everything that is watched in this process.  Loop-bound."""

    def __init__(self, store: Store, lanes: Mapping[str, Lane]) -> None:
        self._store, self.lanes = store, lanes
        self.turns: dict[TurnId, Topic[TurnState]] = {}
        self.sessions: dict[SessionId, Topic[Scene]] = {}
        self._wake = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    def wake(self) -> None:
        """Something may have changed in the control store."""
        self._wake.set()

    async def close(self) -> None:
        """Whoever still watches gets a DrainingError, unless its turn has ended by now."""
        if self._closed:
            return
        if self.turns or self.sessions:
            await self._look_quietly()
        self._closed = True
        for turn in self.turns.values():
            turn.tell()
        for session in self.sessions.values():
            session.tell()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def check_open(self) -> None:
        if self._closed:
            raise DrainingError

    @contextmanager
    def listed(self, topics: dict[Key, Topic[T]], key: Key) -> Iterator[Topic[T]]:
        """Watch *key* for as long as the block lasts."""
        self.check_open()
        topic = topics.setdefault(key, Topic())
        topic.watchers += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on(), name="holdfast watchers")
        try:
            yield topic
        finally:
            topic.watchers -= 1
            if not topic.watchers and topics.get(key) is topic:
                del topics[key]

    async def scene(self, session: Session) -> Scene:
        """The session as it is now."""
        pulses = await self._store.control.pulses([session.session_id])
        return Scene(pulses[session.session_id], self._store.transcripts.end(session))

    async def newest(self, turn_id: TurnId, topic: Topic[TurnState]) -> None:
        """Learn of every live log that *turn_id* has by now."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, self._store.live.newest, {turn_id})
        topic.newest = max(topic.newest, found.get(turn_id, 0))

    def remind(self, turn_id: TurnId, place: Place, waited_ms: int) -> None:
        """Whoever follows *turn_id* is to hear once more where it stands."""
        del place  # They look themselves.
        if (topic := self.turns.get(turn_id)) is not None:
            topic.waited_ms = waited_ms
            topic.tell()

    # --------------------------------------------------------------------- the one look

    async def _look_on(self) -> None:
        """Until nobody watches any more."""
        unwatch = self._watch_logs()
        try:
            while self.turns or self.sessions:
                began_s = time.monotonic()
                await self._look_quietly()
                pause_s = max(LOOK_EVERY_S, SHARE * (time.monotonic() - began_s))
                await asyncio.sleep(pause_s)
                try:
                    async with asyncio.timeout(POLL_S):
                        await self._wake.wait()
                except TimeoutError:
                    await self._look_at_logs()
                self._wake.clear()
        finally:
            unwatch()

    async def _look_quietly(self) -> None:
        try:
            await self._look()
        except HoldfastError as error:
            _log.warning("the store did not serve who watches: %s", error)
        except Exception:  # noqa: BLE001  Whoever watches would wait for ever.
            _log.exception("a look for who watches failed")

    async def _look(self) -> None:
        control = self._store.control
        turn_ids = list(self.turns)
        for at in range(0, len(turn_ids), AT_ONCE):
            page = turn_ids[at : at + AT_ONCE]
            _tell_changed(self.turns, await control.turn_states(page, self.lanes))
        pulses = await control.pulses(list(self.sessions))
        ends = await self._ends(list(pulses))
        scenes = {each: Scene(pulse, ends[each]) for each, pulse in pulses.items()}
        _tell_changed(self.sessions, scenes)

    async def _ends(self, session_ids: list[SessionId]) -> dict[SessionId, int]:
        """Where the transcripts end: a stranger's lines change nothing in the control store."""
        sessions = [await self._store.control.session(each) for each in session_ids]

        def look() -> dict[SessionId, int]:
            return {each.session_id: self._end(each) for each in sessions}

        return await asyncio.get_running_loop().run_in_executor(None, look)

    def _end(self, session: Session) -> int:
        try:
            return self._store.transcripts.end(session)
        except HoldfastError:  # Whoever watches this one is told when it reads.
            return UNREADABLE

    async def _look_at_logs(self) -> None:
        """The truth behind the hints about live logs."""
        if not self.turns:
            return
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, self._store.live.newest, set(self.turns))
        for turn_id, token in found.items():
            self._log_grew(turn_id, token)

    def _watch_logs(self) -> Callable[[], None]:
        try:
            return self._store.live.watch(self._log_grew)
        except HoldfastError as error:  # The look every second goes on.
            _log.warning("live output is looked for once a second: %s", error)
            return lambda: None

    def _log_grew(self, turn_id: TurnId, token: int) -> None:
        if (topic := self.turns.get(turn_id)) is not None:
            topic.newest = max(topic.newest, token)
            topic.tell()


def _tell_changed(topics: Mapping[Any, Topic[T]], found: Mapping[Any, T]) -> None:
    for key, value in found.items():
        topic = topics.get(key)
        if topic is not None and topic.known != value:
            topic.known = value
            topic.tell()
