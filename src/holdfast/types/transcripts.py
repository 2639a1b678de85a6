"""Transcripts: marks, changes, appends, pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from holdfast.types.names import Entry

__all__ = ["Advance", "Appended", "Change", "EntriesPage", "LineEnd", "Mark"]

#: What happened to a transcript since a mark: nothing, only growth, or anything else.
Advance = Literal["same", "appended", "rewritten"]


@dataclass(frozen=True, slots=True)
class Mark:
    """
    How far a transcript went when a prompt window opened, and how to know it again.

    A store fills in what it has; a store without files leaves the defaults.  For this
    process and this window only: never kept.
    """

    device: int
    inode: int
    size: int  #: Bytes; or whatever grows with the transcript, and only then.
    leaf: str | None
    birth_ns: int | None = None  #: Of the file; None: the platform does not say.
    mtime_ns: int = 0
    whole: int = 0  #: Offset behind the last whole line; up to `size` it is torn.
    tail: bytes = b""  #: The last bytes before `size`.
    #: SHA-256 of the first `whole` bytes; None: see `proof`.
    digest: bytes | None = None
    #: The store's own: what may know the digest later.
    proof: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a transcript since a mark."""

    kind: Advance
    entries: tuple[Entry, ...] = ()  #: What others appended, in the order of the file.
    head: str | None = None  #: The leaf now: what comes next goes under it.
    detail: str = ""  #: In words, why; for errors and the log.


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


@dataclass(frozen=True, slots=True)
class LineEnd:
    """One whole line of a transcript: where it ends, and what it is."""

    end: int  #: The offset behind its newline.
    kind: str | None  #: Its `type`; None: it does not parse.
    entry_id: str | None
