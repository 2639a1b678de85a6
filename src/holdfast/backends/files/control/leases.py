"""
Leases, slots and tokens.  Each function is one transaction's body.

Lane slot and turn lease are taken together, by one pick.  Nothing waits for a session while
it holds a slot, nor for a slot while it holds a session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast._core.turns import ABORTS, Event, State
from holdfast._stamps import now_iso
from holdfast.backends.files.control import merging, order
from holdfast.backends.files.control.clock import clock_ms, tick_ms
from holdfast.backends.files.control.handing import hand_on
from holdfast.backends.files.control.owing import owe_reply
from holdfast.backends.files.control.rows import (
    TURN,
    event,
    fetch_session,
    fetch_turn,
    guard,
    hosted,
    move,
    to_turn,
)
from holdfast.errors import LeaseLostError
from holdfast.types import FencingToken, Leased

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping

    from holdfast._core.settings import Lane
    from holdfast.types import Commit, OwnerId, SessionId, Turn, TurnId

__all__ = [
    "commit",
    "end",
    "end_waiting",
    "keep",
    "make_effective",
    "pick",
    "put_back",
    "salvage",
    "take_over",
]


def pick(
    db: sqlite3.Connection,
    owner_id: OwnerId,
    agents: Collection[str],
    lanes: Mapping[str, Lane],
    *,
    overdue: Collection[TurnId] = (),
    session_id: SessionId | None = None,
    only: TurnId | None = None,
) -> Leased | None:
    """
    Slot and lease for the best turn that this process may run now, or None.

    Args:
        agents: those this process can run.
        overdue: turns whose home we have watched not starting them; ours to adopt.
        session_id: look at this session only (an embedded runner's).
        only: take this turn or none (`hf.turn`, which brings its own loop).
    """
    draining = db.execute(
        "SELECT draining FROM owners WHERE owner_id = ?", (owner_id,)
    ).fetchone()
    if draining is None or draining[0]:
        return None
    if only is not None:
        row = db.execute("SELECT session_id FROM turns WHERE turn_id = ?", (only,)).fetchone()
        if row is None or session_id not in {None, row[0]}:
            return None
        session_id = row[0]
    asks = order.Asks(owner_id, agents, overdue, only, clock_ms(db))
    admission = order.best(db, asks, order.full_lanes(db, lanes), session_id)
    if admission is None:
        return None
    row = db.execute(f"{TURN} WHERE admission = ?", (admission,)).fetchone()
    return _lease(db, to_turn(row), owner_id)


def _lease(db: sqlite3.Connection, turn: Turn, owner_id: OwnerId) -> Leased:
    now_ms = tick_ms(db)
    (token,) = db.execute(
        "UPDATE sessions SET token = token + 1 WHERE session_id = ? RETURNING token",
        (turn.session_id,),
    ).fetchone()
    move(db, turn, Event.LEASE, owner_id=owner_id)
    db.execute(
        "INSERT INTO leases (session_id, turn_id, token, owner_id, taken_at, taken_ms)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (turn.session_id, turn.turn_id, token, owner_id, now_iso(), now_ms),
    )
    db.execute("INSERT INTO slots VALUES (?, ?, ?)", (turn.turn_id, turn.lane, owner_id))
    db.execute(
        "UPDATE turns SET token = ?, owner_id = ?, started_at = coalesce(started_at, ?),"
        " not_before_ms = 0 WHERE turn_id = ?",
        (token, owner_id, now_iso(), turn.turn_id),
    )
    if turn.home not in {None, owner_id}:
        event(
            db, "adopted", turn.session_id, turn.turn_id, owner_id,
            lane=turn.lane, home=turn.home,
        )  # fmt: skip
    instructions, seed = db.execute(
        "SELECT instructions, seed FROM turns WHERE turn_id = ?", (turn.turn_id,)
    ).fetchone()
    return Leased(
        fetch_turn(db, turn.turn_id), fetch_session(db, turn.session_id), FencingToken(token),
        turn.finished, instructions, seed,
        again=(turn.reason or "again") if turn.started_at is not None else None,
        merges=tuple(hosted(db, turn.turn_id)),
    )  # fmt: skip


def make_effective(db: sqlite3.Connection, turn_id: TurnId, token: FencingToken) -> Turn:
    """The token was left under the write lock: from here on the model may be called."""
    turn = guard(db, turn_id, token)
    db.execute("UPDATE leases SET effective = 1 WHERE session_id = ?", (turn.session_id,))
    return turn


def count_attempt(db: sqlite3.Connection, turn_id: TurnId, token: FencingToken) -> int:
    """A new attempt inside the same run: the lease is kept, the count goes up."""
    guard(db, turn_id, token)
    (attempts,) = db.execute(
        "UPDATE turns SET attempts = attempts + 1 WHERE turn_id = ? RETURNING attempts",
        (turn_id,),
    ).fetchone()
    return int(attempts)


def commit(db: sqlite3.Connection, turn_id: TurnId, token: FencingToken, what: Commit) -> Turn:
    """
    The final entry stands in the transcript: book it.  It settles, unless deliveries are owed.
    Merged turns whose question it answers end with it; the others stand at their places.

    Raises:
        LeaseLostError: the token moved on; the successor finds the entry and books it.
    """
    turn = guard(db, turn_id, token)
    if what.synced:  # Syncing this batch synced every earlier one: their copies may go.
        db.execute(
            "UPDATE turns SET entries = NULL WHERE session_id = ? AND entries IS NOT NULL",
            (turn.session_id,),
        )
    db.execute(
        "UPDATE turns SET reply = ?, final_entry = ?, entries = ?, end_offset = ?,"
        " generation = ?, usage = ? WHERE turn_id = ?",
        (
            what.reply, what.final_entry, what.entries, what.end_offset, what.generation,
            what.usage, turn_id,
        ),
    )  # fmt: skip
    db.execute(
        "UPDATE sessions SET end_offset = ? WHERE session_id = ?",
        (what.end_offset, turn.session_id),
    )
    merging.end_merged(db, turn, what.merged)
    move(db, turn, Event.COMMIT, outcome="replied")
    committed = fetch_turn(db, turn_id)
    if not owe_reply(db, committed, what.reply):
        move(db, committed, Event.SETTLE, outcome="replied")
    return fetch_turn(db, turn_id)


def end(
    db: sqlite3.Connection,
    turn_id: TurnId,
    token: FencingToken,
    outcome: str,
    reason: str | None,
    hint: str | None,
) -> Turn:
    """An outcome other than `replied`, whose entry stands in the transcript already."""
    turn = guard(db, turn_id, token)
    move(db, turn, Event.END, outcome=outcome, reason=reason, hint=hint)
    return fetch_turn(db, turn_id)


def end_waiting(
    db: sqlite3.Connection, turn_id: TurnId, outcome: str, reason: str | None
) -> Turn:
    """End a turn that waits.  One that runs is left alone: its runner will see the entry."""
    turn = fetch_turn(db, turn_id)
    if turn.state == State.ACCEPTED.value:
        move(db, turn, Event.END, outcome=outcome, reason=reason)
    return fetch_turn(db, turn_id)


def put_back(
    db: sqlite3.Connection,
    turn_id: TurnId,
    token: FencingToken,
    *,
    what: Event,
    reason: str,
    delay_ms: int = 0,
) -> Turn:
    """
    Back to its place in the queue, with or without its attempt (`what`); who is merged into
    it stays so.  An abort that wanted just that is done.
    """
    turn = guard(db, turn_id, token)
    move(db, turn, what, reason=reason)
    if reason == "handed_over" and not turn.bound:
        hand_on(db, turn)
    db.execute(
        "UPDATE turns SET not_before_ms = ?, reruns = reruns + ? WHERE turn_id = ?",
        (tick_ms(db) + delay_ms if delay_ms else 0, reason == "taken_over", turn_id),
    )
    if turn.abort_reason is not None and ABORTS[turn.abort_reason] is None:
        db.execute(
            "UPDATE turns SET abort_requested = 0, abort_reason = NULL, abort_at_ms = NULL"
            " WHERE turn_id = ?",
            (turn_id,),
        )
    return fetch_turn(db, turn_id)


def keep(db: sqlite3.Connection, turn_id: TurnId, token: FencingToken, finished: bytes) -> None:
    """Store a finished reply that waits for the write lock; a successor appends it."""
    guard(db, turn_id, token)
    db.execute("UPDATE turns SET finished = ? WHERE turn_id = ?", (finished, turn_id))


def salvage(
    db: sqlite3.Connection, turn_id: TurnId, token: FencingToken, finished: bytes
) -> None:
    """Keep a finished reply whose place in the transcript is gone."""
    guard(db, turn_id, token)
    db.execute(
        "UPDATE turns SET salvaged = ?, finished = NULL WHERE turn_id = ?", (finished, turn_id)
    )


def take_over(
    db: sqlite3.Connection, session_id: SessionId, token: FencingToken, owner_id: OwnerId
) -> FencingToken:
    """
    Move the token on: fence whoever held *token*, and hold the lease in order to end its
    attempt.  The slot is free at once.

    Raises:
        LeaseLostError: *token* no longer holds the lease; somebody else was faster.
    """
    row = db.execute(
        "SELECT turn_id FROM leases WHERE session_id = ? AND token = ?", (session_id, token)
    ).fetchone()
    if row is None:
        raise LeaseLostError(turn_id="", token=token)
    (newer,) = db.execute(
        "UPDATE sessions SET token = token + 1 WHERE session_id = ? RETURNING token",
        (session_id,),
    ).fetchone()
    db.execute(
        "UPDATE leases SET token = ?, owner_id = ?, recovering = 1, effective = 0, taken_at = ?"
        " WHERE session_id = ?",
        (newer, owner_id, now_iso(), session_id),
    )
    db.execute(
        "UPDATE turns SET token = ?, owner_id = ?, waits_for = NULL, slot_wanted = 0"
        " WHERE turn_id = ?",
        (newer, owner_id, row[0]),
    )
    db.execute("DELETE FROM slots WHERE turn_id = ?", (row[0],))
    event(db, "fenced", session_id, row[0], owner_id, token=token, newer=newer)
    return FencingToken(newer)
