"""
`holdfast sessions`: conversations, as they stand.

What is here only reads.  `sessions_verify.py` checks, `sessions_export.py` writes out, and
`sessions_tend.py` repairs, brings in and takes away.
"""

from __future__ import annotations

import json
import os
import time
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Final

import typer

from holdfast._core.stamped import turn_of
from holdfast.cli import (
    output,
    sessions_export,
    sessions_reset,
    sessions_tend,
    sessions_verify,
)
from holdfast.errors import NotFoundError

if TYPE_CHECKING:
    from holdfast.backends.files.reading import FilesReading
    from holdfast.types import Entry, Session

__all__ = ["app"]

FOLLOW_S: Final = 0.25  #: Between two looks at a transcript's size.
LAST_ENTRIES: Final = 5
SHORT_ID_CHARS: Final = 13  #: Of a turn's id: down to the millisecond.
_STYLES: Final = {"user": "bold", "assistant": "green"}

app = typer.Typer(
    help="""\
Conversations: list, show, follow, verify, export; reset, repair, import, delete.

\b
holdfast sessions list
holdfast sessions tail main --follow
holdfast sessions verify
holdfast sessions repair state/agents/main/sessions/….jsonl --dry-run

The first five lock and change nothing.
"""
)

Key = Annotated[str, typer.Argument(metavar="KEY", help="Session key or alias, e.g. main.")]


@app.command("list")
def list_(store: output.Store = None, as_json: output.Json = False) -> None:
    """List every session, with its keys and how many turns it has, waiting and running."""
    found = [
        {
            "session_id": session.session_id,
            "keys": json.loads(facts["keys"]),
            "agent": session.agent_id,
            "turns": facts["turns"],
            "waiting": facts["waiting"],
            "running": facts["running"],
            "created_at": session.created_at,
        }
        for session, facts in output.opened(store).sessions()
    ]
    if as_json:
        output.emit({"sessions": found})
        return
    output.table(
        ("KEY", "SESSION", "TURNS", "WAITING", "RUNNING"),
        (
            (" ".join(s["keys"]), s["session_id"], s["turns"], s["waiting"], s["running"])
            for s in found
        ),
    )
    if not found:
        output.note("holdfast: no sessions yet")


@app.command()
def show(key: Key, store: output.Store = None, as_json: output.Json = False) -> None:
    """Show one session: keys, counts, transcript, last entries."""
    reading, session = _session(store, key)
    facts, tree = reading.facts(session), reading.tree(session)
    told = {
        "session_id": session.session_id,
        **facts,
        "agent": session.agent_id,
        "created_at": session.created_at,
        "transcript": reading.path(session),
        "generation": session.generation,
        "entries": len(tree.entries),
        "older": [reading.path(each) for each in reading.older(session, facts["keys"])],
    }
    last = tree.path()[-LAST_ENTRIES:]
    if as_json:
        output.emit({**told, "last": last})
        return
    for name, value in told.items():
        shown = " ".join(value) if isinstance(value, list) else value
        output.say(f"{name:<12}{'-' if shown in {None, ''} else shown}")
    if last:
        output.say()
        output.table(("AT", "ENTRY", "TEXT"), ((_at(e), _kind(e), _summary(e)) for e in last))


@app.command()
def tail(
    key: Key,
    last: Annotated[int, typer.Option("-n", "--last", min=0, help="How many.")] = 20,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with new ones, until Ctrl-C.")
    ] = False,
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """Print the last messages of the conversation's active branch; with --json, entries."""
    reading, session = _session(store, key)
    tell = _Teller(reading, as_json=as_json)
    entries = _talk(reading.tree(session).path())
    seen = {str(entry["id"]) for entry in entries}
    for entry in entries[max(0, len(entries) - last) :]:
        tell(entry)
    path, size = reading.path(session), -1
    while follow:
        time.sleep(FOLLOW_S)
        grown = os.path.getsize(path) if os.path.exists(path) else 0
        if grown == size:
            continue
        size = grown
        for entry in _talk(reading.tree(session).path()):
            if entry["id"] not in seen:
                seen.add(str(entry["id"]))
                tell(entry)


app.command()(sessions_verify.verify)
app.command()(sessions_export.export)
app.command()(sessions_reset.reset)
app.command()(sessions_tend.repair)
app.command("import")(sessions_tend.bring)
app.command()(sessions_tend.delete)


# ------------------------------------------------------------------------------ entries


def _session(store: str | None, key: str) -> tuple[FilesReading, Session]:
    from holdfast._core import keys

    key = keys.canonical(key)
    reading = output.opened(store)
    return reading, reading.session(key)


def _talk(path: list[Entry]) -> list[Entry]:
    return [entry for entry in path if entry.get("type") == "message"]


class _Teller:
    """Prints entries; knows the lanes of the turns that they belong to."""

    def __init__(self, reading: FilesReading, *, as_json: bool) -> None:
        self._reading, self._as_json = reading, as_json
        self._lanes: dict[str, str] = {}

    def __call__(self, entry: Entry) -> None:
        if self._as_json:
            output.emit(entry)
            return
        turn = turn_of(entry)
        whose = "" if turn is None else f"  {self._lane(turn)} {turn[:SHORT_ID_CHARS]}"
        role = _kind(entry)
        output.say(
            output.paint(role, _STYLES.get(role, "yellow"))
            + output.paint(f"  {_at(entry)}{whose}", "dim")
        )
        output.say(indent(_text(entry), "  "))

    def _lane(self, turn: str) -> str:
        if turn not in self._lanes:
            try:
                self._lanes[turn] = self._reading.turn(turn, {})[0].lane
            except NotFoundError:
                self._lanes[turn] = "-"
        return self._lanes[turn]


def _at(entry: Entry) -> str:
    return str(entry.get("timestamp") or "-")


def _kind(entry: Entry) -> str:
    message = entry.get("message")
    role = message.get("role") if isinstance(message, dict) else None
    return str(role or entry.get("customType") or entry.get("type") or "-")


def _summary(entry: Entry) -> str:
    if entry.get("type") == "message":
        return output.cut(_text(entry))
    data = entry.get("data") or entry.get("summary")
    return output.cut(json.dumps(data, ensure_ascii=False)) if data else ""


def _text(entry: Entry) -> str:
    """A message's text, and in brackets what else it holds."""
    from holdfast._core.tree import text_of

    message = entry.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    parts = content if isinstance(content, list) else []
    others = [
        f"[{part.get('type')}{' ' + str(part['name']) if 'name' in part else ''}]"
        for part in parts
        if isinstance(part, dict) and part.get("type") != "text"
    ]
    return " ".join([*([text] if (text := text_of(message)) else []), *others])
