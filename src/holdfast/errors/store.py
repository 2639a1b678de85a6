"""The state directory, the database or its medium failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from holdfast.errors.root import Advice, HoldfastError

__all__ = [
    "BadTranscriptError",
    "DiskFullError",
    "NewerSchemaError",
    "ReadOnlyError",
    "SharedFilesystemError",
    "StoreError",
    "UnavailableError",
]


@dataclass(kw_only=True, eq=False)
class StoreError(HoldfastError):
    """The state directory, the database or its medium failed."""

    code: ClassVar[str] = "store"
    exit_code: ClassVar[int] = 3
    status: ClassVar[int] = 503

    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"


@dataclass(kw_only=True, eq=False)
class UnavailableError(StoreError):
    """
    The store did not answer in time, or answered with a fault.

    `landed` is the three-valued truth about the write that was asked for:
    False = it did not happen, None = nobody can tell.
    """

    code: ClassVar[str] = "store_unavailable"
    advice: ClassVar[Advice] = Advice.RETRY_LATER

    landed: bool | None = False
    hint: str = "see who holds the store, then try again"


@dataclass(kw_only=True, eq=False)
class DiskFullError(StoreError):
    """The medium is full.  What was accepted stays accepted; nothing new was written."""

    code: ClassVar[str] = "disk_full"
    advice: ClassVar[Advice] = Advice.RETRY_LATER
    status: ClassVar[int] = 507
    hint: str = "free some space, then try again"


@dataclass(kw_only=True, eq=False)
class ReadOnlyError(StoreError):
    """The state directory cannot be written."""

    code: ClassVar[str] = "read_only"
    hint: str = "give a directory this user may write to"


@dataclass(kw_only=True, eq=False)
class SharedFilesystemError(StoreError):
    """Several machines may share this file system: no lock here proves anything."""

    code: ClassVar[str] = "shared_filesystem"

    filesystem: str  #: Its type, e.g. "nfs".
    hint: str = (
        "use a local directory, or PostgreSQL; store.allow_shared_filesystem = true goes on"
        " without the guarantees"
    )


@dataclass(kw_only=True, eq=False)
class NewerSchemaError(StoreError):
    """The store was written by a newer Holdfast.  It was not touched."""

    code: ClassVar[str] = "newer_schema"

    found: int
    known: int
    hint: str = "upgrade this Holdfast"


@dataclass(kw_only=True, eq=False)
class BadTranscriptError(StoreError):
    """The file is not a transcript we may append to.  It was not touched."""

    code: ClassVar[str] = "bad_transcript"

    line: int | None = None
    hint: str = "look at it with: holdfast sessions verify FILE"

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{where}: {self.detail}"
