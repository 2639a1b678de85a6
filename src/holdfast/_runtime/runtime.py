"""
The one door: messages in, receipts out; and the life of everything behind it.

    open ─▶ owner registered, keeper beating ─▶ runner registered ─▶ pump: look, look, …
    close ─▶ nothing new ─▶ running turns finish or go back ─▶ keeper stopped ─▶ owner leaves
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Self

from holdfast._core import keys
from holdfast._core.turns import State
from holdfast._runtime import admission
from holdfast._runtime.keeper import Keeper
from holdfast._runtime.meter import Meter
from holdfast._runtime.own_turn import OwnTurn
from holdfast._runtime.pump import Pump
from holdfast._runtime.reading import Reading
from holdfast._runtime.receipts import Receipts
from holdfast._runtime.recovery import Recovery
from holdfast._runtime.runner import Runner
from holdfast.errors import DrainingError, StoreError
from holdfast.types import Drained, TurnId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast._core.settings import Settings
    from holdfast._runtime.receipts import Receipt
    from holdfast.ports import Agent, Store
    from holdfast.types import Admitted, Turn

__all__ = ["Holdfast"]

FINISH_S: Final = 5.0  #: How long running turns may go on when their process closes.

_log = logging.getLogger("holdfast")


class Holdfast(Reading):
    """
    One process's access to one store.  Made by `holdfast.open`; loop-bound.

    With agents, this process is a runner: it answers turns, its own and those of processes
    that died or have no agent.  Without, it only admits and waits.
    """

    def __init__(self, store: Store, settings: Settings, agents: Mapping[str, Agent]) -> None:
        super().__init__(store, settings)
        self.meter = Meter()
        self._agents = dict(agents)
        self._receipts = Receipts(store.control)
        self._pump = Pump(self._look, self._somebody_waits)
        self._own: set[TurnId] = set()
        self._runner = Runner(store, settings, {}, self._ended, self._pump.wake)
        self._recovery = Recovery(store, settings, self.meter.ended)
        self._keeper = Keeper(
            store,
            settings,
            asyncio.get_running_loop(),
            buried=self._buried,
            overdue=self._overdue,
            runs=lambda turn_id: turn_id in self._own or self._runner.runs(turn_id),
            ended=self.meter.ended,
        )
        self._unwatch: Any = None
        self._background: set[asyncio.Task[Any]] = set()
        self._permanent = True
        self._closing = self._closed = False

    # ------------------------------------------------------------------ opening, closing

    async def __aenter__(self) -> Self:
        try:
            await self.store.control.register(self.store.owner)
            if self._agents:
                await self._become_runner(self._agents, permanent=True)
            self._unwatch = self.store.control.watch(self._told)
            self._keeper.start()
        except BaseException:
            await self.store.close()
            raise
        self._pump.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        if not self._home.left:  # A forked child leaves the block, and nothing else.
            await self.close()

    async def close(self, *, finish_s: float = FINISH_S) -> None:
        """
        Drain (see `drain`) and leave.  Waiting turns stay: another process, or the next
        start, answers them.  Idempotent.  ForkedError in a forked child.
        """
        if self._closed:
            return
        self._home.check()
        self._closed = True
        await self.drain(finish_s=finish_s)
        await self._pump.stop()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._unwatch is not None:
            self._unwatch()
        await self.dismiss()
        await asyncio.get_running_loop().run_in_executor(None, self._keeper.stop)
        try:
            await self.store.control.leave(self.store.owner.owner_id)
        except StoreError as error:
            _log.warning("closing: %s", error)  # Our death will be proven; nothing hangs.
        await self.store.close()

    async def drain(self, *, finish_s: float = FINISH_S) -> Drained:
        """
        Take nothing new and start nothing more; let running turns finish within *finish_s*
        seconds, and put the rest back in their places.  What can be read still can be.

        Returns:
            What was left behind.  Called again while it drains: the rest goes back at once.

        Cancellation:
            Draining goes on; turns that run are put back when the process closes.
        """
        self._home.check()
        if not self._closing:
            self._closing = True
            try:
                await self.store.control.set_draining(self.store.owner.owner_id)
            except StoreError as error:
                _log.warning("draining: %s", error)
        finished, put_back = await self._runner.stop(finish_s=finish_s)
        try:
            waiting = (await self.store.control.counts()).waiting
        except StoreError as error:
            _log.warning("draining: what waits is not known: %s", error)
            waiting = put_back
        return Drained(finished, put_back, waiting)

    async def dismiss(self) -> None:
        """Tell whoever still waits or watches here to do so elsewhere.  Idempotent."""
        self._home.check()
        self._receipts.close(DrainingError())
        await self._watchers.close()

    @property
    def draining(self) -> bool:
        return self._closing

    async def _become_runner(self, agents: Mapping[str, Agent], *, permanent: bool) -> None:
        self._permanent = permanent
        await self.store.control.register_runner(
            self.store.owner.owner_id, agents.keys(), permanent=permanent
        )
        self._runner.agents.update(agents)
        self._pump.wake()

    def _told(self) -> None:
        """The store was changed, by us or by others."""
        self._pump.wake()
        self._watchers.wake()

    def _ended(self, turn: Turn) -> None:
        """A turn that ran here has its outcome, or its place in the queue again."""
        self.meter.ended(turn)
        self._receipts.resolve(turn)

    async def _look(self) -> None:
        await self._runner.look()
        await self._receipts.look()

    def _somebody_waits(self) -> bool:
        return bool(len(self._receipts) or self._runner.running or self._own)

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
            self._pump.wake_from_thread()

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
        instructions: str | None = None,
        seed: Sequence[Mapping[str, str]] = (),
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
            instructions: told to the agent for this turn only, beside its own.
            seed: earlier messages, ``{"role": "user"|"assistant", "content": str}``, that
                a session without any message begins with; ignored by any other.

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
            instructions=instructions, seed=seed,
        )  # fmt: skip
        self._pump.wake()
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

    async def _admit(self, key: str, text: str, *, bound: bool, **more: Any) -> Admitted:
        """*more*: what `admission.asked` takes."""
        self._check_usable()
        me = self.store.owner.owner_id
        asked = admission.asked(
            self.settings,
            key,
            text,
            bound=bound,
            home=lambda agent_id: me if bound or agent_id in self._runner.agents else None,
            **more,
        )
        admitted = await self.store.control.admit(asked, self.settings.agents)
        self.meter.admitted(admitted)
        return admitted

    def _check_usable(self) -> None:
        self._home.check()
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
        self._pump.wake()
        return turn

    async def add_alias(self, alias: str, key: str) -> str:
        """Let *alias*, a session key, name the conversation of *key*.  Returns the latter."""
        return await self.store.control.make_alias(keys.canonical(alias), keys.canonical(key))

    # ------------------------------------------------------------- embedded runners

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
        self._home.check()
        await self._pump.change()

    def took(self, turn_id: TurnId) -> None:
        self._own.add(turn_id)

    def gave_back(self, turn: Turn | None, turn_id: TurnId) -> None:
        self._own.discard(turn_id)
        if turn is not None:
            self._ended(turn)
        self._pump.wake()
