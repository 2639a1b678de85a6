"""
`holdfast sessions export`: a whole transcript, to take elsewhere or to read.

The JSONL form is the transcript itself, line by line as it stands; its header carries what
belongs to the session beside its entries, where every reader of the format passes it over:

    "holdfast": {"export": {"session_id", "keys", "aliases", "agent", "generation",
                            "exported_at", "turns": [{"turn_id", "outcome", …}]}}
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast._core.stamped import stamp_of, turn_of
from holdfast._stamps import now_iso
from holdfast.cli import output
from holdfast.errors import BadRequestError, BadTranscriptError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.backends.files.reading import FilesReading
    from holdfast.types import Entry, Session, Turn

__all__ = ["export"]

#: Of a turn's row: what its entries do not say.
FACTS: Final = (
    "turn_id", "session_key", "lane", "source", "state", "outcome", "reason", "attempts",
    "accepted_at", "started_at", "ended_at", "final_entry",
)  # fmt: skip
_ROLES: Final = {"user": "User", "assistant": "Assistant", "toolResult": "Tool result"}


def export(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Session key or alias, e.g. main.")],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="Default: stdout.  Never overwrites."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="jsonl: can be imported again; md: for people.")
    ] = "jsonl",
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """
    Write out a whole conversation, as it is at this moment.  Locks and changes nothing.

    With --out and --json: what was written, as JSON.
    """
    from holdfast._core import keys

    if form not in {"jsonl", "md"}:
        raise BadRequestError(detail=f"no such format: {form[:40]!r}", hint="jsonl or md")
    reading = output.opened(store)
    session = reading.session(keys.canonical(key))
    parts = _lines(reading, session) if form == "jsonl" else _markdown(reading, session)
    if out is None:
        sys.stdout.flush()
        for part in parts:
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        return
    size = _publish(out, parts)
    if as_json:
        output.emit({"path": os.path.abspath(out), "format": form, "bytes": size})
    else:
        output.say(f"{out}: {size} bytes")


def _publish(out: str, parts: Iterator[bytes]) -> int:
    """Written aside and linked: FILE is whole, or is not there."""
    from uuid import uuid4

    private, size = f"{out}.{uuid4().hex}", 0
    try:
        fd = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadRequestError(detail=f"{out}: {error.strerror}", hint="name a file") from error
    try:
        with open(fd, "wb") as file:
            for part in parts:
                size += file.write(part)
            file.flush()
            os.fsync(fd)
        os.link(private, out)
    except FileExistsError:
        raise BadRequestError(
            detail=f"{out} is there already", hint="name another file; none is overwritten"
        ) from None
    except OSError as error:
        raise BadRequestError(detail=f"{out}: {error.strerror}", hint="name a file") from error
    finally:
        os.unlink(private)
    return size


# ------------------------------------------------------------------------------- JSONL


def _facts(reading: FilesReading, session: Session) -> dict[str, Any]:
    found = reading.facts(session)
    return {
        "session_id": session.session_id,
        "keys": found["keys"],
        "aliases": found["aliases"],
        "agent": session.agent_id,
        "generation": session.generation,
        "exported_at": now_iso(),
        "turns": [
            {name: getattr(turn, name) for name in FACTS}
            for turn, _ in reading.turns({}, session_id=session.session_id)
        ],
    }


def _lines(reading: FilesReading, session: Session) -> Iterator[bytes]:
    """
    The header with the facts, then every other line as it stands, up to a settled end.

    One descriptor all along: whoever replaces the file meanwhile does not mix two of them.
    A torn last line is left out: nobody was told that its entry exists.
    """
    from holdfast._core.tree import VERSION
    from holdfast.backends.files.tending import files as tending_files

    path, facts = reading.path(session), _facts(reading, session)
    if not session.end_offset and not os.path.exists(path):
        header = {"type": "session", "version": VERSION, "id": session.session_id,
                  "timestamp": session.created_at, "cwd": ""}  # fmt: skip
        yield _with_facts(_encoded(header), header, facts)
        return
    with tending_files.opened(path) as fd:
        headed = False
        parts = tending_files.pieces(fd, tending_files.settled_end(fd))
        for raw, whole in tending_files.raw_lines(parts):
            if headed and whole:
                yield raw + b"\n"
            elif not whole:
                output.note("holdfast: a torn last line was left out")
            elif raw.strip():
                yield _headed(path, raw, facts)
                headed = True
    if not headed:
        detail = "the session header is missing"
        raise BadTranscriptError(path=path, detail=detail, line=1, hint=_mend(path))


def _mend(path: str) -> str:
    return f"mend it, keeping a copy, with: holdfast sessions repair {path}"


def _headed(path: str, raw: bytes, facts: dict[str, Any]) -> bytes:
    from holdfast._core import jsonl
    from holdfast._core.tree import bad_header

    header = next(jsonl.lines(raw + b"\n")).entry
    problem = bad_header(header)
    if problem is not None or header is None:
        raise BadTranscriptError(path=path, detail=problem or "", line=1, hint=_mend(path))
    return _with_facts(raw, header, facts)


def _with_facts(raw: bytes, header: Entry, facts: dict[str, Any]) -> bytes:
    from holdfast._core.repair import with_fields

    return with_fields(raw, {"holdfast": {**stamp_of(header), "export": facts}}) + b"\n"


def _encoded(header: dict[str, Any]) -> bytes:
    from holdfast._core import jsonl

    return jsonl.encode([header]).rstrip(b"\n")


# ---------------------------------------------------------------------------- Markdown


def _markdown(reading: FilesReading, session: Session) -> Iterator[bytes]:
    """The active branch, for people."""
    facts = reading.facts(session)
    yield f"# {', '.join(facts['keys'])}\n\nSession {session.session_id}\n".encode()
    lanes = _lanes(reading)
    for entry in reading.tree(session).path():
        told = _told(entry)
        if told is None:
            continue
        who, text = told
        lane = lanes(turn_of(entry))
        yield f"\n## {who} · {entry.get('timestamp') or '-'}{lane}\n\n{text}\n".encode(
            errors="replace"
        )


def _told(entry: Entry) -> tuple[str, str] | None:
    match entry.get("type"):
        case "message":
            message = entry.get("message")
            message = message if isinstance(message, dict) else {}
            role = str(message.get("role") or "-")
            return _ROLES.get(role, role), _content(message.get("content"))
        case "compaction" | "branch_summary":
            return "Summary", str(entry.get("summary") or "")
        case "custom_message":
            return "User", _content(entry.get("content"))
    return None


def _content(content: object) -> str:
    """Text as it is; what is not text in a fenced block that it cannot close."""
    import json

    if isinstance(content, str):
        return content
    parts = []
    for part in content if isinstance(content, list) else []:
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            parts.append(part["text"])
        elif isinstance(part, dict):
            shown = {n: v for n, v in part.items() if n not in {"data", "thinkingSignature"}}
            told = json.dumps(shown, ensure_ascii=False, indent=2)
            fence = "`" * 3
            while fence in told:
                fence += "`"
            parts.append(f"{fence}json\n{told}\n{fence}")
    return "\n\n".join(parts)


def _lanes(reading: FilesReading) -> Callable[[str | None], str]:
    known: dict[str, Turn | None] = {}

    def lane(turn_id: str | None) -> str:
        if turn_id is None:
            return ""
        if turn_id not in known:
            try:
                known[turn_id] = reading.turn(turn_id, {})[0]
            except (NotFoundError, BadRequestError):
                known[turn_id] = None
        turn = known[turn_id]
        return f" · {turn.lane}" if turn is not None else ""

    return lane
