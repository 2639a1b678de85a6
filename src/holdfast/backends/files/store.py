"""Everything that one process has open of one state directory."""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from holdfast._stamps import uuid7
from holdfast.backends.files import fs, identity, secret
from holdfast.backends.files.control.store import GATE, FilesControl
from holdfast.backends.files.live import FilesLive
from holdfast.backends.files.lock import tally
from holdfast.backends.files.lock.gate import Gate
from holdfast.backends.files.look.around import around
from holdfast.backends.files.look.killing import Executioner
from holdfast.backends.files.look.locks import locks_in
from holdfast.backends.files.medium import medium_of
from holdfast.backends.files.transcript.transcripts import FilesTranscripts
from holdfast.errors import ReadOnlyError, SharedFilesystemError, StoreError
from holdfast.ports import Guarantees
from holdfast.types import Owner, OwnerId

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast._core.frozen import Verdict
    from holdfast._core.settings import Settings
    from holdfast.types import Around, FrozenHolder, HoldStatistics, Session

__all__ = ["FilesStore", "this_process"]

log = logging.getLogger("holdfast.store")

_CANNOT_WRITE: Final = {errno.EROFS, errno.EACCES, errno.EPERM}


class FilesStore:
    """The `Store` port on a directory of this machine."""

    def __init__(self, state: str, settings: Settings) -> None:
        """
        Open, and create if need be, the state directory *state*.

        Raises:
            SharedFilesystemError: several machines may share its file system, and
                `store.allow_shared_filesystem` is off.  Nothing was made.
            ReadOnlyError: it cannot be written to.
            NewerSchemaError: a newer Holdfast wrote it.
            StoreError: it is not a directory, or its medium fails.
        """
        self.where = os.path.abspath(state)
        self._shared = _is_shared(self.where, allowed=settings.allow_shared_filesystem)
        _make_directory(self.where)
        self.owner = this_process()
        self.control = FilesControl(self.where)
        self.transcripts = FilesTranscripts(
            self.where,
            durability=settings.durability,
            max_hold_ms=settings.write_lock_max_hold_ms,
            stale_ms=settings.write_lock_stale_ms,
        )
        self.live = FilesLive(self.where)
        self._stale_ms = settings.write_lock_stale_ms
        gate = Gate(os.path.join(self.where, GATE))
        self._executioner = Executioner(self.where, gate, settings)

    @property
    def guarantees(self) -> Guarantees:
        if self._shared:
            return Guarantees.NONE
        return Guarantees.FENCES_APPENDS | Guarantees.PROVES_DEATH

    def secret(self, name: str) -> tuple[str, bool]:
        return secret.published(os.path.join(self.where, name))

    def hold_statistics(self) -> HoldStatistics:
        return tally.statistics()

    def is_dead(self, other: Owner) -> bool:
        if self._shared:  # A clone of this machine may have its name, and any pid.
            return False
        return identity.facts_about(identity.of_owner(other)) == "dead"

    def locks(self) -> list[dict[str, Any]]:
        return [seen.to_json() for seen in locks_in(self.where, stale_ms=self._stale_ms)]

    def around(self, session: Session, owners: Collection[Owner]) -> Around:
        found = around(self.where, session, owners, stale_ms=self._stale_ms)
        if not self._shared:  # A clone of this machine may have its name, and any pid.
            return found
        return replace(found, lives=dict.fromkeys(found.lives, "unknown"))

    def frozen(self, owners: Collection[Owner]) -> list[FrozenHolder]:
        return self._executioner.seen(owners)

    def end_frozen(
        self, holder: FrozenHolder, owners: Collection[Owner], stopped_ms: int
    ) -> Verdict:
        return self._executioner.end(holder, owners, stopped_ms)

    async def close(self) -> None:
        await self.control.close()


def this_process() -> Owner:
    """This process under a new owner id.  Two opens in one process are two owners."""
    me = identity.me()
    return Owner(
        OwnerId(uuid7()), me.pid, me.start or 0, me.boot or "", me.pid_ns or 0, me.host or ""
    )


def _is_shared(path: str, *, allowed: bool) -> bool:
    """Whether *path* is on a shared file system; refused unless *allowed*, and then said."""
    try:
        medium = medium_of(path)
    except OSError as error:
        raise fs.store_error(error, path, "asking for its file system") from error
    if medium.shared and not allowed:
        raise SharedFilesystemError(
            path=path,
            detail=f"on a file system that other machines may share ({medium.name})",
            filesystem=medium.name,
        )
    if medium.shared:
        log.warning(
            "%s is on %s, which other machines may share: their writers are not excluded, and"
            " no owner is ever proven dead (store.allow_shared_filesystem)",
            path,
            medium.name,
        )
    return medium.shared


def _make_directory(path: str) -> None:
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        probe = os.path.join(path, f".probe-{uuid7()}")
        fs.close_fd(fs.open_fd(probe, os.O_WRONLY | os.O_CREAT))
        fs.table.unlink(probe)
    except FileExistsError as error:
        raise StoreError(
            path=path, detail="it is not a directory", hint="name a directory"
        ) from error
    except OSError as error:
        if error.errno in _CANNOT_WRITE:
            raise ReadOnlyError(
                path=path, detail=f"cannot be written: {error.strerror}"
            ) from error
        raise fs.store_error(error, path, "opening the state directory") from error
