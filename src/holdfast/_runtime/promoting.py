"""
Putting a salvaged reply onto the branch, because a person wants it there.

What is promoted is not its turn's reply: the turn has had its one outcome, and keeps it.  It
is a new entry like any other that somebody appends, so a turn that runs meanwhile finds it
behind its mark and goes after it.  The transcript itself says what has been promoted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast._core import salvage
from holdfast._core.stamped import stamp_of
from holdfast._runtime import entries, mending
from holdfast.errors import BadRequestError

if TYPE_CHECKING:
    from holdfast._core.settings import Settings
    from holdfast._core.tree import Tree
    from holdfast.ports import Store
    from holdfast.types import Turn, TurnId

__all__ = ["Promoted", "promote"]


@dataclass(frozen=True, slots=True)
class Promoted:
    """A salvaged reply that stands on the branch."""

    turn_id: str
    salvaged: str  #: The id that it was salvaged under.
    entry: str  #: The id that it has on the branch.
    text: str
    fresh: bool  #: False: it had been promoted before; nothing was written.


async def promote(store: Store, settings: Settings, turn_id: TurnId) -> Promoted:
    """
    Append the latest salvaged reply of a turn to its transcript, once.

    Raises:
        NotFoundError: no such turn.
        BadRequestError: nothing of it was salvaged, or it has not ended yet.
        LockWaitError: the write lock was not had.
        BadTranscriptError: the transcript is none; repair it first.
        StoreError: it could not be written.
    """
    turn = await store.control.turn(turn_id)
    kept = _latest(turn)
    reply = kept.entries[-1]
    held = await mending.acquire(
        store,
        await store.control.session(turn.session_id),
        timeout_s=settings.write_lock_acquire_timeout_ms / 1000,
        token=None,
        run_id=turn.turn_id,
        lane=None,
    )
    try:
        before = _before(held.about(reply["id"]), reply["id"])
        if before is not None:
            return Promoted(turn_id, reply["id"], before, kept.text or "", fresh=False)
        entry = entries.promoted(reply, held.leaf())
        held.append([entry], final=True)
        return Promoted(turn_id, reply["id"], entry["id"], kept.text or "", fresh=True)
    finally:
        held.release()


def _latest(turn: Turn) -> salvage.Salvage:
    if not turn.ended:
        raise BadRequestError(
            detail=f"turn {turn.turn_id} has not ended: it is {turn.state}",
            hint="wait for its outcome; it may bring the same reply",
        )
    found = [each for each in salvage.read(turn.salvaged) if each.entries]
    if not found:
        raise BadRequestError(
            detail=f"nothing to promote: no reply of turn {turn.turn_id} was salvaged",
            hint="see what became of it: holdfast turns show",
        )
    return found[-1]


def _before(tree: Tree, salvaged_id: str) -> str | None:
    """The entry that says what *salvaged_id* said, if there is one already."""
    for entry_id, entry in tree.entries.items():
        if stamp_of(entry).get("from") == salvaged_id:
            return entry_id
    return None
