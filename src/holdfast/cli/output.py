"""
What commands say, and how.

stdout carries the answer: text for people, or with `--json` objects for programs.  stderr
carries everything else, each thing on one line.  Nothing is coloured unless a terminal shows
it, and never with NO_COLOR.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import TextIO

    from holdfast._core.settings import Settings
    from holdfast.backends.files.reading import FilesReading
    from holdfast.errors import HoldfastError

__all__ = [
    "POLICY_HELP",
    "Config",
    "Json",
    "Store",
    "cut",
    "emit",
    "error_line",
    "fail",
    "is_terminal",
    "note",
    "opened",
    "paint",
    "quiet_waits",
    "say",
    "settings",
    "stream",
    "table",
    "where",
]

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="State directory (default: $HOLDFAST_STORE, or your own).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Say the same as JSON.")]
Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings (default: $HOLDFAST_CONFIG, or ./holdfast.toml if it is there).",
    ),
]

POLICY_HELP: Final = (
    "If the session is busy: enqueue, collect, steer, interrupt, reject or rollback."
)
CELL_CHARS_MAX: Final = 60
_STYLES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: What could move a terminal's cursor or worse.  Tab, newline and colours stay.
_STEERS: Final = re.compile(r"(?!\x1b\[\d{1,2}m)[\x00-\x08\x0b-\x1f\x7f-\x9f]")


# ------------------------------------------------------------------------ what is given


def where(store: str | None) -> str:
    """
    The state directory that a command works on.

    Raises:
        BadSettingError: a memory store, which would be gone with the command that made it.
    """
    from holdfast.config import default_store
    from holdfast.errors import BadSettingError

    found = store or default_store()
    if found.partition(":")[:2] == ("memory", ":"):
        raise BadSettingError(
            key="store",
            value=found,
            allowed="a state directory; a memory store is for programs that open it"
            " themselves, with holdfast.open: a command's would be gone when it ends",
        )
    return found


def settings(
    config: str | None = None,
    flags: Mapping[str, Any] | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """
    The settings that a command goes by: a file, the environment, its flags; later wins.

    Args:
        config: the file that ``--config`` names; see `holdfast.config.file_for`.
        flags: dotted names; a flag of None was not given.
        defaults: this command's own, where nobody gives a value.

    Raises:
        BadSettingError, BadRequestError, NotFoundError: what is wrong, and where it stands.
    """
    from holdfast.config import file_for, load

    return load(
        file=file_for(config), environment=os.environ, given=flags, given_by="command line",
        defaults=defaults,
    )  # fmt: skip


def opened(store: str | None) -> FilesReading:
    """The store, for reading only.  Raises NotFoundError: there is none."""
    from holdfast._assemble_reading import open_reading

    return open_reading(where(store))


@contextmanager
def quiet_waits(*, when: bool = True) -> Iterator[None]:
    """No log lines about long waits: this command shows where its messages stand."""
    log = logging.getLogger("holdfast.wait")
    before, log.disabled = log.disabled, log.disabled or when
    try:
        yield
    finally:
        log.disabled = before


# ------------------------------------------------------------------------- what is said


def say(text: str = "") -> None:
    """One piece of the answer."""
    print(_harmless(text, sys.stdout), flush=True)


def stream(text: str) -> None:
    """A part of the answer, as it comes."""
    sys.stdout.write(_harmless(text, sys.stdout))
    sys.stdout.flush()


def note(text: str) -> None:
    """Something beside the answer, on one line."""
    print(_harmless(" ".join(text.split()), sys.stderr), file=sys.stderr, flush=True)


def emit(value: Mapping[str, Any]) -> None:
    """One JSON object, on a line of its own."""
    print(json.dumps(value, ensure_ascii=False, default=str), flush=True)


def fail(error: HoldfastError, *, as_json: bool) -> int:
    """Tell an error, once for people and with *as_json* once for programs; its exit code."""
    note(f"holdfast: {error_line(error)}")
    if as_json:
        emit({"error": error.to_json()})
    return error.exit_code


def error_line(error: HoldfastError) -> str:
    """``what (where): hint``."""
    path, detail = getattr(error, "path", None), getattr(error, "detail", None)
    what = f"{detail} ({path})" if path and detail else str(error)
    return f"{what.rstrip(':')}: {error.hint}" if error.hint else what


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns, two spaces apart.  None and "" show as a dash."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        return
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    for number, row in enumerate([list(head), *cells]):
        line = "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        say(line if number else paint(line, "dim"))


def cut(text: str, limit: int = CELL_CHARS_MAX) -> str:
    """*text* on one line, at most *limit* characters of it."""
    line = " ".join(_CONTROL.sub(" ", text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """*text* in a style, if *stream* (default: stdout) is a terminal that wants colours."""
    stream = stream or sys.stdout
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain or not is_terminal(stream):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # Closed.
        return False


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else cut(str(value), 10 * CELL_CHARS_MAX)


def _harmless(text: str, stream: TextIO) -> str:
    """What a model or a stranger wrote must not steer the terminal; a pipe gets it as is."""
    return _STEERS.sub("\ufffd", text) if is_terminal(stream) else text
