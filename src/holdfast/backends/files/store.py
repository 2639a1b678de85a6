"""Everything that one process has open of one state directory."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from holdfast._stamps import uuid7
from holdfast.backends.files import fs, identity, secret, tally
from holdfast.backends.files.control.store import FilesControl
from holdfast.backends.files.live import FilesLive
from holdfast.backends.files.transcripts import FilesTranscripts
from holdfast.errors import ReadOnlyError, StoreError
from holdfast.types import Owner, OwnerId

if TYPE_CHECKING:
    from holdfast._core.settings import Settings
    from holdfast.types import HoldStatistics

__all__ = ["FilesStore", "this_process"]

_CANNOT_WRITE: Final = {errno.EROFS, errno.EACCES, errno.EPERM}


class FilesStore:
    """The `Store` port on a directory of this machine."""

    def __init__(self, state: str, settings: Settings) -> None:
        """
        Open, and create if need be, the state directory *state*.

        Raises:
            ReadOnlyError: it cannot be written to.
            NewerSchemaError: a newer Holdfast wrote it.
            StoreError: it is not a directory, or its medium fails.
        """
        self.where = os.path.abspath(state)
        _make_directory(self.where)
        self.owner = this_process()
        self.control = FilesControl(self.where)
        self.transcripts = FilesTranscripts(
            self.where,
            durability=settings.durability,
            max_hold_ms=settings.write_lock_max_hold_ms,
        )
        self.live = FilesLive(self.where)

    def secret(self, name: str) -> tuple[str, bool]:
        return secret.published(os.path.join(self.where, name))

    def hold_statistics(self) -> HoldStatistics:
        return tally.statistics()

    def is_dead(self, other: Owner) -> bool:
        return identity.facts_about(identity.of_owner(other)) == "dead"

    async def close(self) -> None:
        await self.control.close()


def this_process() -> Owner:
    """This process under a new owner id.  Two opens in one process are two owners."""
    me = identity.me()
    return Owner(
        OwnerId(uuid7()), me.pid, me.start or 0, me.boot or "", me.pid_ns or 0, me.host or ""
    )


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
