"""
The one door: messages in, receipts out; and the life of everything behind it.

    open ─▶ owner registered, keeper beating ─▶ runner registered ─▶ pump: look, look, …
    close ─▶ nothing new ─▶ running turns finish or go back ─▶ keeper stopped ─▶ owner leaves
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any, Final, Self

from holdfast._core import keys
from holdfast._core.turns import State
from holdfast._runtime import admission
from holdfast._runtime.keeper import Keeper
from holdfast._runtime.own_turn import OwnTurn
from holdfast._runtime.receipts import Receipts
from holdfast._runtime.recovery import Recovery
from holdfast._runtime.runner import Runner
from holdfast.errors import DrainingError, ForkedError, HoldfastError, StoreError
from holdfast.types import TurnId

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from holdfast._core.settings import Settings
    from holdfast._core.tree import Tree
    from holdfast._runtime.receipts import Receipt
    from holdfast.ports import Agent, Store
    from holdfast.types import Admitted, Session, Turn

__all__ = ["Holdfast"]

POLL_WAITING_S: Final = 0.25  #: Polling is the truth, while somebody waits; a hint is faster.
POLL_IDLE_S: Final = 1.0
FINISH_S: Final = 5.0  #: How long running turns may go on when their process closes.

_log = logging.getLogger("holdfast")


class Holdfast:
    """
    One process's access to one store.  Made by `holdfast.open`; loop-bound.

    With agents, this process is a runner: it answers turns, its own and those of processes
    that died or have no agent.  Without, it only admits and waits.
    """

    def __init__(self, store: Store, settings: Settings, agents: Mapping[str, Agent]) -> None:
        self.store, self.settings = store, settings
        self._agents = dict(agents)
        self._receipts = Receipts(store.control)
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()  #: Set, and made anew, at each look.
        self._own: set[TurnId] = set()
        self._runner = Runner(store, settings, {}, self._receipts.resolve, self._wake.set)
        self._recovery = Recovery(store, settings)
        self._keeper = Keeper(
            store,
            settings,
            asyncio.get_running_loop(),
            buried=self._buried,
            overdue=self._overdue,
            runs=lambda turn_id: turn_id in self._own or self._runner.runs(turn_id),
        )
        self._pump: asyncio.Task[None] | None = None
        self._unwatch: Any = None
        self._background: set[asyncio.Task[Any]] = set()
        self._permanent = True
        self._closing = False
        self._pid = os.getpid()

    # ------------------------------------------------------------------ opening, closing

    async def __aenter__(self) -> Self:
        try:
            await self.store.control.register(self.store.owner)
            if self._agents:
                await self._become_runner(self._agents, permanent=True)
            self._unwatch = self.store.control.watch(self._wake.set)
            self._keeper.start()
        except BaseException:
            await self.store.close()
            raise
        self._pump = asyncio.create_task(self._pumping(), name="holdfast pump")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self, *, finish_s: float = FINISH_S) -> None:
        """
        Take nothing new; let running turns finish within *finish_s* seconds, put the rest
        back in their places, and leave.  Waiting turns stay: another process, or the next
        start, answers them.  Idempotent.
        """
        if self._closing or self._pid != os.getpid():
            return
        self._closing = True
        try:
            await self.store.control.set_draining(self.store.owner.owner_id)
        except StoreError as error:
            _log.warning("closing: %s", error)
        await self._runner.stop(finish_s=finish_s)
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, *self._background, return_exceptions=True)
        if self._unwatch is not None:
            self._unwatch()
        self._receipts.close(DrainingError())
        await asyncio.get_running_loop().run_in_executor(None, self._keeper.stop)
        try:
            await self.store.control.leave(self.store.owner.owner_id)
        except StoreError as error:
            _log.warning("closing: %s", error)  # Our death will be proven; nothing hangs.
        await self.store.close()

    async def _become_runner(self, agents: Mapping[str, Agent], *, permanent: bool) -> None:
        self._permanent = permanent
        await self.store.control.register_runner(
            self.store.owner.owner_id, agents.keys(), permanent=permanent
        )
        self._runner.agents.update(agents)
        self._wake.set()

    async def _pumping(self) -> None:
        while True:
            waits = len(self._receipts) or self._runner.running or self._own
            try:
                async with asyncio.timeout(POLL_WAITING_S if waits else POLL_IDLE_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
            try:
                await self._runner.look()
                await self._receipts.look()
            except HoldfastError as error:
                _log.warning("the store did not serve this look: %s", error)
            except Exception:  # noqa: BLE001  A runtime that looks no more hangs.
                _log.exception("a look failed")

    # ------------------------------------------------------- told by the keeper's thread

    def _buried(self) -> None:
        """Another process called us dead.  We are not, but everything we held is gone."""
        self._runner.fenced()
        task = asyncio.get_running_loop().create_task(self._rise())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _rise(self) -> None:
        if self._closing:
            return
        await self.store.control.register(self.store.owner)
        if self._runner.agents:
            await self._become_runner(self._runner.agents, permanent=self._permanent)

    def _overdue(self, turns: frozenset[TurnId]) -> None:
        if turns != self._runner.overdue:
            self._runner.overdue = turns
            self._loop_wake()

    def _loop_wake(self) -> None:
        if self._pump is not None:
            self._pump.get_loop().call_soon_threadsafe(self._wake.set)

    # ---------------------------------------------------------------------- messages in

    async def submit(
        self,
        key: str,
        text: str,
        *,
        lane: str = "user",
        source: str = "api",
        policy: str | None = None,
        idempotency_key: str | None = None,
        model: str | None = None,
    ) -> Receipt:
        """
        Hand in a message.  When this returns, it is durable, and will end in one outcome.

        Args:
            key: a session key or an alias, e.g. ``agent:main:main``.
            text: the message; at most `gateway.max_message_bytes` as UTF-8.
            lane: its class of concurrency and priority.
            source: where it came from; one word, kept with the turn.
            policy: what to do if the session is busy: ``enqueue`` or ``reject``.
            idempotency_key: the same key with the same text gives the same receipt.
            model: answers this turn only, instead of the agent's own.

        Raises:
            InputError: bad key, lane, policy, size, …: nothing was accepted.
            QueueFullError, RejectedError: nothing was accepted.
            UnavailableError: ``landed`` False: not accepted; None: unknown, send again
                with the same idempotency key.

        Cancellation:
            The message may or may not have been accepted.

        Cost:
            One synced transaction: 0.5 to 1 ms on a local disk.
        """
        admitted = await self._admit(
            key, text, lane=lane, source=source, policy=policy,
            idempotency_key=idempotency_key, model=model, bound=False,
        )  # fmt: skip
        self._wake.set()
        return await self._receipts.receipt(
            admitted.turn, self.settings.lanes, fresh=admitted.fresh
        )

    def turn(
        self,
        key: str,
        text: str,
        *,
        lane: str = "user",
        source: str = "api",
        policy: str | None = None,
    ) -> OwnTurn:
        """
        Bring your own loop: ``async with hf.turn(key, text) as turn``.

        Queues like any message, then leases the session and hands out the history;
        ``turn.reply(text)`` commits.  Bound to this process: if it dies, the turn ends
        ``failed``, reason ``owner_died``.
        """

        async def admit() -> Admitted:
            return await self._admit(
                key, text, lane=lane, source=source, policy=policy,
                idempotency_key=None, model=None, bound=True,
            )  # fmt: skip

        return OwnTurn(self, admit)

    async def _admit(
        self,
        key: str,
        text: str,
        *,
        lane: str,
        source: str,
        policy: str | None,
        idempotency_key: str | None,
        model: str | None,
        bound: bool,
    ) -> Admitted:
        self._check_usable()
        me = self.store.owner.owner_id
        asked = admission.asked(
            self.settings,
            key,
            text,
            lane=lane,
            source=source,
            policy=policy,
            idempotency_key=idempotency_key,
            model=model,
            bound=bound,
            home=lambda agent_id: me if bound or agent_id in self._runner.agents else None,
        )
        return await self.store.control.admit(asked, self.settings.agents)

    def _check_usable(self) -> None:
        if self._pid != os.getpid():
            raise ForkedError(what="this open store")
        if self._closing:
            raise DrainingError

    # ------------------------------------------------------------- turns and sessions

    async def receipt(self, turn_id: str) -> Receipt:
        """The receipt of an earlier message.  Raises NotFoundError."""
        turn = await self.store.control.turn(TurnId(turn_id))
        return await self._receipts.receipt(turn, self.settings.lanes, fresh=False)

    async def cancel(self, turn_id: str) -> Turn:
        """
        Ask for a turn's end.

        A waiting turn ends now; a running one as soon as its owner sees it, and what it has
        finished by then is still committed.  One that has its outcome keeps it.
        """
        turn = await self.store.control.cancel(TurnId(turn_id))
        if turn.state == State.ACCEPTED.value:
            turn = await self._recovery.end_waiting(turn.turn_id, "cancelled", "cancelled")
        self._receipts.resolve(turn)
        self._wake.set()
        return turn

    async def add_alias(self, alias: str, key: str) -> str:
        """Let *alias*, a session key, name the conversation of *key*.  Returns the latter."""
        return await self.store.control.make_alias(keys.canonical(alias), keys.canonical(key))

    async def session(self, key: str) -> Session:
        """The session that *key* names.  Raises NotFoundError."""
        return await self.store.control.session_of_key(keys.canonical(key))

    async def transcript(self, key: str) -> Tree:
        """The transcript as it stands: no lock, no row, no byte changed."""
        session = await self.session(key)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self.store.transcripts.read, session)

    # ------------------------------------------------------------- embedded runners

    async def has_permanent_runner(self, agent_id: str) -> bool:
        """Whether a process that serves *agent_id* for good is there, and not proven dead."""
        runners = await self.store.control.permanent_runners(agent_id)
        return any(not self.store.is_dead(runner) for runner in runners)

    async def embed(self, agents: Mapping[str, Agent], *, key: str | None = None) -> None:
        """
        Become an embedded runner: run turns, but never be a reason for others not to.

        With *key*, only that session's turns are run: the caller's own, and orphans that
        stand before it.
        """
        if key is not None:
            self._runner.session_id = (await self.session(key)).session_id
        await self._become_runner(agents, permanent=False)

    # -------------------------------------------------------------- for `own_turn` only

    async def change(self) -> None:
        """Until something may have changed in the store: a hint, or the poll behind it."""
        await self._changed.wait()

    def took(self, turn_id: TurnId) -> None:
        self._own.add(turn_id)

    def gave_back(self, turn: Turn | None, turn_id: TurnId) -> None:
        self._own.discard(turn_id)
        if turn is not None:
            self._receipts.resolve(turn)
        self._wake.set()
