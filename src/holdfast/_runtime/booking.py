"""
Bringing a transcript and a turn's row to agree.  Used by who runs a turn and by who ends
somebody else's attempt, always in this order:

    write lock ─▶ token checked ─▶ entry appended and synced ─▶ write lock given back
               ─▶ control transaction (`where token = ?`)

A crash in the middle leaves an entry without a row; whoever comes next finds the entry under
the write lock and books it, instead of running the turn again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast import _points
from holdfast._core import jsonl
from holdfast._core.tree import text_of
from holdfast._runtime import entries
from holdfast.errors import FencedError
from holdfast.types import Appended, Commit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast._core.tree import End, Tree
    from holdfast.ports import ControlStore, HeldTranscript
    from holdfast.types import Entry, FencingToken, Leased, Session, Turn

__all__ = ["append_checked", "append_ended", "book_reply", "check_token", "found", "left_by"]


def check_token(control: ControlStore, session: Session, token: FencingToken) -> None:
    """
    Raises FencedError unless *token* holds the session's lease.

    To be asked *after* the write lock is had, and before each append: then an append by
    token n is either wholly before the load of token n + 1, or refused.
    """
    newest = control.newest_token(session.session_id)
    if newest is None or newest[0] != token:
        raise FencedError(
            session_id=session.session_id, token=token, newest=newest[0] if newest else None
        )


def append_checked(
    control: ControlStore,
    held: HeldTranscript,
    session: Session,
    token: FencingToken,
    batch: Sequence[Entry],
) -> Appended:
    check_token(control, session, token)
    _points.reach("token.checked")
    return held.append(batch, final=True)


async def book_reply(
    control: ControlStore, turn: Turn, token: FencingToken, batch: Sequence[Entry],
    appended: Appended,
) -> Turn:  # fmt: skip
    """The final entry stands: move the row."""
    message = batch[-1].get("message")
    usage = message.get("usage") if isinstance(message, dict) else None
    return await control.commit(
        turn.turn_id,
        token,
        Commit(
            reply=text_of(message),
            final_entry=batch[-1]["id"],
            entries=appended.data,
            end_offset=appended.end_offset,
            generation=appended.generation,
            synced=appended.synced,
            usage=jsonl.encode([usage]).rstrip() if isinstance(usage, dict) else None,
        ),
    )


def append_ended(
    control: ControlStore,
    held: HeldTranscript,
    session: Session,
    token: FencingToken,
    turn: Turn,
    outcome: str,
    reason: str | None,
    *,
    leaf: str | None,
) -> None:
    """Say in the transcript, after *leaf*, that a running turn ended without a reply."""
    stamp = entries.Stamp(turn.turn_id, turn.attempts, token)
    entry = entries.ended(stamp, leaf, outcome, reason, side=False)
    append_checked(control, held, session, token, [entry])


def left_by(held: HeldTranscript, leased: Leased) -> Tree:
    """
    What earlier runs of a leased turn have left in the transcript: see `about`.

    Before its first lease a turn can have left nothing.  Then only what stands behind the
    last commit of its session is looked at: a control store that was put back from a backup
    may know less than the transcript, and there the turn's entries stand.
    """
    first = leased.again is None and leased.finished is None
    return held.about(leased.turn.turn_id, leased.session.end_offset if first else 0)


async def found(
    control: ControlStore,
    session: Session,
    turn: Turn,
    token: FencingToken,
    tree: Tree,
    end: End,
    *,
    size: int,
) -> Turn:
    """
    The transcript tells how the turn ended: book that, and nothing else.

    *size*: of the transcript, read under the write lock; the entry stands within it.
    """
    if end.outcome != "replied":
        return await control.end(turn.turn_id, token, end.outcome, end.reason, None)
    batch = [
        entry
        for entry in tree.entries.values()
        if isinstance(stamp := entry.get("holdfast"), dict)
        and stamp.get("turn") == turn.turn_id
    ]
    batch.sort(key=lambda entry: entry["id"] == end.entry_id)  # Stable: the final one last.
    appended = Appended(jsonl.encode(batch), size, session.generation, synced=False)
    return await book_reply(control, turn, token, batch, appended)
