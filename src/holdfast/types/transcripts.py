"""Transcripts: marks, appends, pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from holdfast.types.names import Entry

__all__ = ["Advance", "Appended", "EntriesPage", "Mark"]

#: What happened to a transcript since a mark: nothing, only growth, or anything else.
Advance = Literal["same", "appended", "rewritten"]


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a transcript went when a prompt window opened."""

    device: int
    inode: int
    size: int
    leaf: str | None


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append left behind."""

    data: bytes  #: The lines, as they stand in the file.
    end_offset: int
    generation: int
    synced: bool


@dataclass(frozen=True, slots=True)
class EntriesPage:
    """Entries of a transcript in the order of the file, each with the cursor after it."""

    entries: tuple[tuple[str, Entry], ...]
    next: str  #: Go on from here, even if the page is empty.
