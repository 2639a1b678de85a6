"""
Taking what was sent into a running turn: between tool batches, and before a model call.

    rows with this host ─▶ write lock ─ token checked ─ nothing rewritten since the mark
        ─ what was made so far, then the questions, appended with one write ─ mark moved
    ─▶ rows: taken ─▶ what the turn has made: the questions, too ─▶ the model sees them

The transcript comes first, so recovery sees whether a question was taken; what nobody took
by the host's end stands at its own place again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from holdfast import _points
from holdfast._runtime import booking, entries, mending, merging
from holdfast.errors import LockWaitError
from holdfast.types import MadeEntry, Steered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast._runtime.attempt import Attempt
    from holdfast.ports import HeldTranscript
    from holdfast.types import Entry, Turn

__all__ = ["taken_in"]

_log = logging.getLogger("holdfast.turn")


async def taken_in(
    attempt: Attempt, made: Sequence[MadeEntry]
) -> tuple[list[Steered], list[MadeEntry]]:
    """
    Take the questions that wait for this run into it.

    Args:
        made: everything that the run has made so far, in order.

    Returns:
        The questions; and as what they count among what was made.  Both are empty if nothing
        waits, the write lock is not to be had now, or the transcript was rewritten: the next
        call, or the turn's own end, sees to it.

    Raises:
        FencedError, LeaseLostError: the right to act is gone.
        StoreError: it could not be written.

    Cancellation:
        Questions may stand in the transcript without being noted; a rerun finds them.
    """
    control, turn = attempt.store.control, attempt.turn
    waiting = _waiting(attempt)
    if not waiting:
        return [], []
    try:
        held = await mending.acquire(
            attempt.store,
            attempt.session,
            timeout_s=attempt.settings.settle_ms / 1000,
            token=attempt.token,
            run_id=turn.turn_id,
            lane=turn.lane,
        )
    except LockWaitError as error:
        _log.info("turn %s: not steered yet: %s", turn.turn_id, error)
        return [], []
    try:
        questions = await _append(attempt, held, made)
    finally:
        held.release()
    if not questions:
        return [], []
    _points.reach("steer.appended")
    by_id = {each.turn_id: each for each in waiting}
    taken = {by_id[entry["holdfast"]["turn"]].turn_id: entry["id"] for entry in questions}
    await control.take(turn.turn_id, attempt.token, taken)
    _points.reach("steer.taken")
    steered = [MadeEntry(entry["id"], entry["message"]) for entry in questions]
    await control.add_made(turn.turn_id, attempt.token, steered)
    asked = [by_id[turn_id] for turn_id in taken]
    for each in asked:
        _log.info("turn %s: steered into turn %s", each.turn_id, turn.turn_id)
    return [Steered(each.turn_id, each.text, each.sender) for each in asked], steered


def _waiting(attempt: Attempt) -> list[Turn]:
    """Merges that wait to be taken: neither taken already nor withdrawn."""
    return [
        turn
        for turn in attempt.store.control.hosted(attempt.turn.turn_id)
        if turn.asked_entry is None and not turn.abort_requested
    ]


async def _append(
    attempt: Attempt, held: HeldTranscript, made: Sequence[MadeEntry]
) -> list[Entry]:
    """Under the write lock: what was made, then the questions.  Returns: the questions."""
    attempt.check()
    if attempt.closing or not await attempt.still_stands(held):
        return []
    turn, token = attempt.turn, attempt.token
    stamp = entries.Stamp(turn.turn_id, turn.attempts, token)
    batch: list[Entry] = []
    parent = held.leaf()
    for each in made:
        if each.entry_id not in attempt.flushed:
            seq = len(attempt.flushed) + len(batch) + 1
            batch.append(entries.made(each, stamp, parent, seq))
            parent = each.entry_id
    # Asked again under the lock: what was withdrawn meanwhile is not taken.
    questions = merging.questions_of(_waiting(attempt), turn.turn_id, token, parent)
    if not questions:
        return []
    batch.extend(questions)
    booking.append_checked(attempt.store.control, held, attempt.session, token, batch)
    attempt.flushed.update(entry["id"] for entry in batch)
    attempt.written.extend(batch)
    attempt.mark_again(held)
    return questions
