"""Like `_assemble`, for who tends transcripts: names a store, but no agent and no runtime."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from holdfast.errors import BadRequestError, BadSettingError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast._core.settings import Settings
    from holdfast.ports import Store
    from holdfast.ports.tending import Tending
    from holdfast.types.tending import Repaired

__all__ = ["repair_file", "tended", "tending", "would_repair"]


def tending(store: Store) -> Tending:
    """
    What tends the transcripts of *store*, which is open.

    Raises:
        BadRequestError: it keeps none in files.
    """
    from holdfast.backends.files.store import FilesStore  # noqa: PLC0415
    from holdfast.backends.files.tending.sessions import FilesTending  # noqa: PLC0415

    if not isinstance(store, FilesStore):
        raise BadRequestError(detail=f"{store.where} keeps no transcripts in files")
    return FilesTending(store)


@contextmanager
def tended(where: str, settings: Settings) -> Iterator[Tending]:
    """
    The store at *where*, open for tending only: this process is no owner in it.

    Raises:
        NotFoundError: there is none; none is made.
        BadSettingError: it keeps no transcripts in files.
        StoreError: it cannot be used.
    """
    from holdfast.backends.files.store import FilesStore  # noqa: PLC0415

    scheme, found, _ = where.partition(":")
    if found and (scheme == "memory" or "//" in where):
        allowed = "a state directory: only files are tended"
        raise BadSettingError(key="store", value=scheme + ":", allowed=allowed)
    if not os.path.isfile(os.path.join(where, "control.db")):
        hint = "name a state directory with --store"
        raise NotFoundError(what="store", name=where, hint=hint)
    store = FilesStore(where, settings)
    try:
        yield tending(store)
    finally:
        store.control.close_now()


def repair_file(path: str, settings: Settings, *, timeout_s: float) -> Repaired:
    """Repair any transcript; with its session, if it stands in a store.  See `Tending`."""
    from holdfast.backends.files.tending.repairing import repair_file as repair  # noqa: PLC0415
    from holdfast.backends.files.tending.sessions import state_of  # noqa: PLC0415

    state = state_of(path)
    if state is None:
        return repair(path, timeout_s=timeout_s)
    with tended(state, settings) as tender:
        return tender.repair(path, timeout_s=timeout_s)


def would_repair(path: str) -> Repaired:
    """What `repair_file` would do.  No lock, no row, no byte changed."""
    from holdfast.backends.files.control import tending as rows  # noqa: PLC0415
    from holdfast.backends.files.reading import FilesReading  # noqa: PLC0415
    from holdfast.backends.files.tending import repairing as tending_repair  # noqa: PLC0415
    from holdfast.backends.files.tending.sessions import state_of  # noqa: PLC0415

    state = state_of(path)
    belonging = None
    if state is not None:
        reading = FilesReading(state)
        name = os.path.relpath(os.path.realpath(path), os.path.realpath(state))
        session = reading.ask(lambda db: rows.owner_of(db, name))
        if session is not None:
            belonging = reading.ask(lambda db: rows.belonging(db, session.session_id))
    return tending_repair.would_repair(path, belonging)
