"""What tending a transcript has come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.types.coordinating import Session
    from holdfast.types.names import SessionId

__all__ = ["Belonging", "Commitment", "Deleted", "Imported", "Repaired"]


@dataclass(frozen=True, slots=True)
class Commitment:
    """A committed turn, as its row vouches for it."""

    turn_id: str
    final_entry: str
    end_offset: int | None
    generation: int | None
    entries: bytes | None  #: Its lines; None: a later commit has made them safe.


@dataclass(frozen=True, slots=True)
class Belonging:
    """The session that a transcript belongs to, and what its rows vouch for."""

    session: Session
    commitments: tuple[Commitment, ...]  #: In the order of their offsets.
    salvaged: tuple[str, ...] = ()  #: Turns whose row keeps a finished reply for people.


@dataclass(frozen=True, slots=True)
class Repaired:
    path: str  #: Resolved.
    changed: bool  #: With a dry run: would be.
    entries: int  #: Of the transcript as it is now, or would be.
    counts: Mapping[str, int] = field(default_factory=dict)  #: By finding; see _core/repair.py.
    moved_out: tuple[int, ...] = ()  #: Lines that do not parse, by their numbers in the copy.
    copy: str | None = None  #: The file as it was; None: nothing was changed.
    generation: int | None = None  #: The session's now; None: no store's.
    #: What `verify` would still find: line, code, detail.
    remaining: tuple[tuple[int, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Imported:
    session_id: SessionId
    session_key: str
    path: str
    entries: int
    migrated_from: int  #: The format version that the file was in.


@dataclass(frozen=True, slots=True)
class Deleted:
    session_id: SessionId
    keys: tuple[str, ...]
    turns: int
    moved_to: str | None  #: None: it was purged, or there was no transcript.
