"""`holdfast lab run soak`: real processes, killed and stopped for a while, and what is left."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

import typer

from holdfast.cli import output
from holdfast.errors import BadRequestError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NAME", "soak"]

NAME: Final = "soak"
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}
_DURATION: Final = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smh]?)")


def soak(
    *, processes: int, sessions: int, duration: str, seed: int | None, report: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Run it; exit code 1 unless it is clean."""
    from holdfast.lab.soak import run_soak

    found = run_soak(
        processes=processes,
        sessions=sessions,
        duration_s=_seconds(duration),
        seed=int.from_bytes(os.urandom(2)) if seed is None else seed,
        directory=None if report is None else str(report),
        report=output.note,
    )
    if as_json:
        output.emit(found)
    else:
        _print(found)
    if not found["clean"]:
        raise typer.Exit(1)


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise BadRequestError(
            detail=f"--duration {text[:80]!r} is no duration", hint="say 60s, 10m, 1h"
        )
    return float(match[1]) * _UNITS[match[2]]


def _print(found: dict[str, Any]) -> None:
    from holdfast.lab.soak_report import markdown

    for line in markdown(found):
        output.say(line)
    if "kept" in found:
        output.say(f"what it has left is kept: {found['kept']}")
