"""
Making a token effective: what is looked for, loaded and written under the write lock before
any model is called.

    an entry that ends the turn     book that, and nothing else
    a reply that was finished       append it, ask no model
    somebody wants it ended         say so in the transcript, and end it
    else                            its question, the questions merged into it, the history
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from holdfast import _points
from holdfast._core import salvage, turns
from holdfast._core.stamped import is_question, turn_of
from holdfast._runtime import booking, entries, merging
from holdfast._runtime.conversation import Ended
from holdfast._stamps import uuid7
from holdfast.errors import FencedError, HoldfastError, LeaseLostError
from holdfast.types import MadeEntry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast._core.branch import Branch
    from holdfast._core.tree import Tree
    from holdfast._runtime.attempt import Attempt
    from holdfast.types import Entry, Leased, Turn, TurnId

__all__ = ["Begun", "Note", "ending_of", "load", "note_taken"]

#: A run that takes less is over before anybody could ask what it is at.
NOTE_AFTER_S: Final = 0.25

_log = logging.getLogger("holdfast.turn")


@dataclass(frozen=True, slots=True)
class Begun:
    """The token is effective: what the model may be told."""

    text: str  #: The question, and behind it those that were collected into this turn.
    history: tuple[Any, ...]
    question: str  #: The id of the turn's user entry.
    instructions: str | None  #: For this turn only.
    #: By runs that came to nothing, and what was steered into them: go on after it.
    made: tuple[MadeEntry, ...] = ()
    taken: Mapping[TurnId, str] | None = None  #: Merged turns, and their user entries.


async def load(attempt: Attempt, leased: Leased) -> Begun | Turn:
    """Under the write lock, and only there: what is loaded here is what is built on."""
    control, held, turn = attempt.store.control, attempt.held, attempt.turn
    assert held is not None
    attempt.check()
    branch, left = held.branch(), booking.left_by(held, leased)
    _points.reach("effect.loaded")
    end = left.ends.get(turn.turn_id)
    if end is not None:
        return await booking.found(
            control, held, attempt.session, turn, attempt.token, left, end
        )
    now = control.turn_now(turn.turn_id)
    ended = ending_of(now.abort_reason or "cancelled") if now.abort_requested else None
    if ended is not None and leased.finished is None:
        attempt.question = left.questions.get(turn.turn_id)
        return await attempt.close(ended, branch.leaf)
    if leased.finished is not None:
        asked = left.questions.get(turn.turn_id)
        attempt.finished = booking.finished(held, turn, attempt.token, leased.finished, asked)
        return await attempt.close(None, branch.leaf)
    rows = await control.made(turn.turn_id) if leased.again is not None else []
    question, branch = _ask(attempt, leased, branch, left)
    behind = _merge(attempt, leased, merging.since(branch.kept, question), rows=bool(rows))
    branch = held.branch()
    merges = {merge.turn_id for merge in leased.merges}
    stood = merging.standing(turn.text, behind, turn.turn_id, merges)
    attempt.flushed = {entry["id"] for entry in behind}
    history = branch.history(without={turn.turn_id, *stood.taken})
    made = _made(leased, stood, rows, attempt.flushed)
    return Begun(stood.text, history, question, leased.instructions, made, stood.taken)


def ending_of(reason: str) -> Ended | None:
    """What an abort for *reason* makes of a turn; None: it has no outcome by that."""
    outcome = turns.ABORTS.get(reason)  # `drained` is none: it just goes back.
    return None if outcome is None else Ended(outcome, reason, turns.HINTS.get(reason))


class Note:
    """
    Lets the row say that the token is effective: for `why`, of a run that lasts.  What counts
    is the mark that was left; nobody waits for this.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._at: asyncio.TimerHandle | None = None
        self._noting: asyncio.Task[None] | None = None

    def soon(self) -> None:
        self._at = asyncio.get_running_loop().call_later(NOTE_AFTER_S, self._begin)

    def no_more(self) -> None:
        """The run is about to end.  Idempotent."""
        if self._at is not None:
            self._at.cancel()

    def _begin(self) -> None:
        self._noting = asyncio.create_task(self._note())

    async def _note(self) -> None:
        turn, control = self._attempt.turn, self._attempt.store.control
        try:
            await control.make_effective(turn.turn_id, self._attempt.token)
        except HoldfastError as echo:  # A lost lease is met again before anything is done.
            _log.info("turn %s: not noted: %s", turn.turn_id, echo)


async def note_taken(attempt: Attempt, begun: Begun) -> None:
    """The questions of merged turns stand: their rows say so.  A look finds them otherwise."""
    if begun.taken:
        try:
            await attempt.store.control.take(attempt.turn.turn_id, attempt.token, begun.taken)
        except LeaseLostError as error:
            raise FencedError(
                session_id=attempt.session.session_id, token=attempt.token, newest=None
            ) from error


def _ask(attempt: Attempt, leased: Leased, branch: Branch, left: Tree) -> tuple[str, Branch]:
    """
    The turn's question on the branch: the one that stands, or appended now.

    One that stood inside the run of a host that was rolled back is not on the branch any
    more: it is asked again.
    """
    held, turn = attempt.held, attempt.turn
    assert held is not None
    attempt.question = left.questions.get(turn.turn_id)
    if attempt.question is not None:
        # The one on the branch may be a later one than the first that was asked.
        asked = [e for e in branch.kept if turn_of(e) == turn.turn_id and is_question(e)]
        if asked:
            attempt.written = asked[-1:]
            attempt.question = asked[-1]["id"]
        if asked or not turn.hosted:
            return attempt.question, branch
    stamp = entries.Stamp(turn.turn_id, turn.attempts, attempt.token)
    batch = entries.asked(leased, stamp, branch, held.load)
    booking.append_checked(attempt.store.control, held, attempt.session, attempt.token, batch)
    attempt.written = list(batch)
    attempt.question = batch[-1]["id"]
    return attempt.question, held.branch()


def _merge(
    attempt: Attempt, leased: Leased, behind: Sequence[Entry], *, rows: bool
) -> Sequence[Entry]:
    """
    What stands behind the question, the questions of merged turns among it.

    Where the turn had made something already (*rows*), a question that does not stand yet
    comes after that: it is steered in before the next model call.
    """
    held, turn = attempt.held, attempt.turn
    assert held is not None
    names = {merge.turn_id for merge in leased.merges}
    behind = [entry for entry in behind if _is_ours(entry, turn.turn_id, names)]
    stand = {entry["holdfast"]["turn"] for entry in behind}
    missing = [m for m in leased.merges if m.turn_id not in stand and not m.abort_requested]
    if missing and not rows:
        batch = merging.questions_of(missing, turn.turn_id, attempt.token, held.leaf())
        booking.append_checked(
            attempt.store.control, held, attempt.session, attempt.token, batch
        )
        behind.extend(batch)
    attempt.written = [*attempt.written, *behind]
    return behind


def _is_ours(entry: Entry, turn_id: str, merges: set[TurnId]) -> bool:
    turn = turn_of(entry)
    return entry.get("type") == "message" and (turn == turn_id or turn in merges)


def _made(
    leased: Leased, stood: merging.Standing, rows: Sequence[MadeEntry], flushed: set[str]
) -> tuple[MadeEntry, ...]:
    """What stands, then what only the rows have."""
    made = [*stood.made, *(row for row in rows if row.entry_id not in flushed)]
    if made or leased.turn.salvaged is None:
        return tuple(made)
    carried = salvage.carried(leased.turn.salvaged)  # By a version without such rows.
    return tuple(MadeEntry(uuid7(), message) for message in carried)
