"""Messages in, receipts out: the half of the door that writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from holdfast import _points
from holdfast._core import keys
from holdfast._core.turns import State
from holdfast._runtime import admission, asking
from holdfast._runtime.own_turn import OwnTurn
from holdfast._runtime.targets import part_chars_of
from holdfast.errors import DrainingError
from holdfast.types import TurnId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast._core.settings import Settings
    from holdfast._runtime.delivering import Deliverer
    from holdfast._runtime.forks import Home
    from holdfast._runtime.handing import Handing
    from holdfast._runtime.meter import Meter
    from holdfast._runtime.pump import Pump
    from holdfast._runtime.receipts import Outcome, Receipt, Receipts
    from holdfast._runtime.recovery import Recovery
    from holdfast._runtime.runner import Runner
    from holdfast._runtime.warning import Warnings
    from holdfast.ports import Store
    from holdfast.types import Admitted, Turn

__all__ = ["Sending"]


class Sending:
    """What `Holdfast` does with messages and turns.  Its parts are made by `Holdfast`."""

    store: Store
    settings: Settings
    meter: Meter
    handing: Handing
    _home: Home
    _pump: Pump
    _receipts: Receipts
    _recovery: Recovery
    _runner: Runner
    _warnings: Warnings
    _own: set[TurnId]
    _deliverer: Deliverer
    _closing: bool

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
        sender: str | None = None,
        target: str | None = None,
        parent: str | None = None,
    ) -> Receipt:
        """
        Hand in a message.  When this returns, it is durable, and will end in one outcome.

        Args:
            key: a session key or an alias, e.g. ``agent:main:main``.
            text: the message; at most `gateway.max_message_bytes` as UTF-8.
            lane: its class of concurrency and priority.
            source: where it came from; one word, kept with the turn.
            policy: what to do if the session is busy: ``enqueue``, ``collect``, ``steer``,
                ``interrupt``, ``reject``, ``rollback``.  None: the lane's, or `turn.policy`.
            idempotency_key: the same key with the same text gives the same receipt.
            model: answers this turn only, instead of the agent's own.
            instructions: told to the agent for this turn only, beside its own.
            seed: earlier messages, ``{"role": "user"|"assistant", "content": str}``, that
                a session without any message begins with; ignored by any other.
            sender: who speaks, as their channel names them; messages of different senders
                are never collected into one turn.
            target: ``channel:address`` that the reply is to be delivered to.
            parent: the turn on whose behalf this is asked.

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
            instructions=instructions, seed=seed, sender=sender, target=target, parent=parent,
        )  # fmt: skip
        return await self._receipts.receipt(
            admitted.turn, self.settings.lanes, fresh=admitted.fresh
        )

    async def ask(self, key: str, text: str, *, lane: str = "subagent", **more: Any) -> Outcome:
        """
        Hand in a message and wait for its outcome.

        Inside a turn (in a tool, or in ``async with hf.turn(…)``) that turn is its parent: it
        gives its slot back while it waits, keeps its session, and takes the next free slot
        ahead of new turns before this returns.

        Args:
            more: what `submit` takes.

        Raises:
            DeadlockError: the message would wait for the very turn that waits for it; the
                cycle is named, and nothing was accepted.
            As `submit`.

        Cancellation:
            The message stays accepted; the slot is taken again first.
        """
        return await asking.ask(self, key, text, lane=lane, **more)

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

        In the task of another turn's block, or of its tool, that turn is the parent and waits
        for this one, as in `ask`; DeadlockError if that could never end.
        """

        async def admit(parent: TurnId | None) -> Admitted:
            return await self._admit(
                key, text, lane=lane, source=source, policy=policy,
                idempotency_key=None, model=None, bound=True,
                parent=parent, awaited=parent is not None,
            )  # fmt: skip

        return OwnTurn(self, admit)

    async def submit_child(self, key: str, text: str, parent: TurnId, **more: Any) -> TurnId:
        """For `asking`: a message that *parent* is going to wait for."""
        given = {
            "source": "api",
            "policy": None,
            "idempotency_key": None,
            "model": None,
            **more,
        }
        admitted = await self._admit(
            key, text, bound=False, parent=parent, awaited=True, **given
        )
        return admitted.turn.turn_id

    async def outcome_of(self, turn_id: TurnId) -> Turn:
        return await self._receipts.outcome(turn_id)

    async def _admit(self, key: str, text: str, *, bound: bool, **more: Any) -> Admitted:
        """*more*: what `admission.asked` takes."""
        self._check_usable()
        me, target = self.store.owner.owner_id, more.get("target")
        if target is not None:
            more["part_chars"] = part_chars_of(target, self.settings, self._deliverer.channels)
        asked = admission.asked(
            self.settings,
            key,
            text,
            bound=bound,
            home=lambda agent_id: me if bound or agent_id in self._runner.agents else None,
            **more,
        )
        admitting = asyncio.create_task(self.store.control.admit(asked, self.settings.agents))
        picking = self._runner.pick_along(asked)
        admitted = await admitting
        _points.reach("admit.committed")
        if not picking:
            self._pump.wake()
        self.meter.admitted(admitted)
        self._warnings.waits(admitted.turn)
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

    async def cancel(self, turn_id: str, *, rollback: bool = False) -> Turn:
        """
        Ask for a turn's end.

        A waiting turn ends now; a running one as soon as its owner sees it, and what it has
        finished by then is still committed.  One that has its outcome keeps it.  One that was
        taken into another turn's run ends with that.

        Args:
            rollback: its question leaves the conversation, too.

        Raises:
            NotFoundError.
            RejectedError: a committed turn cannot be rolled back.
        """
        turn = await self.store.control.cancel(TurnId(turn_id), rollback=rollback)
        if turn.state == State.ACCEPTED.value and turn.host is None:
            turn = await self._recovery.end_waiting(turn.turn_id, "cancelled", "cancelled")
        self._receipts.resolve(turn)
        self._pump.wake()
        return turn

    async def add_alias(self, alias: str, key: str) -> str:
        """Let *alias*, a session key, name the conversation of *key*.  Returns the latter."""
        return await self.store.control.make_alias(keys.canonical(alias), keys.canonical(key))

    # -------------------------------------------------------------- for `own_turn` only

    async def change(self) -> None:
        """Until something may have changed in the store: a hint, or the poll behind it."""
        self._home.check()
        await self._pump.change()

    def _ended(self, turn: Turn) -> None:
        """A turn that ran here has its outcome, or its place in the queue again."""
        self.meter.ended(turn)
        if turn.ended:
            self._warnings.over(turn.turn_id)
        self._warnings.waits(turn)
        self._receipts.resolve(turn)

    def took(self, turn_id: TurnId) -> None:
        self._own.add(turn_id)
        self._pump.wake()  # Somebody waits now: an idle pump asks before it sleeps only.

    def gave_back(self, turn: Turn | None, turn_id: TurnId) -> None:
        self._own.discard(turn_id)
        if turn is not None:
            self._ended(turn)
        self._pump.wake()
