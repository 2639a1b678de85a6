"""
The right to act for one leased turn: making its token effective, and closing it.

    begin   write lock ─ token checked ─ history loaded ─ question appended ─ mark left
            ─▶ window open: the model may be called
    finish  window closed ─ reply appended after whatever came in between ─▶ row moved

Who calls the model in between is not told here: `run.py` asks an agent, `own_turn.py` lets
the caller do it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast import _points
from holdfast._core import turns
from holdfast._runtime import booking, entries
from holdfast._runtime.conversation import Ended, Said
from holdfast._runtime.window import PromptWindow
from holdfast._stamps import now_ms
from holdfast.errors import (
    BadTranscriptError,
    CoordinationError,
    FencedError,
    LeaseLostError,
    LockLostError,
    LockTimeoutError,
    LockWaitError,
    StoreError,
    TakeoverError,
)

if TYPE_CHECKING:
    from holdfast._core.settings import Settings
    from holdfast._core.tree import Tree
    from holdfast._runtime.live import Live
    from holdfast.errors import (
        HoldfastError,
    )
    from holdfast.ports import HeldTranscript, Store
    from holdfast.types import Advance, Entry, FencingToken, Leased, Mark, Turn

__all__ = ["LOCK_AGAIN_MS", "Attempt", "Begun"]

#: A session whose write lock was not had is a candidate again after this.
LOCK_AGAIN_MS = 1_000

_log = logging.getLogger("holdfast.turn")


@dataclass(frozen=True, slots=True)
class Begun:
    """The token is effective: what the model may be told."""

    history: tuple[Any, ...]
    question: str  #: The id of the turn's user entry.
    instructions: str | None  #: For this turn only.


class Attempt:
    """
    The right to act for one leased turn, and what it does with it.

    After `begin` or `finish` has raised, `failed` says what becomes of the turn; at the very
    end comes `let_go`, whatever happened.
    """

    def __init__(self, store: Store, settings: Settings, leased: Leased) -> None:
        self._store, self._settings, self._leased = store, settings, leased
        self.turn: Turn = leased.turn
        self.token: FencingToken = leased.token
        self.session = leased.session
        self._held: HeldTranscript | None = None
        self._mark: Mark | None = None
        self._question: str | None = None
        self._finished: list[Entry] | None = None
        self._kept = False
        self._slow = 0  #: Settle bounds that we have waited for the write lock in vain.
        self._window = PromptWindow(self)
        self.live: Live | None = None  #: Whoever lets others watch puts it here.

    # ----------------------------------------------------------------------- the window

    def take_mark(self) -> None:
        assert self._held is not None
        self._mark = self._held.mark()

    def release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.release()

    async def acquire(self) -> None:
        self._held = await self._store.transcripts.acquire(
            self.session,
            timeout_s=self._settings.settle_ms / 1000,
            token=self.token,
            run_id=self.turn.turn_id,
            lane=self.turn.lane,
        )

    def compare(self) -> Advance:
        assert self._held is not None
        assert self._mark is not None
        return self._held.advance(self._mark)

    async def keep(self) -> None:
        """
        The write lock is slow.  A finished reply waits in the turn's row, where a successor
        finds it; we go on waiting, up to `session.write_lock.acquire_timeout_ms` in all.
        """
        self.check()
        if self._finished is not None and not self._kept:
            finished = msgspec.json.encode(self._finished)
            await self._store.control.keep(self.turn.turn_id, self.token, finished)
            self._kept = True
        self._slow += 1
        waited_ms = self._slow * self._settings.settle_ms
        if waited_ms >= self._settings.write_lock_acquire_timeout_ms:
            raise LockTimeoutError(
                path=self._store.transcripts.path(self.session),
                timeout_s=waited_ms / 1000,
                holder="see the last wait",
            )

    def report_leak(self) -> None:
        _log.error("turn %s: our claim could not be removed", self.turn.turn_id)

    def check(self) -> None:
        """Raises FencedError unless this attempt may still act."""
        try:
            booking.check_token(self._store.control, self.session, self.token)
        except FencedError:
            if self.live is not None:
                self.live.silence()
            raise

    # -------------------------------------------------------------------------- begin

    async def begin(self) -> Begun | Turn:
        """
        Make the token effective: the write lock, the history, the question, the mark.

        Returns:
            What to tell the model; or the turn, if it needs no model any more: an earlier
            attempt had ended it, somebody wants it ended, or its reply was finished.

        Raises:
            LockWaitError: not within the settle bound.
            FencedError, LeaseLostError: the token moved on already.
            StoreError: the transcript or its medium failed.
        """
        await self.acquire()
        try:
            begun = await self._load()
            if isinstance(begun, Begun):
                await self._window.open()
        finally:
            self.release()
        if isinstance(begun, Begun):
            self.turn = await self._store.control.make_effective(self.turn.turn_id, self.token)
        return begun

    async def _load(self) -> Begun | Turn:
        """Under the write lock, and only there: what is loaded here is what is built on."""
        control, held, turn = self._store.control, self._held, self.turn
        assert held is not None
        self.check()
        tree = held.load()
        _points.reach("effect.loaded")
        end = tree.ends.get(turn.turn_id)
        if end is not None:
            size = held.mark().size
            return await booking.found(
                control, self.session, turn, self.token, tree, end, size=size
            )
        if control.turn_now(turn.turn_id).abort_requested:
            return await self._end_held(Ended("cancelled", "cancelled", None))
        if self._leased.finished is not None:
            self._finished = msgspec.json.decode(self._leased.finished)
            return await self._commit(tree.leaf)
        stamp = entries.Stamp(turn.turn_id, turn.attempts, self.token)
        self._question = tree.questions.get(turn.turn_id)
        if self._question is None:
            batch = self._asked(tree, stamp)
            booking.append_checked(control, held, self.session, self.token, batch)
            self._question = batch[-1]["id"]
            tree = held.load()
        history = tree.history(without_turn=turn.turn_id)
        return Begun(history, self._question, self._leased.instructions)

    def _asked(self, tree: Tree, stamp: entries.Stamp) -> list[Entry]:
        """The question; and before it the seed, if the session has no message yet."""
        start = None if self._leased.seed is None else tree.seeded(self.turn.turn_id)
        if self._leased.seed is None or start is None:
            return [entries.question(self.turn, stamp, tree.leaf)]
        seed = msgspec.json.decode(self._leased.seed)
        return entries.seeded(seed, self.turn, stamp, tree.leaf, start=start)

    # ------------------------------------------------------------------------- finish

    async def finish(self, said: Said | Ended) -> Turn | None:
        """Close the window and the turn: commit the reply, or say how else it ended."""
        if isinstance(said, Said):
            stamp = entries.Stamp(self.turn.turn_id, said.attempt, self.token)
            self._finished = entries.reply(said.messages, stamp, self._question)
        await self._window.close()
        held = self._held
        assert held is not None
        try:
            if isinstance(said, Ended):
                return await self._end_held(said)
            return await self._commit(held.load().leaf)
        finally:
            self.release()

    async def _commit(self, leaf: str | None) -> Turn:
        """Append the finished reply after *leaf*, whatever came in between, and book it."""
        held, control = self._held, self._store.control
        assert held is not None
        assert self._finished is not None
        batch = entries.reparented(self._finished, leaf)
        appended = booking.append_checked(control, held, self.session, self.token, batch)
        _points.reach("commit.appended")
        self.release()
        if self.live is not None:
            self.live.close()
        return await booking.book_reply(control, self.turn, self.token, batch, appended)

    async def _end_held(self, ended: Ended) -> Turn:
        held, control = self._held, self._store.control
        assert held is not None
        booking.append_ended(
            control, held, self.session, self.token, self.turn, ended.outcome, ended.reason
        )
        self.release()
        return await control.end(
            self.turn.turn_id, self.token, ended.outcome, ended.reason, ended.hint
        )

    async def count_again(self) -> int:
        """A new attempt inside this run: the lease is kept, the count goes up."""
        return await self._store.control.count_attempt(self.turn.turn_id, self.token)

    # ------------------------------------------------------------------ ways back and out

    async def let_go(self) -> None:
        """Hold nothing but the lease.  Idempotent."""
        await self._window.leave()
        self.release()
        if self.live is not None:
            self.live.close()

    async def failed(self, error: HoldfastError) -> Turn | None:
        """
        What becomes of the turn after `begin` or `finish` has raised *error*.

        Returns:
            The turn as it stands; None: it is somebody else's now.
        """
        _log.log(_level(error), "turn %s: %s", self.turn.turn_id, error)
        match error:
            case FencedError() | LeaseLostError():
                return None
            case LockWaitError() if not self.turn.bound:
                return await self.give_back("write_lock", delay_ms=LOCK_AGAIN_MS)
            case TakeoverError():
                return await self._taken_over()
            case BadTranscriptError():
                return await self._fail("bad_transcript", error)
            case LockWaitError() | LockLostError() | StoreError():
                return await self._try_later(error.code, error)
        raise error

    async def give_back(self, reason: str, *, delay_ms: int = 0) -> Turn | None:
        """Back to its place in the queue; GIVES_BACK says whether the attempt counts."""
        gives_back = reason in turns.GIVES_BACK
        what = turns.Event.GIVE_BACK if gives_back else turns.Event.REQUEUE
        not_before_ms = now_ms() + delay_ms if delay_ms else 0
        try:
            return await self._store.control.put_back(
                self.turn.turn_id, self.token, what=what, reason=reason,
                not_before_ms=not_before_ms,
            )  # fmt: skip
        except CoordinationError as echo:
            _log.info("turn %s: not put back: %s", self.turn.turn_id, echo)
            return None

    async def _taken_over(self) -> Turn | None:
        """Our place in the transcript is gone: keep what is finished, and run once more."""
        if self.turn.reruns < self._settings.reruns_max and not self.turn.bound:
            await self._salvage()
            return await self.give_back("taken_over")
        return await self._fail(
            "taken_over",
            hint="another program rewrites this transcript; the reply is kept in the turn",
        )

    async def _try_later(self, reason: str, error: HoldfastError) -> Turn | None:
        """What fails now may work later; what is finished waits in the row meanwhile."""
        if self.turn.attempts >= self._settings.attempts_max or self.turn.bound:
            return await self._fail(reason, error)
        try:
            await self.keep()
        except (StoreError, CoordinationError) as echo:
            _log.warning("turn %s: not kept: %s", self.turn.turn_id, echo)
        return await self.give_back(reason, delay_ms=LOCK_AGAIN_MS)

    async def _fail(
        self, reason: str, error: HoldfastError | None = None, *, hint: str = ""
    ) -> Turn:
        """The one ending without an entry: the transcript itself cannot be written."""
        await self._salvage()
        hint = hint or f"{error}; {error.hint if error else ''}"
        return await self._store.control.end(
            self.turn.turn_id, self.token, "failed", reason, hint
        )

    async def _salvage(self) -> None:
        """A finished reply is never thrown away: the turn's row keeps it for people."""
        if self._finished is not None:
            finished = msgspec.json.encode(self._finished)
            await self._store.control.salvage(self.turn.turn_id, self.token, finished)


def _level(error: HoldfastError) -> int:
    """Contention is not failure: it is told, not shouted."""
    if isinstance(error, FencedError | LeaseLostError | LockWaitError):
        return logging.INFO
    return logging.WARNING if isinstance(error, CoordinationError) else logging.ERROR
