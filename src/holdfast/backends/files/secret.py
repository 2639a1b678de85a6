"""
A secret in a file: made by one first starter, published whole, found by the others.

It is written aside, private from its first byte, and published by link, which fails if the
name is taken: of several first starters one wins, and all agree on what it wrote.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from typing import Final

from holdfast._stamps import uuid7
from holdfast.backends.files import fs
from holdfast.errors import StoreError

__all__ = ["published"]

SECRET_BYTES: Final = 32


def published(path: str) -> tuple[str, bool]:
    """
    The secret at *path*, made if it is not there.

    Returns:
        The secret, and whether this call made it.

    Raises:
        StoreError: it cannot be read or made, is empty, or others may read it.
    """
    try:
        made = not os.path.lexists(path) and _publish(path)
        fd = fs.open_fd(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            mode = fs.table.fstat(fd).st_mode
            found = fs.read_all(fd).decode("ascii", "replace").strip()
        finally:
            fs.close_quietly(fd)
    except OSError as error:
        raise fs.store_error(error, path, "reading a secret") from error
    if stat.S_IMODE(mode) & 0o077:
        raise StoreError(path=path, detail="others may read it", hint=f"chmod 600 {path}")
    if not found:
        raise StoreError(path=path, detail="it is empty", hint="remove it; a new one is made")
    return found, made


def _publish(path: str) -> bool:
    new = f"{path}.{uuid7()}"
    try:
        fd = fs.open_fd(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            left = secrets.token_urlsafe(SECRET_BYTES).encode() + b"\n"
            while left:  # A disk that fills takes less than it was given.
                left = left[fs.table.write(fd, left) :]
            fs.table.fdatasync(fd)
        finally:
            fs.close_fd(fd)
        made = False
        with suppress(FileExistsError):  # Another first starter was faster: its secret is ours.
            fs.table.link(new, path)
            made = True
        fs.sync_dir(os.path.dirname(path))
        return made
    finally:
        fs.remove_own(new)
