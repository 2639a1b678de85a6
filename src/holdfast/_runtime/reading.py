"""
What can be asked of an open store: nothing here changes a row, a byte or a lock.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from holdfast._core import keys
from holdfast._core.explaining import Explained
from holdfast._runtime import finding, following
from holdfast._runtime.forks import Home
from holdfast._runtime.watching import Watchers
from holdfast._stamps import age_ms
from holdfast.types import TurnId

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast._core.settings import Settings
    from holdfast._core.tree import Tree
    from holdfast._runtime.delivering import Deliverer
    from holdfast.ports import Store
    from holdfast.types import EntriesPage, Session, SessionEvent, Turn, TurnEvent

__all__ = ["Reading"]


class Reading:
    """The reading half of `Holdfast`."""

    _deliverer: Deliverer

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self.settings = store, settings
        self._home = Home("this open store")
        self._watchers = Watchers(store, settings.lanes)

    async def session(self, key: str) -> Session:
        """The session that *key* names.  Raises NotFoundError."""
        return await self.store.control.session_of_key(keys.canonical(key))

    async def find_run(self, ref: str) -> Turn:
        """
        The turn that runs in the session that *ref* names: by a key, an alias, the session's
        id, or its transcript's path, symlinks and hard links too.

        Raises:
            NotFoundError: no such session, or nothing runs in it.
        """
        return await finding.find_run(self.store, ref)

    async def transcript(self, key: str) -> Tree:
        """The transcript as it stands.  Reads all of it."""
        session = await self.session(key)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self.store.transcripts.read, session)

    async def entries(
        self, key: str, *, after: str | None = None, limit: int = 100, last: int | None = None
    ) -> EntriesPage:
        """
        Some entries of the transcript, in the order of the file, side branches and all.

        Args:
            after: a cursor that an earlier page gave; None = from the beginning.
            limit: at most so many; fewer if they are large.
            last: instead, the last so many there are.

        Raises:
            NotFoundError: there is no such session.
            BadRequestError: *after* is not a cursor.
        """
        session = await self.session(key)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            None,
            lambda: self.store.transcripts.page(session, after, limit=limit, last=last),
        )

    async def why(self, key: str) -> Explained:
        """
        Who holds the session of *key*, who waits for it and for what, and what will happen.

        Raises:
            NotFoundError: there is no such session.
        """
        session = await self.session(key)
        why = await self.store.control.why(session.session_id, self.settings.lanes)
        channels = self._deliverer.channels
        loop = asyncio.get_running_loop()
        around = await loop.run_in_executor(None, self.store.around, session, why.owners)
        return Explained(keys.canonical(key), why, around, self.settings, age_ms, channels)

    async def follow(
        self, turn_id: str, *, after: str | None = None
    ) -> AsyncGenerator[TurnEvent, None]:
        """
        What happens to a turn, live, whichever process runs it; `TurnEvent` has the kinds.

        Ends after ``outcome``; a turn with a target goes on until nothing is owed any more.
        Once the live log has been removed, the outcome is all there is.

        Args:
            after: the id of the last event that was seen, ``<token>.<n>``.

        Raises:
            NotFoundError: there is no such turn.
            BadRequestError: *after* is not an event's id.
            DrainingError: this process closes before the outcome; another goes on.

        Cancellation:
            Safe; the turn goes on.

        Cost:
            One look at the store for all who follow in this process.
        """
        seen = None if after is None else following.log_id(after)
        turn = await self.store.control.turn(TurnId(turn_id))
        events = following.follow_turn(self.store, self._watchers, turn, seen)
        async with aclosing(events):
            async for event in events:
                yield event

    async def watch(
        self, key: str, *, after: str | None = None
    ) -> AsyncGenerator[SessionEvent, None]:
        """
        What happens in a session, live, whoever does it; `SessionEvent` has the kinds.

        Args:
            after: a cursor of `entries`; None = all entries from the beginning first.

        Raises:
            NotFoundError: there is no such session (yet).
            BadRequestError: *after* is not a cursor.
            DrainingError: this process closes.

        Cancellation:
            Safe.
        """
        session = await self.session(key)
        events = following.follow_session(self.store, self._watchers, session, after)
        async with aclosing(events):
            async for event in events:
                yield event

    async def has_permanent_runner(self, agent_id: str) -> bool:
        """Whether a process that serves *agent_id* for good is there, and not proven dead."""
        runners = await self.store.control.permanent_runners(agent_id)
        return any(not self.store.is_dead(runner) for runner in runners)
