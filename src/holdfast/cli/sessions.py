"""`holdfast sessions`: conversations, as they stand.  Reading only: nothing is changed."""

from __future__ import annotations

import json
import os
import time
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast.cli import output
from holdfast.errors import BadKeyError, BadTranscriptError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast._core.verify import Report
    from holdfast.backends.files.reading import FilesReading
    from holdfast.types import Entry, Session

__all__ = ["app"]

FOLLOW_S: Final = 0.25  #: Between two looks at a transcript's size.
SETTLE_TRIES: Final = 3  #: A torn tail that still grows is a write under way.
LAST_ENTRIES: Final = 5
SHORT_ID_CHARS: Final = 13  #: Of a turn's id: down to the millisecond.
_STYLES: Final = {"user": "bold", "assistant": "green"}

app = typer.Typer(
    help="""\
Conversations: list, show, follow, verify.  Nothing is locked or changed.

\b
holdfast sessions list
holdfast sessions tail main --follow
holdfast sessions verify
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


@app.command()
def verify(
    what: Annotated[
        str | None, typer.Argument(metavar="KEY|FILE", help="Default: every session.")
    ] = None,
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """
    Check transcripts: lines that do not parse, ids, parents, replies without their question.

    FILE is any transcript: it holds a / or ends in .jsonl.  Exit code 1 if anything is wrong.
    """
    files = [
        {
            "path": path,
            "entries": report.entries,
            "problems": [
                {"line": p.line, "code": p.code, "detail": p.detail} for p in report.problems
            ],
        }
        for path, report in _reports(what, store)
    ]
    ok = not any(file["problems"] for file in files)
    if as_json:
        output.emit({"files": files, "ok": ok})
    else:
        _print_reports(files)
    if not ok:
        raise typer.Exit(1)


def _print_reports(files: list[dict[str, Any]]) -> None:
    for file in files:
        verdict = "ok" if not file["problems"] else f"{len(file['problems'])} problem(s)"
        painted = output.paint(verdict, "red" if file["problems"] else "green")
        output.say(f"{file['path']}: {file['entries']} entries: {painted}")
        for problem in file["problems"]:
            output.say(f"  line {problem['line']}: {problem['code']}: {problem['detail']}")
    if not files:
        output.note("holdfast: no sessions yet")


def _reports(what: str | None, store: str | None) -> Iterator[tuple[str, Report]]:
    if what is not None and _is_file(what):
        yield what, _settled(what)
        return
    if what is None:
        reading = output.opened(store)
        wanted = [session for session, _ in reading.sessions()]
    else:
        reading, one = _session(store, what)
        wanted = [one]
    for session in wanted:
        yield _checked(reading, session)


def _is_file(what: str) -> bool:
    from holdfast._core import keys

    if "/" in what or what.endswith(".jsonl"):
        return True
    try:
        keys.canonical(what)
    except BadKeyError:
        return os.path.isfile(what)
    return False


def _settled(path: str) -> Report:
    """What is wrong with a file that may be written to at this moment."""
    from holdfast._core.verify import verify as check
    from holdfast.backends.files.reading_files import read_transcript

    data = read_transcript(path)
    for _ in range(SETTLE_TRIES):
        if data.endswith(b"\n"):
            break
        again = read_transcript(path)
        if again == data:
            break
        data = again
    return check(data)


def _checked(reading: FilesReading, session: Session) -> tuple[str, Report]:
    """One session of many: a file that cannot be read is a finding, not the end."""
    from holdfast._core.verify import Problem, Report

    path = os.path.join(reading.where, session.transcript)
    try:
        return path, _settled(reading.path(session))
    except NotFoundError:
        if not session.end_offset:
            return path, Report(0, ())  # Nothing has run yet; the first turn makes it.
        detail = f"the file is gone, though {session.end_offset} bytes were committed to it"
        return path, Report(0, (Problem(0, "missing", detail),))
    except BadTranscriptError as error:
        return path, Report(0, (Problem(0, "unreadable", error.detail),))


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
        stamp = entry.get("holdfast")
        turn = stamp.get("turn") if isinstance(stamp, dict) else None
        whose = f"  {self._lane(turn)} {turn[:SHORT_ID_CHARS]}" if isinstance(turn, str) else ""
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
