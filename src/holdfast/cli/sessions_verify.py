"""`holdfast sessions verify`: every transcript, by itself and against the rows."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast.cli import output
from holdfast.errors import BadKeyError, BadTranscriptError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast._core.verify import Problem
    from holdfast.backends.files.reading import FilesReading
    from holdfast.types import Session
    from holdfast.types.tending import Belonging

__all__ = ["is_file", "verify"]

PROGRESS_AFTER_S: Final = 1.0
PROGRESS_EVERY_S: Final = 0.2
#: Looks at a session whose row moves at that very moment: a repair, a delete.
TRIES: Final = 5


def verify(
    what: Annotated[
        str | None, typer.Argument(metavar="KEY|FILE", help="Default: every session.")
    ] = None,
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """
    Check transcripts: lines that do not parse, ids, parents, replies without their question.

    Sessions are checked against the store too: whether the file still has all that was
    committed to it.  FILE is any transcript: it holds a / or ends in .jsonl.  Exit code 1 if
    anything is wrong.  Notes (kept replies, files that no session names) are no findings.
    """
    progress = _Progress()
    files = list(_files(what, store, progress))
    progress.clear()
    ok = not any(file["problems"] for file in files)
    if as_json:
        output.emit({"files": files, "ok": ok})
    else:
        _print(files)
    if not ok:
        raise typer.Exit(1)


def is_file(what: str) -> bool:
    """Whether *what* means a file, not a session key."""
    from holdfast._core import keys

    if "/" in what or ".jsonl" in what:
        return True
    try:
        keys.canonical(what)
    except BadKeyError:
        return os.path.isfile(what)
    return False


def _print(files: list[dict[str, Any]]) -> None:
    for file in files:
        verdict = "ok" if not file["problems"] else f"{len(file['problems'])} problem(s)"
        painted = output.paint(verdict, "red" if file["problems"] else "green")
        output.say(f"{file['path']}: {file['entries']} entries: {painted}")
        for problem in file["problems"]:
            output.say(f"  line {problem['line']}: {problem['code']}: {problem['detail']}")
        for told in file["notes"]:
            where = f"line {told['line']}: " if told["line"] else ""
            output.say(output.paint(f"  {where}{told['code']}: {told['detail']}", "dim"))
    if not files:
        output.note("holdfast: no sessions yet")


def _files(
    what: str | None, store: str | None, progress: _Progress
) -> Iterator[dict[str, Any]]:
    if what is not None and is_file(what):
        yield _file(what, progress)
        return
    from holdfast._core import keys

    reading = output.opened(store)
    if what is not None:
        session = reading.session(keys.canonical(what))
        yield _session(reading, session, progress)
        return
    found = _transcripts(reading.where)  # Before the rows: what is made meanwhile is named.
    wanted = [session for session, _ in reading.sessions()]
    for number, session in enumerate(wanted, start=1):
        progress.at(f"session {number} of {len(wanted)}")
        yield _session(reading, session, progress)
    named = set(reading.ask(_names))
    for name in sorted(found - named):
        yield _stray(reading.where, name, named, progress)


def _names(db: Any) -> list[str]:
    return [row[0] for row in db.execute("SELECT transcript FROM sessions")]


def _transcripts(state: str) -> set[str]:
    found: set[str] = set()
    agents = os.path.join(state, "agents")
    for directory, _, names in os.walk(agents):
        found |= {
            os.path.relpath(os.path.join(directory, name), state)
            for name in names
            if name.endswith(".jsonl")
        }
    return found


def _told(
    path: str, entries: int, problems: list[Problem], notes: list[Problem]
) -> dict[str, Any]:
    def listed(found: list[Problem]) -> list[dict[str, Any]]:
        return [{"line": p.line, "code": p.code, "detail": p.detail} for p in found]

    return {
        "path": path, "entries": entries, "problems": listed(problems), "notes": listed(notes)
    }  # fmt: skip


def _file(path: str, progress: _Progress) -> dict[str, Any]:
    from holdfast._core.verify import Problem
    from holdfast.backends.files.tending.files import verified

    report, verifier, _ = verified(path, told=progress.reading(path))
    notes = [Problem(line, "salvaged", _kept(turn)) for line, turn in verifier.salvaged]
    return _told(path, report.entries, list(report.problems), notes)


def _stray(state: str, name: str, named: set[str], progress: _Progress) -> dict[str, Any]:
    from holdfast._core.verify import Problem

    path = os.path.join(state, name)
    left = any(each.startswith(f"{name}.deleted-") for each in named)
    detail = (
        "its session was deleted, and the file left behind: remove it, or import it"
        if left
        else "no session names this file: import it, or move it away"
    )
    orphan = Problem(0, "orphan", detail)
    try:
        told = _file(path, progress)
    except (NotFoundError, BadTranscriptError) as error:
        return _told(path, 0, [Problem(0, "unreadable", str(error))], [orphan])
    told["notes"].append({"line": 0, "code": "orphan", "detail": detail})
    return told


# ----------------------------------------------------------------- against the rows


def _session(reading: FilesReading, session: Session, progress: _Progress) -> dict[str, Any]:
    """
    One session.  Rows are read before the file, because a commit comes after its entries;
    and again after it: if the file was rewritten or taken away meanwhile, all is asked anew.
    """
    from holdfast.backends.files.control import tending as rows

    told: dict[str, Any] = {}
    for _ in range(TRIES):
        before = reading.ask(lambda db: rows.belonging(db, session.session_id))
        told = _checked(reading, before, progress)
        after = reading.ask(lambda db: rows.belonging(db, session.session_id)).session
        if (after.generation, after.transcript) == (
            before.session.generation, before.session.transcript
        ):  # fmt: skip
            break
    return told


def _checked(
    reading: FilesReading, belonging: Belonging, progress: _Progress
) -> dict[str, Any]:
    from holdfast._core.verify import Problem
    from holdfast.backends.files.tending.files import cut_short, opened, verified

    session = belonging.session
    path = os.path.join(reading.where, session.transcript)
    kept = [Problem(0, "salvaged", _kept(turn)) for turn in belonging.salvaged]
    try:
        report, verifier, size = verified(reading.path(session), told=progress.reading(path))
        with opened(path) as fd:
            cut = cut_short(fd, size, belonging)
    except NotFoundError:
        if not session.end_offset:
            return _told(path, 0, [], kept)  # Nothing has run yet; the first turn makes it.
        detail = f"the file is gone, though {session.end_offset} bytes were committed to it"
        return _told(path, 0, [Problem(0, "missing", detail)], kept)
    except BadTranscriptError as error:
        return _told(path, 0, [Problem(0, "unreadable", error.detail)], kept)
    found = list(report.problems)
    if cut is not None:
        lost = session.end_offset - size
        back = f"the rows have the lines of {len(cut)} turn(s); sessions repair puts them back"
        code, more = ("cut", back) if cut else ("shrunk", "the rows have no lines to put back")
        found.append(Problem(0, code, f"{lost} committed bytes are missing; {more}"))
    returning = {each.turn_id for each in cut or ()}
    found += [
        Problem(
            0, "lost_final", f"turn {each.turn_id} has its reply {each.final_entry} no more"
        )
        for each in belonging.commitments
        if not verifier.knows(each.final_entry) and each.turn_id not in returning
    ]
    repaired = verifier.repaired
    behind = repaired is not None and repaired[1] > session.generation
    if behind and repaired is not None and repaired[2] == session.session_id:
        detail = (
            f"a repair made it generation {repaired[1]}, its row says {session.generation};"
            " sessions repair raises the row"
        )
        found.append(Problem(repaired[0], "generation", detail))
    notes = [Problem(line, "salvaged", _kept(turn)) for line, turn in verifier.salvaged]
    return _told(path, report.entries, found, [*notes, *kept])


def _kept(turn: str) -> str:
    return f"a finished reply of turn {turn[:80]} is kept here"


# ---------------------------------------------------------------------------- progress


class _Progress:
    """One line on stderr that is written over, for terminals, once it takes long."""

    def __init__(self) -> None:
        self._shows = output.is_terminal(sys.stderr)
        self._since_s = time.monotonic()
        self._told_s = 0.0
        self._at = ""
        self._shown = False

    def at(self, what: str) -> None:
        self._at = what
        self._tell(what)

    def reading(self, path: str) -> Callable[[int], None]:
        name = os.path.basename(path)

        def told(done: int) -> None:
            prefix = f"{self._at}: " if self._at else ""
            self._tell(f"{prefix}{name}: {done >> 20} MB")

        return told

    def _tell(self, text: str) -> None:
        now_s = time.monotonic()
        if not self._shows or now_s - self._since_s < PROGRESS_AFTER_S:
            return
        if now_s - self._told_s >= PROGRESS_EVERY_S:
            self._told_s, self._shown = now_s, True
            sys.stderr.write(f"\r\x1b[K{output.cut(text, 78)}")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
