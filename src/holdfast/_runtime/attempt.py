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
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from holdfast import _points
from holdfast._core import jsonl, turns
from holdfast._runtime import beginning, booking, entries, mending, merging, taken
from holdfast._runtime.beginning import Begun, Note
from holdfast._runtime.conversation import Ended, Said
from holdfast._runtime.window import PromptWindow
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
    from holdfast._runtime.live import Live
    from holdfast.errors import (
        HoldfastError,
    )
    from holdfast.ports import HeldTranscript, Store
    from holdfast.types import Advance, Change, Entry, FencingToken, Leased, Mark, Turn

__all__ = ["LOCK_AGAIN_MS", "Attempt", "Begun"]

#: A session whose write lock was not had is a candidate again after this.
LOCK_AGAIN_MS = 1_000

_log = logging.getLogger("holdfast.turn")


class Attempt:
    """
    The right to act for one leased turn, and what it does with it.

    After `begin` or `finish` has raised, `failed` says what becomes of the turn; at the very
    end comes `let_go`, whatever happened.
    """

    def __init__(self, store: Store, settings: Settings, leased: Leased) -> None:
        self.store, self.settings, self._leased = store, settings, leased
        self.turn: Turn = leased.turn
        self.token: FencingToken = leased.token
        self.session = leased.session
        self.held: HeldTranscript | None = None
        self._mark: Mark | None = None
        self._change: Change | None = None
        self.question: str | None = None  #: The id of its user entry, once that stands.
        self.written: list[Entry] = []  #: What its row keeps, beside the final batch.
        self.flushed: set[str] = set()  #: Ids of what stands before the final batch.
        self.closing = False  #: From here on nothing is taken in any more.
        self.finished: list[Entry] | None = None
        self._kept = False  #: What is finished stands in the turn's row.
        self._stands = False  #: What ends the turn is in the transcript.
        self._settled: Turn | None = None  #: Ended after a takeover; its caller must hear it.
        self._note = Note(self)
        self._slow = 0  #: Settle bounds that we have waited for the write lock in vain.
        self._window = PromptWindow(self)
        self.live: Live | None = None  #: Whoever lets others watch puts it here.

    # ----------------------------------------------------------------------- the window

    def take_mark(self) -> None:
        assert self.held is not None
        self._mark = self.held.mark()

    def mark_again(self, held: HeldTranscript) -> None:
        """Our own append inside the window: what was classified so far is behind the mark."""
        self._mark = held.mark()

    async def still_stands(self, held: HeldTranscript) -> bool:
        """Whether nothing before our mark was rewritten, asked of a lock of one's own."""
        mark = self._mark
        return mark is not None and (await held.advance(mark)).kind != "rewritten"

    def release(self) -> None:
        held, self.held = self.held, None
        if held is not None:
            held.release()

    async def acquire(self) -> None:
        self.held = await mending.acquire(
            self.store,
            self.session,
            timeout_s=self.settings.settle_ms / 1000,
            token=self.token,
            run_id=self.turn.turn_id,
            lane=self.turn.lane,
        )

    async def compare(self) -> Advance:
        assert self.held is not None
        assert self._mark is not None
        self._change = await self.held.advance(self._mark)
        return self._change.kind

    def takeover(self) -> TakeoverError:
        assert self._change is not None
        path = self.store.transcripts.path(self.session)
        return TakeoverError(path=path, detail=self._change.detail)

    async def keep(self) -> None:
        """
        The write lock is slow.  A finished reply waits in the turn's row, where a successor
        finds it; we go on waiting, up to `session.write_lock.acquire_timeout_ms` in all.
        """
        self.check()
        if self.finished is not None and not self._kept:
            finished = msgspec.json.encode(self.finished)
            await self.store.control.keep(self.turn.turn_id, self.token, finished)
            self._kept = True
        self._slow += 1
        waited_ms = self._slow * self.settings.settle_ms
        if waited_ms >= self.settings.write_lock_acquire_timeout_ms:
            raise LockTimeoutError(
                path=self.store.transcripts.path(self.session),
                timeout_s=waited_ms / 1000,
                holder="see the last wait",
            )

    def report_leak(self) -> None:
        _log.error("turn %s: our claim could not be removed", self.turn.turn_id)

    def check(self) -> None:
        """Raises FencedError unless this attempt may still act."""
        try:
            booking.check_token(self.store.control, self.session, self.token)
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
            begun = await beginning.load(self, self._leased)
            if isinstance(begun, Begun):
                await self._window.open()
        finally:
            self.release()
        if isinstance(begun, Begun):
            _points.reach("effect.left")
            self._note.soon()
            await beginning.note_taken(self, begun)
        return begun

    # ------------------------------------------------------------------------- finish

    async def finish(self, said: Said | Ended) -> Turn | None:
        """Close the window and the turn: commit the reply, or say how else it ended."""
        self.closing = True
        self._note.no_more()
        if isinstance(said, Said):
            stamp = entries.Stamp(self.turn.turn_id, said.attempt, self.token)
            made = entries.reply(said.messages, stamp, self.question, said.ids)
            self.finished = [entry for entry in made if entry["id"] not in self.flushed]
        ended = said if isinstance(said, Ended) else None
        try:
            await self._window.close()
            assert self._change is not None
            return await self.close(ended, self._change.head)
        except TakeoverError as error:
            self.release()
            _log.warning("turn %s: %s", self.turn.turn_id, error)
            turn = await taken.settle(self, ended)
            if self.turn.bound and turn is not None and turn.outcome == "failed":
                self._settled = turn
                raise  # Its caller was about to believe that it has replied.
            return turn
        finally:
            self.release()

    async def stands(self) -> bool:
        """Under the write lock, once more: whether what stood at our mark still does."""
        assert self.held is not None
        return await self.still_stands(self.held)

    async def close(self, ended: Ended | None, leaf: str | None) -> Turn:
        """Under the write lock: append what ends the turn after *leaf*, and book it."""
        return await (self._commit(leaf) if ended is None else self._end_held(ended, leaf))

    def ask_again(self) -> str:
        """Our question is gone from the transcript: put it there anew.  Returns: its id."""
        assert self.held is not None
        stamp = entries.Stamp(self.turn.turn_id, self.turn.attempts, self.token)
        entry = entries.question(self.turn, stamp, self.held.leaf())
        booking.append_checked(self.store.control, self.held, self.session, self.token, [entry])
        return str(entry["id"])

    async def _commit(self, leaf: str | None) -> Turn:
        """Append the finished reply after *leaf*, whatever came in between, and book it."""
        held, control = self.held, self.store.control
        assert held is not None
        assert self.finished is not None
        batch = entries.reparented(self.finished, leaf)
        merged = merging.answered(
            held, control.hosted(self.turn.turn_id), leaf, self.turn.turn_id
        )
        appended = booking.append_checked(control, held, self.session, self.token, batch)
        self._stands = True
        if self.written:
            kept = jsonl.encode(self.written) + appended.data
            appended = replace(appended, data=kept)
        _points.reach("commit.appended")
        self.release()
        _points.reach("commit.released")
        if self.live is not None:
            self.live.close()
        return await booking.book_reply(
            control, self.turn, self.token, batch[-1], appended, merged
        )

    async def _end_held(self, ended: Ended, leaf: str | None) -> Turn:
        assert self.held is not None
        booking.append_ended(
            self.store.control, self.held, self.session, self.token, self.turn,
            ended.outcome, ended.reason, leaf=leaf, question=self.question,
        )  # fmt: skip
        self._stands = True
        self.release()
        return await self.store.control.end(
            self.turn.turn_id, self.token, ended.outcome, ended.reason, ended.hint
        )

    async def count_again(self) -> int:
        """A new attempt inside this run: the lease is kept, the count goes up."""
        return await self.store.control.count_attempt(self.turn.turn_id, self.token)

    # ------------------------------------------------------------------ ways back and out

    async def let_go(self) -> None:
        """Hold nothing but the lease.  Idempotent."""
        self._note.no_more()
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
            case TakeoverError() if self._settled is not None:
                return self._settled
            case BadTranscriptError():
                return await self.fail("bad_transcript", error)
            case LockWaitError() | LockLostError() | TakeoverError() | StoreError():
                return await self.try_later(error.code, error)
        raise error

    async def give_back(self, reason: str, *, delay_ms: int = 0) -> Turn | None:
        """Back to its place in the queue; GIVES_BACK says whether the attempt counts."""
        gives_back = reason in turns.GIVES_BACK
        what = turns.Event.GIVE_BACK if gives_back else turns.Event.REQUEUE
        try:
            return await self.store.control.put_back(
                self.turn.turn_id, self.token, what=what, reason=reason, delay_ms=delay_ms
            )
        except CoordinationError as echo:
            _log.info("turn %s: not put back: %s", self.turn.turn_id, echo)
            return None

    async def try_later(self, reason: str, error: HoldfastError) -> Turn | None:
        """What fails now may work later; what is finished waits in the row meanwhile."""
        used_up = self.turn.attempts >= self.settings.attempts_max
        if self.turn.bound or (used_up and reason not in turns.GIVES_BACK):
            unsure = self.finished is not None and getattr(error, "landed", False) is None
            if self._stands or unsure:  # The reaper looks, and books what it finds.
                return None
            return await self.fail(reason, error)
        try:
            await self.keep()
        except (StoreError, CoordinationError) as echo:
            _log.warning("turn %s: not kept: %s", self.turn.turn_id, echo)
        return await self.give_back(reason, delay_ms=LOCK_AGAIN_MS)

    async def fail(
        self, reason: str, error: HoldfastError | None = None, *, hint: str = ""
    ) -> Turn:
        """The one ending without an entry: the transcript itself cannot be written."""
        broken = isinstance(error, BadTranscriptError)
        await taken.salvage(self, None, "file" if broken else "row")
        hint = hint or f"{error}; {error.hint if error else ''}"
        return await self.store.control.end(
            self.turn.turn_id, self.token, "failed", reason, hint
        )


def _level(error: HoldfastError) -> int:
    """Contention is not failure: it is told, not shouted."""
    if isinstance(error, FencedError | LeaseLostError | LockWaitError):
        return logging.INFO
    return logging.WARNING if isinstance(error, CoordinationError) else logging.ERROR
