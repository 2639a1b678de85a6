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

import msgspec

from holdfast import _points
from holdfast._core import jsonl
from holdfast._core.stamped import host_of, is_question, turn_of
from holdfast._core.tree import as_message, text_of
from holdfast._runtime import entries, merging
from holdfast.errors import FencedError
from holdfast.types import Appended, Commit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast._core.tree import End, Tree
    from holdfast.ports import ControlStore, HeldTranscript
    from holdfast.types import Entry, FencingToken, Leased, Session, Turn, TurnId

__all__ = [
    "append_checked",
    "append_ended",
    "book_reply",
    "check_token",
    "finished",
    "found",
    "left_by",
]


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
    control: ControlStore, turn: Turn, token: FencingToken, final: Entry, appended: Appended,
    merged: tuple[TurnId, ...] = (),
) -> Turn:  # fmt: skip
    """The final entry stands: move the row, and the rows of the turns it answers, too."""
    message = final.get("message")
    usage = message.get("usage") if isinstance(message, dict) else None
    return await control.commit(
        turn.turn_id,
        token,
        Commit(
            reply=text_of(message),
            final_entry=final["id"],
            entries=appended.data,
            end_offset=appended.end_offset,
            generation=appended.generation,
            synced=appended.synced,
            usage=jsonl.encode([usage]).rstrip() if isinstance(usage, dict) else None,
            merged=merged,
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
    question: str | None = None,
) -> None:
    """
    Say in the transcript, after *leaf*, that a running turn ended without a reply.

    A turn that was rolled back leaves the branch: its *question*'s parent is the leaf again,
    unless somebody else has said something behind it meanwhile.
    """
    stamp = entries.Stamp(turn.turn_id, turn.attempts, token)
    batch = [entries.ended(stamp, leaf, outcome, reason, side=False)]
    if reason == "rolled_back" and question is not None:
        kept = held.branch().kept
        at = next((entry for entry in kept if entry.get("id") == question), None)
        if at is not None and not _others_spoke(kept, question, turn.turn_id):
            batch.append(entries.left_branch(stamp, batch[0]["id"], at.get("parentId")))
    append_checked(control, held, session, token, batch)


def finished(
    held: HeldTranscript, turn: Turn, token: FencingToken, kept: bytes, question: str | None
) -> list[Entry]:
    """
    A reply that waited in its turn's row, as it is to be appended now.

    Turns that overtook it meanwhile may have spoken: its model has not seen them, and its
    entries say so (`rebased`).  A question that was cut off is asked again before it.
    """
    batch: list[Entry] = msgspec.json.decode(kept)
    if question is None and not is_question(batch[0]):
        asked = entries.question(turn, entries.Stamp(turn.turn_id, turn.attempts, token), None)
        return [asked, *entries.reparented(batch, asked["id"])]
    if question is not None and _others_spoke(held.branch().kept, question, turn.turn_id):
        return entries.rebased(batch, None)
    return batch


def _others_spoke(branch: Sequence[Entry], question: str, turn_id: str) -> bool:
    """Whether a message that is not of the turn's run stands behind its question."""
    behind = merging.since(branch, question)
    return any(as_message(entry) is not None and not _is_of(entry, turn_id) for entry in behind)


def left_by(held: HeldTranscript, leased: Leased) -> Tree:
    """
    What earlier runs of a leased turn have left in the transcript: see `about`.

    Before its first lease a turn can have left nothing.  Then only what stands behind the
    last commit of its session is looked at: a control store that was put back from a backup
    may know less than the transcript, and there the turn's entries stand.
    """
    first = leased.again is None and leased.finished is None and not leased.turn.hosted
    return held.about(leased.turn.turn_id, leased.session.end_offset if first else 0)


async def found(
    control: ControlStore,
    held: HeldTranscript,
    session: Session,
    turn: Turn,
    token: FencingToken,
    tree: Tree,
    end: End,
) -> Turn:
    """
    The transcript tells how the turn ended: book that, and nothing else.

    Args:
        held: its write lock, which is given back before the control transaction.
    """
    if end.outcome != "replied":
        held.release()
        return await control.end(turn.turn_id, token, end.outcome, end.reason, None)
    batch = [entry for entry in tree.entries.values() if _is_of(entry, turn.turn_id)]
    batch.sort(key=lambda entry: entry["id"] == end.entry_id)  # Stable: the final one last.
    # Read under the write lock: the entry stands within it.
    appended = Appended(jsonl.encode(batch), held.size(), session.generation, synced=False)
    hosted = control.hosted(turn.turn_id)
    parent = batch[-1].get("parentId") if hosted else None
    merged = merging.answered(held, hosted, parent, turn.turn_id)
    held.release()
    return await book_reply(control, turn, token, batch[-1], appended, merged)


def _is_of(entry: Entry, turn_id: str) -> bool:
    """Whether the turn's run has written *entry*: its own, or a question merged into it."""
    return turn_id in {turn_of(entry), host_of(entry)}
