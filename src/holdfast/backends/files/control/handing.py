"""Somebody asks the owner of a session to let go of it.  Transaction bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast._stamps import now_iso, uuid7
from holdfast.backends.files.control.rows import event
from holdfast.errors import NotFoundError
from holdfast.types import Handover, TurnId

if TYPE_CHECKING:
    import sqlite3

    from holdfast.types import OwnerId, SessionId, Turn

__all__ = ["answer_handover", "ask_handover", "hand_on", "handover", "handovers"]

#: The columns of `types.Handover`, in its order.
_HANDOVER: Final = f"SELECT {', '.join(Handover.__dataclass_fields__)} FROM handovers"

#: Who else may run a turn: runners of its agent, first those that stay; others run only the
#: session in which they wait themselves.
_OTHER: Final = """
SELECT owner_id FROM runners r JOIN owners USING (owner_id)
 WHERE agent_id = ? AND owner_id != ? AND draining = 0
   AND (permanent = 1 OR EXISTS (SELECT 1 FROM turns WHERE home = r.owner_id
                                   AND session_id = ? AND state = 'accepted'))
 ORDER BY permanent DESC, owner_id LIMIT 1
"""


def hand_on(db: sqlite3.Connection, turn: Turn) -> None:
    """
    Make somebody else the home of *turn*, whose owner let go of it, if anybody can run it.

    So it is not the one that let go who takes it again at once.  If its new home does not
    start it either, it is anybody's, as any turn is.
    """
    other = db.execute(_OTHER, (turn.agent_id, turn.owner_id, turn.session_id)).fetchone()
    if other is not None:
        db.execute("UPDATE turns SET home = ? WHERE turn_id = ?", (other[0], turn.turn_id))


def ask_handover(db: sqlite3.Connection, session_id: SessionId) -> Handover | None:
    """Ask who holds the session to let go of it; None: nobody does."""
    row = db.execute(
        "SELECT turn_id, owner_id FROM leases WHERE session_id = ?", (session_id,)
    ).fetchone()
    if row is None:
        return None
    asked = Handover(uuid7(), session_id, TurnId(row[0]), row[1], now_iso())
    db.execute(
        "INSERT INTO handovers (request_id, session_id, turn_id, owner_id, asked_at)"
        " VALUES (?, ?, ?, ?, ?)",
        (asked.request_id, session_id, asked.turn_id, asked.owner_id, asked.asked_at),
    )
    event(db, "handover", session_id, asked.turn_id, asked.owner_id)
    return asked


def handover(db: sqlite3.Connection, request_id: str) -> Handover:
    row = db.execute(f"{_HANDOVER} WHERE request_id = ?", (request_id,)).fetchone()
    if row is None:
        raise NotFoundError(what="handover", name=request_id[:80])
    return Handover(*row)


def handovers(db: sqlite3.Connection, owner_id: OwnerId) -> list[Handover]:
    """Requests that this owner has not answered, oldest first."""
    rows = db.execute(
        f"{_HANDOVER} WHERE owner_id = ? AND answer IS NULL ORDER BY request_id", (owner_id,)
    )
    return [Handover(*row) for row in rows]


def answer_handover(db: sqlite3.Connection, request_id: str, answer: str, detail: str) -> None:
    """The first answer stays."""
    asked = handover(db, request_id)
    if asked.answer is not None:
        return
    db.execute(
        "UPDATE handovers SET answer = ?, detail = ? WHERE request_id = ?",
        (answer, detail, request_id),
    )
    event(
        db, "handover", asked.session_id, asked.turn_id, asked.owner_id,
        answer=answer, detail=detail,
    )  # fmt: skip
