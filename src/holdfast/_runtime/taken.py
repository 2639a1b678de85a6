"""
A turn whose transcript was rewritten, by other hands, inside its prompt window.

    first          under the write lock, look again: it may have been the same bytes after all
    rerun          the reply is salvaged, the turn goes back to its place, its attempt returned;
                   tool results already made are carried over
    deliver        the turn has run again already, or cannot: its reply goes over the new head,
                   marked `rebased`
    fail           `session.on_rewritten` wants it so: the reply is salvaged

A salvaged reply stands beside the branch; where the file is no transcript any more, in a file
of its own; and in any case in the turn's row.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from holdfast._core.salvage import Salvage, added
from holdfast._runtime import booking, entries
from holdfast.errors import (
    BadTranscriptError,
    CoordinationError,
    FencedError,
    LeaseLostError,
    StoreError,
)

if TYPE_CHECKING:
    from holdfast._core.salvage import Where
    from holdfast._runtime.attempt import Attempt
    from holdfast._runtime.conversation import Ended
    from holdfast.types import Turn

__all__ = ["salvage", "settle"]

_log = logging.getLogger("holdfast.turn")

_Plan = Literal["rerun", "deliver", "fail"]
_HINT = "another program rewrites this transcript; see the reply with: holdfast turns show"


async def settle(attempt: Attempt, ended: Ended | None) -> Turn | None:
    """
    What becomes of the turn.  Nothing is held before and after.

    Args:
        ended: how the run ended, if without a reply.

    Returns:
        The turn as it stands.

    Raises:
        FencedError, LeaseLostError: it is somebody else's by now.
        StoreError: the row could not be moved.
    """
    plan = _plan(attempt, ended)
    try:
        await attempt.acquire()
        return await _settle_held(attempt, ended, plan)
    except (FencedError, LeaseLostError):
        raise
    except BadTranscriptError as error:
        attempt.release()
        return await attempt.fail("bad_transcript", error)
    except (CoordinationError, StoreError) as echo:
        _log.warning("turn %s: %s", attempt.turn.turn_id, echo)
        attempt.release()
        return await _without_the_lock(attempt, ended, plan, echo)
    finally:
        attempt.release()


def _plan(attempt: Attempt, ended: Ended | None) -> _Plan:
    turn, settings = attempt.turn, attempt.settings
    if ended is not None and ended.outcome == "cancelled":
        return "deliver"  # Nobody waits for a second try.
    if settings.on_rewritten == "fail":
        return "fail"
    # Only its own process can run a bound turn, and there its caller has said its word.
    if turn.reruns < settings.reruns_max and not turn.bound:
        return "rerun"
    return "deliver"


async def _settle_held(attempt: Attempt, ended: Ended | None, plan: _Plan) -> Turn | None:
    held, turn = attempt.held, attempt.turn
    assert held is not None
    attempt.check()
    left = held.about(turn.turn_id)
    end = left.ends.get(turn.turn_id)
    if end is not None:
        return await booking.found(
            attempt.store.control, held, attempt.session, turn, attempt.token, left, end
        )
    if plan != "fail" and await attempt.stands():
        return await attempt.close(ended, held.leaf())
    question = left.questions.get(turn.turn_id)
    if plan == "deliver":
        return await _deliver(attempt, ended, question)
    if attempt.finished is not None:
        attempt.finished = entries.anew(attempt.finished)  # A rerun goes on after the others.
        batch = entries.salvaged(attempt.finished, question or held.leaf())
        booking.append_checked(
            attempt.store.control, held, attempt.session, attempt.token, batch
        )
    if plan == "fail":
        reason = "taken_over"
        booking.append_ended(
            attempt.store.control, held, attempt.session, attempt.token, turn, "failed", reason,
            leaf=held.leaf(),
        )  # fmt: skip
        attempt.release()
        await salvage(attempt, ended, "transcript")
        return await attempt.store.control.end(
            turn.turn_id, attempt.token, "failed", reason, _HINT
        )
    attempt.release()
    return await _rerun(attempt, ended, "transcript")


async def _rerun(attempt: Attempt, ended: Ended | None, where: Where) -> Turn | None:
    await salvage(attempt, ended, where)
    return await attempt.give_back("taken_over")


async def _deliver(attempt: Attempt, ended: Ended | None, question: str | None) -> Turn | None:
    """Over the new head, whatever that is; its question before it, if that is gone."""
    if attempt.finished is not None:
        if question is None:
            question = attempt.ask_again()
        attempt.finished = entries.rebased(attempt.finished, question)
    held = attempt.held
    assert held is not None
    return await attempt.close(ended, held.leaf())


async def _without_the_lock(
    attempt: Attempt, ended: Ended | None, plan: _Plan, why: CoordinationError | StoreError
) -> Turn | None:
    """The transcript is out of reach just now: the row keeps the reply."""
    if plan == "rerun":
        if attempt.finished is not None:
            attempt.finished = entries.anew(attempt.finished)
        return await _rerun(attempt, ended, "row")
    if plan == "deliver":
        if attempt.finished is not None:
            attempt.finished = entries.rebased(attempt.finished, None)
        return await attempt.try_later(why.code, why)
    return await attempt.fail("taken_over", hint=_HINT)


async def salvage(attempt: Attempt, ended: Ended | None, where: Where) -> None:
    """
    Note in the turn's row what was finished; a run that made nothing leaves no record.

    Raises:
        LeaseLostError: it is somebody else's row by now.
        StoreError: it could not be written.
    """
    finished = tuple(attempt.finished or ())
    made = ended.made if ended is not None else ()
    if not finished and not made:
        return
    turn, token, file = attempt.turn, attempt.token, None
    if where == "file":
        where, file = "row", None
        try:
            file = attempt.store.transcripts.salvage(turn.turn_id, token, finished)
        except StoreError as echo:
            _log.warning("turn %s: kept in its row only: %s", turn.turn_id, echo)
        if file is not None:
            where = "file"
    record = Salvage(
        turn.attempts, token, where, file, finished, tuple(dict(each) for each in made)
    )
    await attempt.store.control.salvage(turn.turn_id, token, added(turn.salvaged, record))
