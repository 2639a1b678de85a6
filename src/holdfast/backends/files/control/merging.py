"""
Merges: turns that another, their host, is to answer with its own reply.

    accepted, host ──host commits, question among its ancestors──▶ done (merged)
         │
         └──host ends otherwise, or leaves it out──▶ accepted, at its own place

A merge is provisional until the host's commit.  A host that goes back to its place keeps
its merges; `rows.move` sees to it that none outlives its host's end.  Transaction bodies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast._core.turns import Event
from holdfast.backends.files.control.rows import event, guard, hosted, move

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping

    from holdfast.types import FencingToken, Turn, TurnId

__all__ = ["end_merged", "take"]


def take(
    db: sqlite3.Connection, turn_id: TurnId, token: FencingToken, taken: Mapping[TurnId, str]
) -> None:
    """The questions of merged turns stand in the transcript, written under *token*."""
    guard(db, turn_id, token)
    db.executemany(
        "UPDATE turns SET asked_entry = ?"
        " WHERE turn_id = ? AND host = ? AND state = 'accepted'",
        [(entry, each, turn_id) for each, entry in taken.items()],
    )


def end_merged(db: sqlite3.Connection, host: Turn, merged: Collection[TurnId]) -> None:
    """Those of *merged* that *host* still has end with it."""
    for guest in hosted(db, host.turn_id):
        if guest.turn_id in merged:
            event(
                db, "merged", guest.session_id, guest.turn_id, None,
                lane=guest.lane, host=host.turn_id,
            )  # fmt: skip
            move(db, guest, Event.END, outcome="merged")
            db.execute(
                "UPDATE turns SET merged_into = ? WHERE turn_id = ?",
                (host.turn_id, guest.turn_id),
            )
