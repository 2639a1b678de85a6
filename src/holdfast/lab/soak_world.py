"""
What a soak has left behind: rows, bytes, and what everybody outside was told.

Read from outside, once every process has left: nothing here asks the runtime.
"""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast._core import jsonl
from holdfast._core.tree import Tree
from holdfast.backends.files.control import tending
from holdfast.backends.files.reading import FilesReading
from holdfast.backends.files.tending.files import cut_short, opened, verified
from holdfast.errors import HoldfastError
from holdfast.lab.soak_child import EFFECTS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from holdfast.types import Entry, Session

__all__ = ["HOLDS", "Transcript", "World", "look", "standing"]

Row = dict[str, Any]

#: Everything that somebody can hold, and the rows that say so.
HOLDS: Final = {
    "leases": "leases",
    "slots": "slots",
    "slots wanted": "turns WHERE slot_wanted = 1",
    "waits for children": "turns WHERE waits_for IS NOT NULL AND state = 'running'",
    "queues": "queues",
    "hosts": "turns WHERE host IS NOT NULL",
    "deliveries": "deliveries WHERE state NOT IN ('delivered', 'failed')",
    "targets": "targets",
    "tool intents": "tool_calls WHERE state = 'started'",
    "messages on the way": "made",
    "handovers": "handovers WHERE answer IS NULL",
    "owners": "owners",
    "runners": "runners",
}
_TURNS: Final = (
    "SELECT admission, turn_id, session_id, session_key, lane, policy, state, outcome,"
    " reason, reply, text, attempts, idempotency_key, home, final_entry, target, merged_into,"
    " hosted, parent, accepted_at, started_at, ended_at FROM turns"
)


@dataclass(slots=True)
class Transcript:
    path: str
    entries: list[Entry]
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class World:
    """Facts, and no opinion."""

    turns: dict[str, Row] = field(default_factory=dict)  #: By turn id.
    deliveries: list[Row] = field(default_factory=list)
    calls: list[Row] = field(default_factory=list)
    transcripts: list[Transcript] = field(default_factory=list)
    notes: list[Row] = field(default_factory=list)
    effects: Counter[tuple[str, str]] = field(default_factory=Counter)  #: (kind, tag)
    receiver: Mapping[str, Any] = field(default_factory=dict)
    holds: dict[str, int] = field(default_factory=dict)
    frozen_killed: int = 0

    def entries(self) -> dict[str, Entry]:
        """Those of all transcripts, by their ids, in the order of each file."""
        return {str(entry["id"]): entry for each in self.transcripts for entry in each.entries}


def look(state: str, work: str, receiver: Mapping[str, Any]) -> World:
    """Read all of it.  Raises HoldfastError: it cannot be read."""
    reading = FilesReading(state)
    holds = reading.ask(_holds)
    holds["claims"] = len(glob.glob(os.path.join(state, "**", "*.lock"), recursive=True))
    return World(
        turns={row["turn_id"]: row for row in _rows(reading, _TURNS)},
        deliveries=_rows(reading, "SELECT * FROM deliveries ORDER BY seq"),
        calls=_rows(reading, "SELECT * FROM tool_calls"),
        transcripts=[_transcript(reading, session) for session, _ in reading.sessions()],
        notes=[
            json.loads(line)
            for path in sorted(glob.glob(os.path.join(work, "*.notes")))
            for line in _lines(path)
        ],
        effects=Counter(
            (kind, tag)
            for kind, tag in (line.split() for line in _lines(os.path.join(work, EFFECTS)))
        ),
        receiver=receiver,
        holds=holds,
        frozen_killed=sum(event.kind == "frozen_killed" for event in reading.events()),
    )


def standing(state: str) -> dict[str, int]:
    """How far it is, for a line of progress and for who waits for the end."""

    def counts(db: sqlite3.Connection) -> dict[str, int]:
        (accepted,) = db.execute("SELECT count(*) FROM turns").fetchone()
        (open_,) = db.execute("SELECT count(*) FROM turns WHERE state <> 'done'").fetchone()
        holds = _holds(db)
        kept = sum(count for name, count in holds.items() if name not in {"owners", "runners"})
        return {"accepted": accepted, "open": open_, "held": kept, "owners": holds["owners"]}

    return FilesReading(state).ask(counts)


def _holds(db: sqlite3.Connection) -> dict[str, int]:
    return {
        name: db.execute(f"SELECT count(*) FROM {where}").fetchone()[0]  # noqa: S608  Ours.
        for name, where in HOLDS.items()
    }


def _rows(reading: FilesReading, query: str) -> list[Row]:
    def run(db: sqlite3.Connection) -> list[Row]:
        cursor = db.execute(query)
        names = [each[0] for each in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    return reading.ask(run)


def _transcript(reading: FilesReading, session: Session) -> Transcript:
    path = reading.path(session)
    if not os.path.exists(path):
        gone = ["it is gone"] if session.end_offset else []
        return Transcript(path, [], gone)
    try:
        report, _, size = verified(path)
        belonging = reading.ask(lambda db: tending.belonging(db, session.session_id))
        with opened(path) as fd:
            cut = cut_short(fd, size, belonging)
    except HoldfastError as error:
        return Transcript(path, [], [str(error)])
    problems = [f"line {each.line}: {each.code}: {each.detail}" for each in report.problems]
    if cut is not None:
        problems.append("it was cut short")
    tree = Tree()
    with open(path, "rb") as file:
        tree.feed(jsonl.lines(file.read()))
    return Transcript(path, list(tree.entries.values()), problems)


def _lines(path: str) -> list[str]:
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()
