"""
The door to a state directory of this machine, whoever answers there.

While no permanent runner serves the session's agent, this process is the session's *embedded*
runner.  It looks every second, in both directions: when the permanent runner has gone it
takes over, and when one has come it hands back what it holds and only sends and reads.
Handing back is closing the store and opening it again: a store that is opened runs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from holdfast._core import keys
from holdfast._runtime.embedded import LOOK_S, Message, ModelSwitch, stand_in
from holdfast.cli._chat.door import PATIENCE_S, Accepted, Facts, Whose
from holdfast.errors import DrainingError, HoldfastError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from holdfast._core.settings import Settings
    from holdfast._runtime.receipts import Receipt
    from holdfast._runtime.runtime import Holdfast
    from holdfast.cli._chat.door import Outgoing
    from holdfast.ports import Agent
    from holdfast.types import EntriesPage, SessionEvent, TurnEvent, TurnId

__all__ = ["StoreDoor"]

#: A store that is busy for longer than its own bounds is asked again after this long.
AGAIN_S: Final = 0.5

_log = logging.getLogger("holdfast.chat")


class StoreDoor:
    """
    See `Door`.

    Args:
        where: the state directory; made if it is not there.
        key: a canonical session key.
        demo: called, once, if the built-in demo model answers here for want of another.
    """

    def __init__(
        self, where: str, settings: Settings, key: str, *, demo: Callable[[], None]
    ) -> None:
        self.name = where
        self._settings, self._key, self._demo = settings, key, demo
        self._agent_id = keys.agent_of(key)
        told = settings.agents.get(self._agent_id)
        #: How the settings say that the agent is run, if they do.
        self._told = told if told is not None and (told.model or told.object) else None
        self._agent: Agent | None = None
        self._stack = AsyncExitStack()
        self._hf: Holdfast | None = None
        self._here = False  #: This process is the session's embedded runner.
        self._said_demo = False
        self._asks_for_model = False
        #: Held by every call, and while the store is opened again.
        self._lock = asyncio.Lock()
        self._known = asyncio.Event()  #: The session exists.
        self._looking: asyncio.Task[None] | None = None
        self._closing = False

    # ----------------------------------------------------------------- opening, closing

    async def open(self) -> None:
        from holdfast import _assemble

        self._agent = self._make_agent()
        hf = await self._enter()
        # A user's module that cannot be had is told before anything is sent; where another
        # process answers, it need not even be there.
        if isinstance(self._agent, _assemble.LateAgent) and not (
            await hf.has_permanent_runner(self._agent_id)
        ):
            await self._agent.ready()
        async with self._lock:
            await self._look()
        self._looking = asyncio.create_task(self._look_on(), name="chat runner")

    async def close(self) -> None:
        self._closing = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        async with self._lock:
            await self._leave()
        agent, self._agent = self._agent, None
        close: Any = getattr(agent, "aclose", None)
        if close is not None:
            await close()

    def _make_agent(self) -> Agent:
        from holdfast import _assemble
        from holdfast.agents.demo import DemoAgent

        if self._told is None:
            return ModelSwitch(DemoAgent(), _assemble.as_agent)
        _assemble.import_from_here()
        return _assemble.LateAgent(partial(_assemble.agent_from, self._agent_id, self._told))

    async def _enter(self) -> Holdfast:
        from holdfast import _assemble

        opened = _assemble.opened(self.name, self._settings)
        self._hf = await self._stack.enter_async_context(opened)
        return self._hf

    async def _leave(self) -> None:
        """What runs here goes back to its place at once."""
        hf, self._hf, self._here = self._hf, None, False
        if hf is not None:
            await hf.close(finish_s=0)
            await self._stack.aclose()

    def _open(self) -> Holdfast:
        if self._hf is None:
            raise DrainingError
        return self._hf

    # --------------------------------------------------------------------- who answers

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                async with self._lock:
                    await self._look()
            except HoldfastError as error:
                _log.warning("the store did not serve this look: %s", error)

    async def _look(self) -> None:
        """Take over, or step back; with the lock."""
        if self._hf is None:  # It could not be opened again the last time.
            await self._enter()
        hf = self._open()
        assert self._agent is not None
        if not self._here:
            self._here = await stand_in(hf, self._key, self._agent)
        elif await hf.has_permanent_runner(self._agent_id) and not await self._runs():
            await self._leave()
            await self._enter()

    async def _runs(self) -> bool:
        """Whether a turn of the session runs in this process."""
        hf = self._open()
        session = await hf.session(self._key)
        running = (await hf.store.control.pulses([session.session_id]))[
            session.session_id
        ].running
        if running is None:
            return False
        return (await hf.store.control.turn(running)).owner_id == hf.store.owner.owner_id

    # ------------------------------------------------------------------------- messages

    async def submit(self, message: Outgoing) -> Accepted:
        out = Message(
            self._key, message.text, message.lane, message.source, message.policy,
            message.idempotency_key, message.model,
        )  # fmt: skip
        async with self._lock:
            await self._look()
            receipt = await self._submitted(out)
            await self._look()  # The first message has made the session.
        self._known.set()
        if self._here and not (message.model or self._told or self._said_demo):
            self._said_demo = True
            self._demo()
        return Accepted(
            receipt.turn_id, receipt.session_id, receipt.position, receipt.waiting_for
        )

    async def _submitted(self, message: Message) -> Receipt:
        """Sent again, with its key, for as long as the store only says that it is busy."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + PATIENCE_S
        while True:
            try:
                return await message.submit(self._open())
            except UnavailableError as error:
                if loop.time() > until_s:
                    raise
                _log.warning("the store did not take the message; again: %s", error)
                await asyncio.sleep(AGAIN_S)

    async def cancel(self, turn_id: str) -> str | None:
        async with self._lock:
            return (await self._open().cancel(turn_id)).outcome

    # -------------------------------------------------------------------------- reading

    async def follow(self, turn_id: str) -> AsyncGenerator[TurnEvent, None]:
        after: str | None = None
        while True:
            try:
                async with aclosing(
                    (await self._ready()).follow(turn_id, after=after)
                ) as events:
                    async for event in events:
                        after = event.event_id or after
                        yield event
                return
            except (DrainingError, UnavailableError) as error:
                await self._again(error)

    async def watch(self, after: str | None) -> AsyncGenerator[SessionEvent, None]:
        while True:
            self._known.clear()  # Before the look: what is learnt meanwhile is not missed.
            try:
                async with aclosing(
                    (await self._ready()).watch(self._key, after=after)
                ) as events:
                    async for event in events:
                        after = event.cursor or after
                        yield event
            except NotFoundError:  # Nobody has said anything yet: we may, or another.
                await self._may_be_known()
            except (DrainingError, UnavailableError) as error:
                await self._again(error)

    async def _ready(self) -> Holdfast:
        async with self._lock:
            return self._open()

    async def _again(self, error: HoldfastError) -> None:
        if self._closing:
            raise error
        await asyncio.sleep(AGAIN_S)

    async def _may_be_known(self) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                await self._known.wait()
        except TimeoutError:
            return

    async def recent(self, count: int) -> EntriesPage | None:
        async with self._lock:
            try:
                return await self._open().entries(self._key, last=count)
            except NotFoundError:
                return None

    async def whose(self, turn_id: str) -> Whose:
        async with self._lock:
            turn = await self._open().store.control.turn(_id(turn_id))
        return Whose(turn.lane, turn.source)

    async def facts(self) -> Facts:
        async with self._lock:
            hf = self._open()
            answers = await self._who_answers(hf)
            try:
                session_id = (await hf.session(self._key)).session_id
            except NotFoundError:
                return Facts(None, 0, None, answers)
            pulse = (await hf.store.control.pulses([session_id]))[session_id]
        return Facts(session_id, pulse.waiting, pulse.running, answers)

    async def _who_answers(self, hf: Holdfast) -> str:
        runners = await hf.store.control.permanent_runners(self._agent_id)
        for owner in runners:
            if not hf.store.is_dead(owner):
                return f"process {owner.pid} on {owner.host}"
        model = "" if self._told else ", with the built-in demo model unless --model names one"
        return f"this chat itself{model}"


def _id(turn_id: str) -> TurnId:
    from holdfast.types import TurnId

    return TurnId(turn_id)
