"""
`hf.turn`: a turn that its caller answers itself, in its own loop.

It queues and leases like any other turn and commits under the same fence; only the model
call is the caller's.  Nobody else can run it, so it lives and dies with this process.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, Self

from holdfast._core import turns
from holdfast._core.tree import text_of
from holdfast._runtime import steering
from holdfast._runtime.asking import Outer
from holdfast._runtime.attempt import LOCK_AGAIN_MS, Attempt, Begun
from holdfast._runtime.conversation import Ended, Said
from holdfast._runtime.current import CURRENT, Current
from holdfast._runtime.progress import OwnRun
from holdfast._runtime.using import Use
from holdfast.errors import (
    BadRequestError,
    HoldfastError,
    LeaseLostError,
    LockWaitError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractContextManager
    from contextvars import Token
    from types import TracebackType

    from holdfast._core.handover import Facts
    from holdfast._core.settings import Settings
    from holdfast._runtime.handing import Handing
    from holdfast.ports import Store
    from holdfast.types import Admitted, Leased, Steered, Turn, TurnId

__all__ = ["OwnTurn"]

_HANDED_OVER = "somebody asked for its session while its program did nothing with it"


class _Door(Protocol):
    """What a turn needs of the runtime it belongs to."""

    store: Store
    settings: Settings
    handing: Handing

    async def cancel(self, turn_id: str) -> Turn: ...
    async def change(self) -> None: ...
    def took(self, turn_id: TurnId) -> None: ...
    def gave_back(self, turn: Turn | None, turn_id: TurnId) -> None: ...


class OwnTurn:
    """
    ``async with hf.turn(key, text) as turn: await turn.reply(…)``.

    Leaving without a reply ends the turn ``silent``; leaving by an exception ends it
    ``failed`` (or ``cancelled``), and the exception goes on.  If somebody had asked for its
    end before, it ends by that: ``cancelled``, reason ``interrupted``, for one.

    Somebody may ask this process to let go of the session (``holdfast turns handover``).  A
    block that has used its turn within the last 2 seconds keeps it; otherwise the turn ends
    ``cancelled``, reason ``handed_over``, and whatever is asked of it afterwards raises
    LeaseLostError.

    Nobody sees what a block does but by what it asks of its turn; reading `abort_requested`
    will do.  One that asks nothing for `turn.progress_timeout_ms`, or lasts longer than
    `turn.max_ms`, is asked to end, and fenced after `abort.settle_ms`: the turn ends
    ``failed``, reason ``no_progress`` or ``max_time``.  While it waits in ``hf.ask`` the
    child's progress counts.
    """

    def __init__(
        self, door: _Door, admit: Callable[[TurnId | None], Awaitable[Admitted]]
    ) -> None:
        self._door, self._admit = door, admit
        self._attempt: Attempt | None = None
        self._begun: Begun | None = None
        self._ended: Turn | None = None
        self._failure: HoldfastError | None = None
        self._current: Token[Current | None] | None = None
        self._unsettled = False  #: `reply` was torn off: only the transcript knows its end.
        self._use = Use()
        self._leaving = False
        self._handed = asyncio.Event()  #: It was handed over, and is nobody's here any more.
        self.judged: OwnRun | None = None  #: For the keeper's thread, once it runs.

    @property
    def text(self) -> str:
        """The question, and behind it those that were collected into this turn."""
        self._use.touch()
        assert self._begun is not None
        return self._begun.text

    @property
    def turn_id(self) -> str:
        return self._running.turn.turn_id

    @property
    def token(self) -> int:
        """The fencing token of this turn's lease, for stores of your own."""
        self._use.touch()
        return self._running.token

    def history(self) -> tuple[Mapping[str, Any], ...]:
        """The conversation so far, as messages, oldest first, without this question."""
        self._use.touch()
        assert self._begun is not None
        return self._begun.history

    async def steered(self) -> tuple[Steered, ...]:
        """
        Messages that were sent into this turn (policy ``steer``) since it was last asked.

        They stand in the transcript from now on, and are answered by this turn's reply.

        Raises:
            FencedError, LeaseLostError: the turn is not ours any more.
            StoreError: they could not be written.
        """
        with self._use.call():
            found, _ = await steering.taken_in(self._running, ())
        return tuple(found)

    @property
    def abort_requested(self) -> str | None:
        """
        Why somebody wants this turn ended: ``cancelled``, ``interrupted``, …; None: nobody.

        A block that goes on nevertheless is fenced after `abort.settle_ms`.
        """
        self._use.touch()
        return self._use.abort

    async def wait_aborted(self) -> str:
        """
        Until somebody wants this turn ended; returns why.

        Raises:
            LeaseLostError: it was handed over before.

        Cancellation:
            Safe.
        """
        self._use.touch()
        return await self._use.aborted()

    async def reply(self, text: str, *, messages: tuple[Mapping[str, Any], ...] = ()) -> None:
        """
        Commit the reply.  Exactly once.

        Args:
            text: what the assistant says.
            messages: tool calls and results on the way to it, in the transcript's form.

        Raises:
            FencedError, LeaseLostError: the turn is not ours any more; nothing was written.
            StoreError: it could not be written.

        Cancellation:
            The reply may or may not have been written; the turn's outcome says which.
        """
        with self._use.call():
            await self._reply(text, messages)

    async def _reply(self, text: str, messages: tuple[Mapping[str, Any], ...]) -> None:
        if self._is_answered:
            raise BadRequestError(detail="this turn has been answered already")
        message = {
            "role": "assistant",
            "content": [{"type": "text", "text": text}],
            "stopReason": "stop",
            "timestamp": time.time_ns() // 1_000_000,
        }
        said = Said((*messages, message), self._running.turn.attempts)
        assert text_of(message) == text
        self._unsettled = True
        try:
            self._ended = await self._running.finish(said)
        except HoldfastError as error:
            self._failure = error
            self._unsettled = False
            raise
        self._unsettled = False

    async def __aenter__(self) -> Self:
        self._outer = Outer(self._door)
        admitted = await self._admitted()
        turn_id = admitted.turn.turn_id
        self._door.took(turn_id)
        try:
            await self._outer.waits_for(turn_id)
            while True:
                leased = await self._lease(turn_id)
                self._attempt = Attempt(self._door.store, self._door.settings, leased)
                try:
                    begun = await self._attempt.begin()
                except LockWaitError:
                    await self._attempt.give_back("write_lock", delay_ms=LOCK_AGAIN_MS)
                    continue
                if isinstance(begun, Begun):
                    self._begun = begun
                    me = self._door.store.owner.owner_id
                    mine = Current(turn_id, leased.token, me, asyncio.current_task())
                    self._current = CURRENT.set(mine)
                    self._use.begin()
                    self.judged = OwnRun(leased.turn, leased.token, self._use.progress)
                    self._door.handing.own[turn_id] = self
                    return self
                self._door.gave_back(begun, turn_id)
                raise LeaseLostError(turn_id=turn_id, token=leased.token)
        except BaseException:
            await self._abandon(turn_id)
            await self._outer.goes_on()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._leave(error)
        finally:
            await self._outer.goes_on()

    async def _leave(self, error: BaseException | None) -> None:
        attempt = self._running
        if self._current is not None:
            with suppress(ValueError):  # Left in another task than it was entered in.
                CURRENT.reset(self._current)
        if self._use.over is not None:
            await self._handed.wait()
            return
        self._leaving = True
        try:
            if self._unsettled:
                return  # The reaper looks under the write lock, and books what it finds.
            if self._failure is not None:
                self._ended = await attempt.failed(self._failure)
            elif self._ended is None:
                now = self._door.store.control.turn_now(attempt.turn.turn_id)
                self._ended = await attempt.finish(_ending(error, now.abort_reason))
        except HoldfastError as echo:
            self._ended = await attempt.failed(echo)
            if error is None:
                raise  # What was done in here was for nothing: say so.
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        attempt = self._running
        await attempt.let_go()
        self._door.handing.own.pop(attempt.turn.turn_id, None)
        self._door.gave_back(self._ended, attempt.turn.turn_id)

    def waiting(self) -> AbstractContextManager[None]:
        """For `asking`: a child of this turn is waited for."""
        return self._use.waiting()

    # ------------------------------------------------------------------ for `handing` only

    def facts(self) -> Facts:
        """What `_core.handover` decides by."""
        return self._use.facts(finishing=self._is_answered or self._leaving)

    def see_abort(self, reason: str) -> None:
        self._use.see_abort(reason)

    def shut(self) -> None:
        """From here on nothing is done through this object but `hand_over`."""
        attempt = self._running
        self._use.over = LeaseLostError(turn_id=attempt.turn.turn_id, token=attempt.token)
        self._use.see_abort("handed_over")

    async def hand_over(self) -> None:
        """End the turn, because somebody asked for its session; after `shut`."""
        attempt = self._running
        try:
            self._ended = await attempt.finish(Ended("cancelled", "handed_over", _HANDED_OVER))
        except HoldfastError as error:
            self._ended = await attempt.failed(error)
        finally:
            await self._let_go()
            self._handed.set()

    @property
    def _is_answered(self) -> bool:
        return self._ended is not None or self._failure is not None or self._unsettled

    @property
    def _running(self) -> Attempt:
        assert self._attempt is not None, "only inside `async with`"
        return self._attempt

    async def _admitted(self) -> Admitted:
        """Cancelled on the way, the message may have landed: then it is taken out again."""
        admitting = asyncio.ensure_future(self._admit(self._outer.turn_id))
        try:
            return await asyncio.shield(admitting)
        except asyncio.CancelledError:
            with suppress(HoldfastError):
                await self._abandon((await admitting).turn.turn_id)
            raise

    async def _lease(self, turn_id: TurnId) -> Leased:
        control, me = self._door.store.control, self._door.store.owner.owner_id
        while True:
            if await control.is_head(turn_id):  # Cheap; a pick is a transaction.
                leased = await control.pick(me, (), self._door.settings.lanes, only=turn_id)
                if leased is not None:
                    return leased
            if (turn := await control.turn(turn_id)).ended:
                self._door.gave_back(turn, turn_id)
                raise LeaseLostError(turn_id=turn_id, token=0)
            await self._door.change()

    async def _abandon(self, turn_id: TurnId) -> None:
        """We never got to run it: end it, so that nobody waits behind a ghost."""
        turn = None
        try:
            turn = await self._door.cancel(turn_id)
        except HoldfastError:
            pass  # The first cause is on its way; the reaper ends what we could not.
        finally:
            self._door.gave_back(turn if turn and turn.ended else None, turn_id)


def _ending(error: BaseException | None, asked: str | None) -> Ended:
    """*asked*: why somebody wanted its end before the block was left: that came first."""
    if asked is not None:
        return Ended(turns.ABORTS[asked] or "failed", asked, turns.HINTS.get(asked))
    if error is None:
        return Ended("silent", "no_reply", None)
    if isinstance(error, asyncio.CancelledError):
        return Ended("cancelled", "cancelled", None)
    return Ended("failed", "agent_error", f"{type(error).__name__}: {error}")
