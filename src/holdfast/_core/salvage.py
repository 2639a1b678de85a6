"""
What is kept of replies whose place in the transcript was gone: the `salvaged` column of a
turn's row.

A list of records, oldest first, one for each run that came to nothing.  The row always keeps
the entries themselves; they may stand elsewhere too:

    transcript   as side entries: in the file, but not on the branch
    file         in `<state>/salvage/`, because the transcript was none any more
    row          nowhere else
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from holdfast._core.tree import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Salvage", "Where", "added", "carried", "read"]

Where = Literal["transcript", "file", "row"]


@dataclass(frozen=True, slots=True)
class Salvage:
    """One run's work."""

    attempt: int
    token: int
    where: Where
    file: str | None  #: Relative to the state directory.
    #: The finished reply, as entries: tool calls and results, and the reply itself at last.
    entries: tuple[dict[str, Any], ...]
    #: Without a reply: the tool calls and results that the run had made.
    made: tuple[dict[str, Any], ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(entry["id"] for entry in self.entries)

    @property
    def text(self) -> str | None:
        """What the reply says; None: there is none."""
        return text_of(self.entries[-1].get("message")) if self.entries else None


def read(blob: bytes | None) -> tuple[Salvage, ...]:
    """The records of a row, oldest first."""
    if blob is None:
        return ()
    found = msgspec.json.decode(blob)
    if found and "entries" not in found[0]:  # Written before there were records.
        stamp = found[0]["holdfast"]
        return (Salvage(stamp["attempt"], stamp["token"], "row", None, tuple(found)),)
    return tuple(msgspec.convert(found, list[Salvage]))


def added(blob: bytes | None, record: Salvage) -> bytes:
    """*blob*, with one record more."""
    return msgspec.json.encode([*read(blob), record])


def carried(blob: bytes | None) -> tuple[Mapping[str, Any], ...]:
    """
    The tool calls and results that a rerun goes on after: their effects have happened.

    Each run begins with those of the one before it, so the last record has all of them.
    """
    records = read(blob)
    if not records:
        return ()
    last = records[-1]
    return last.made or tuple(entry["message"] for entry in last.entries[:-1])
