"""
Ending somebody else's attempt: what the reaper does about one lease.

    1. fence     the token moves on; whoever held it can append nothing more
    2. settle    a dead owner has vacated; one that may live gets its settle bound
    3. look      under the write lock: does an entry end the turn already?
    4. book      that outcome and nothing else; or back to its place; or `failed`

A reaper that dies in the middle leaves a lease in its own name, which the next one treats
the same way.  Recovery never starts a run: it lets the queue proceed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from holdfast._core import turns
from holdfast._runtime import booking, entries, mending, merging
from holdfast.errors import (
    BadTranscriptError,
    CoordinationError,
    LeaseLostError,
    LockWaitError,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast._core.settings import Settings
    from holdfast.ports import HeldTranscript, Store
    from holdfast.types import FencingToken, Session, Standing, Turn, TurnId

__all__ = ["Recovery"]

_log = logging.getLogger("holdfast.recovery")

#: Why an attempt is ended whose owner is certain to write nothing more.
_VACATED: Final = frozenset({"owner_died", "abandoned"})


class Recovery:
    """What one process does about holds that nobody will give back.  Loop-bound."""

    def __init__(self, store: Store, settings: Settings, ended: Callable[[Turn], None]) -> None:
        self._store, self._settings, self._ended = store, settings, ended

    async def end_attempt(self, lease: Standing, reason: str) -> None:
        """
        End the attempt that holds *lease*.

        Args:
            lease: as it was seen; if it has moved since, nothing is done.
            reason: ``owner_died``, ``owner_silent``, ``abandoned``, ``abort_ignored``, or
                one of `turns.ABORTS`.

        Raises:
            StoreError: the lease stays, in our name; the next look goes on.
        """
        control, me = self._store.control, self._store.owner.owner_id
        try:
            token = lease.token
            if not (lease.recovering and lease.owner_id == me):
                token = await control.take_over(lease.session_id, lease.token, me)
            # Who fenced it before us and died may not have waited out whom it had fenced.
            if lease.recovering or reason not in _VACATED:
                await asyncio.sleep(self._settings.settle_ms / 1000)
            turn = await control.turn(lease.turn_id)
            session = await control.session(lease.session_id)
            await self._close(session, turn, token, reason)
        except LeaseLostError:
            return  # Another reaper, or the owner itself, was faster.

    async def _close(
        self, session: Session, turn: Turn, token: FencingToken, reason: str
    ) -> None:
        loss = turns.after_loss(
            reason=reason,
            attempts=turn.attempts,
            attempts_max=self._settings.attempts_max,
            bound=turn.bound,
            abort=(turn.abort_reason or "cancelled") if turn.abort_requested else None,
        )
        try:
            held = await mending.acquire(
                self._store,
                session,
                timeout_s=self._settings.settle_ms / 1000,
                token=token,
                run_id=turn.turn_id,
                lane=turn.lane,
            )
        except LockWaitError as error:
            _log.info("turn %s: %s", turn.turn_id, error)
            if loss.outcome is None:  # The successor looks, under the write lock.
                await self._requeue(turn, token, loss)
            return
        except BadTranscriptError as error:
            hint = f"{error}; {error.hint}"
            self._ended(
                await self._store.control.end(
                    turn.turn_id, token, "failed", "bad_transcript", hint
                )
            )
            return
        try:
            await self._close_held(held, session, turn, token, loss)
        finally:
            held.release()

    async def _close_held(
        self,
        held: HeldTranscript,
        session: Session,
        turn: Turn,
        token: FencingToken,
        loss: turns.Loss,
    ) -> None:
        control, left = self._store.control, held.about(turn.turn_id)
        end = left.ends.get(turn.turn_id)
        if end is not None:
            _log.info("turn %s: its owner had ended it: %s", turn.turn_id, end.outcome)
            self._ended(await booking.found(control, held, session, turn, token, left, end))
        elif turn.finished is not None:
            leaf, hosted = held.leaf(), control.hosted(turn.turn_id)
            asked = left.questions.get(turn.turn_id)
            kept = booking.finished(held, turn, token, turn.finished, asked)
            batch = entries.reparented(kept, leaf)
            merged = merging.answered(held, hosted, leaf, turn.turn_id)
            appended = booking.append_checked(control, held, session, token, batch)
            held.release()
            self._ended(
                await booking.book_reply(control, turn, token, batch[-1], appended, merged)
            )
        elif loss.outcome is None:
            held.release()
            await self._requeue(turn, token, loss)
        else:
            assert loss.outcome is not None
            booking.append_ended(
                control, held, session, token, turn, loss.outcome, loss.reason,
                leaf=held.leaf(), question=left.questions.get(turn.turn_id),
            )  # fmt: skip
            held.release()
            self._ended(
                await control.end(
                    turn.turn_id, token, loss.outcome, loss.reason, turns.HINTS.get(loss.reason)
                )
            )

    async def _requeue(self, turn: Turn, token: FencingToken, loss: turns.Loss) -> None:
        _log.info("turn %s: back in its place: %s", turn.turn_id, loss.reason)
        await self._store.control.put_back(
            turn.turn_id, token, what=loss.event, reason=loss.reason
        )

    async def end_waiting(self, turn_id: TurnId, outcome: str, reason: str) -> Turn:
        """
        End a turn that waits in the queue.

        If it has run before, its question may stand in the transcript: then an entry ends it
        first, beside the branch, because another turn may be running on it.  A runner that
        leases it meanwhile finds that entry when its token takes effect.
        """
        control = self._store.control
        turn = await control.turn(turn_id)
        if turn.state != turns.State.ACCEPTED.value:
            return turn
        if turn.started_at is not None:
            try:
                if not await self._mark_ended(turn, outcome, reason):
                    return turn  # It has ended otherwise: who leases it next books that.
            except (StoreError, CoordinationError) as error:
                _log.info("turn %s: not ended yet: %s", turn_id, error)
                return turn
        turn = await control.end_waiting(turn_id, outcome, reason)
        self._ended(turn)
        return turn

    async def _mark_ended(self, turn: Turn, outcome: str, reason: str) -> bool:
        """False: an entry ends it already, and says something else; or it waits no more."""
        session = await self._store.control.session(turn.session_id)
        held = await mending.acquire(
            self._store,
            session,
            timeout_s=self._settings.settle_ms / 1000,
            token=None,
            run_id=turn.turn_id,
            lane=turn.lane,
        )
        try:
            # Under the lock: whoever leases it from now on loads after us, and sees the entry.
            now = self._store.control.turn_now(turn.turn_id)
            left = held.about(turn.turn_id)
            if now.state != turns.State.ACCEPTED.value:
                return False
            if (end := left.ends.get(turn.turn_id)) is not None:
                return (end.outcome, end.reason) == (outcome, reason)
            stamp = entries.Stamp(turn.turn_id, turn.attempts, turn.token or _NO_TOKEN)
            parent = left.questions.get(turn.turn_id) or held.leaf()
            held.append([entries.ended(stamp, parent, outcome, reason, side=True)], final=True)
            return True
        finally:
            held.release()


_NO_TOKEN: FencingToken = 0  # type: ignore[assignment]  # It never had a lease of its own.
