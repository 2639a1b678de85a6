"""
One run of one turn by an agent: from the lease to its outcome, or back to its place.

Everything that may last, the model's stream and its tools, happens with the write lock free.
Retries of a failing provider happen inside the run, with the lease kept.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from holdfast._core import turns
from holdfast._runtime import beginning, steering
from holdfast._runtime.attempt import Attempt, Begun
from holdfast._runtime.conversation import Conversation, Ended
from holdfast._runtime.current import CURRENT, Current, at_work
from holdfast._runtime.live import Live
from holdfast._runtime.progress import Progress
from holdfast._runtime.tools import Tools
from holdfast.errors import CoordinationError, StoreError
from holdfast.types import Prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast._core.settings import Settings
    from holdfast._runtime.conversation import Said
    from holdfast._runtime.made import MadeSoFar
    from holdfast.ports import Agent, Store
    from holdfast.types import FencingToken, Leased, Steered, Turn

__all__ = ["Run"]

_log = logging.getLogger("holdfast.turn")


class Run:
    """An agent answering one leased turn.  Used once; loop-bound."""

    def __init__(self, store: Store, settings: Settings, leased: Leased) -> None:
        self._store, self._settings = store, settings
        self._attempt = Attempt(store, settings, leased)
        self.turn, self._again = leased.turn, leased.again
        self._aborted: str | None = None
        self._abort_asked = asyncio.Event()
        self._asking: asyncio.Task[Said | Ended] | None = None
        self._made: MadeSoFar | None = None
        self.progress = Progress()  #: For the keeper's thread.

    @property
    def token(self) -> FencingToken:
        return self._attempt.token

    async def answer(self, agent: Agent) -> Turn | None:
        """
        Answer the turn with *agent*.

        Returns:
            The turn as it stands afterwards; None: it is somebody else's now.

        Raises:
            StoreError: the row could not be moved.  The lease stays; the reaper ends it.
        """
        attempt = self._attempt
        try:
            begun = await attempt.begin()
            if not isinstance(begun, Begun):
                return begun
            said = await self._converse(agent, begun)
            if not isinstance(said, Ended) or said.outcome != "aborted":
                return await attempt.finish(said)
            return await self._stopped()
        except (CoordinationError, StoreError) as error:
            return await attempt.failed(error)
        finally:
            await attempt.let_go()

    def abort(self, reason: str) -> None:
        """
        End this run soon: ``drained``, ``fenced`` or one of `turns.ABORTS`.  Idempotent.

        What is already finished is still committed; a model call is cancelled.
        """
        if self._aborted is None:
            self._aborted = reason
            self._abort_asked.set()
            if reason == "fenced" and self._attempt.live is not None:
                self._attempt.live.silence()
            if self._asking is not None:
                self._asking.cancel()

    async def _stopped(self) -> Turn | None:
        """The model was stopped before it had finished: whose wish was it?"""
        attempt, why = self._attempt, self._aborted
        assert why is not None
        attempt.closing = True
        if why == "fenced":
            return None
        if (ended := beginning.ending_of(why)) is not None:
            return await attempt.finish(replace(ended, hint=turns.HINTS.get(why)))
        used_up = attempt.turn.attempts >= self._settings.attempts_max
        if why not in turns.GIVES_BACK and used_up:
            return await attempt.finish(Ended("failed", why, turns.HINTS.get(why)))
        await attempt.let_go()
        return await attempt.give_back(why)

    async def _converse(self, agent: Agent, begun: Begun) -> Said | Ended:
        attempt, turn = self._attempt, self.turn
        attempt.live = live = Live(self._store.live, turn.turn_id, attempt.token, attempt.check)
        live.emit("started", attempt=turn.attempts)
        if self._again is not None:  # What an earlier run has shown is void.
            live.emit("attempt", n=turn.attempts, reason=self._again)
        tools = Tools(
            self._store.control, turn.turn_id, attempt.token, attempt.check, live,
            made=begun.made, steered=partial(self._steered, live),
            result_bytes_max=self._settings.tool_result_bytes_max,
        )  # fmt: skip
        self._made = tools.made
        tools.progress = self.progress
        conversation = Conversation(agent, tools, live, attempt.count_again, self._settings)
        if self._aborted is None:
            me = self._store.owner.owner_id
            CURRENT.set(Current(turn.turn_id, attempt.token, me))
            self._asking = asyncio.create_task(_work(conversation, _prompt(turn, begun)))
            await self._answered_or_aborted(self._asking)
            if self._asking.done() and not self._asking.cancelled():
                said = self._asking.result()
                if isinstance(said, Ended) and said.outcome == "aborted":
                    self.abort(said.reason or "cancelled")  # A tool met the wish before us.
                return said
        return Ended("aborted", self._aborted, None)

    async def _steered(self, live: Live) -> Sequence[Steered]:
        """What was sent into this turn: in the transcript now, behind what was made."""
        assert self._made is not None
        found, made = await steering.taken_in(self._attempt, self._made.entries)
        self._made.note(made)
        for each in found:
            live.emit("steered", turn_id=each.turn_id)
        return found

    async def _answered_or_aborted(self, asking: asyncio.Task[Said | Ended]) -> None:
        """Wait for the answer; after an abort no longer than the settle bound."""
        aborted = asyncio.ensure_future(self._abort_asked.wait())
        try:
            await asyncio.wait({asking, aborted}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.abort("drained")
        finally:
            aborted.cancel()
        if not asking.done():  # A model that ignores its end costs its own turn only.
            await asyncio.wait({asking}, timeout=self._settings.settle_ms / 1000)
            asking.add_done_callback(_heard)


async def _work(conversation: Conversation, prompt: Prompt) -> Said | Ended:
    with at_work():
        return await conversation.answer(prompt)


def _prompt(turn: Turn, begun: Begun) -> Prompt:
    return Prompt(
        turn_id=turn.turn_id,
        session_id=turn.session_id,
        session_key=turn.session_key,
        agent_id=turn.agent_id,
        lane=turn.lane,
        source=turn.source,
        text=begun.text,
        history=begun.history,
        attempt=turn.attempts,
        model=turn.model,
        instructions=begun.instructions,
        made=tuple(each.message for each in begun.made),
    )


def _heard(task: asyncio.Task[Said | Ended]) -> None:
    """An abandoned model call has ended after all; nobody waits for what it says."""
    if not task.cancelled() and (echo := task.exception()) is not None:
        _log.info("an abandoned model call ended: %s", echo)
