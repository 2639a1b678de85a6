"""Like `_assemble`, for who only looks: names a store, but neither an agent nor a runtime."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from holdfast.errors import BadSettingError

if TYPE_CHECKING:
    from holdfast.backends.files.reading import FilesReading

__all__ = ["open_reading"]


def open_reading(where: str | os.PathLike[str]) -> FilesReading:
    """
    The store at *where*, for reading only.  Takes no lock, and changes and makes nothing.

    Raises:
        NotFoundError: there is no store.
        BadSettingError: not a store that this version can read.
        StoreError: it cannot be read.
    """
    where = os.fspath(where)
    scheme, found, _ = where.partition(":")
    if found and scheme == "memory":
        raise BadSettingError(
            key="store",
            value="memory:",
            allowed="a state directory: a memory store is inside one program, and only that"
            " program can read it",
        )
    if found and "//" in where:
        raise BadSettingError(
            key="store",
            value=scheme + ":",
            allowed="a state directory (other stores come later)",
        )
    from holdfast.backends.files.reading import FilesReading  # noqa: PLC0415

    return FilesReading(where)
