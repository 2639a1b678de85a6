"""A transcript file as a lone attempt sees it: its write lock, and its line of windows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from holdfast._core import jsonl
from holdfast._core.tree import VERSION
from holdfast._stamps import now_iso, uuid7
from holdfast.backends.files import fs
from holdfast.backends.files.lock.latch import publish_file
from holdfast.backends.files.lock.windows import WindowLine
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.backends.files.transcript.held import HeldFile
from holdfast.backends.files.transcript.loaded import Reading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.backends.files.lock.hold import Hold

__all__ = ["FilesAttempt"]

#: What this process has read of transcripts, shared by all attempts.
_reading: Final = Reading()


class _Held(HeldFile):
    """A held file that can be taken from whoever uses it."""

    def __init__(self, hold: Hold, *, durability: str) -> None:
        super().__init__(hold, _reading, durability=durability)

    def abort(self, reason: str) -> bool:
        return self._hold.abort(reason)


class FilesAttempt:
    """The `AttemptFile` port on a path."""

    def __init__(
        self,
        path: str,
        *,
        durability: str,
        max_hold_ms: int,
        stale_ms: int,
        lane: str | None,
        run_id: str | None,
        session_id: str | None,
    ) -> None:
        self.path = path
        self._durability = durability
        self._session_id = session_id
        self._lock = WriteLock(
            path,
            max_hold_ms=max_hold_ms,
            stale_ms=stale_ms,
            lane=lane,
            run_id=run_id,
            session_id=session_id,
            header=self._header,
        )
        self._windows = WindowLine(path)

    async def acquire(self, timeout_s: float) -> _Held:
        self._lock.timeout_s = timeout_s
        return _Held(await self._lock.acquire(), durability=self._durability)

    def join(self) -> bool:
        return self._windows.join()

    async def wait(self, timeout_s: float) -> None:
        await self._windows.wait(timeout_s)

    def vacate(self) -> None:
        self._windows.vacate()

    def set_aside(self, entries: Sequence[Mapping[str, Any]]) -> str:
        path = f"{fs.table.realpath(self.path)}.salvage-{uuid7()}"
        try:
            publish_file(path, lambda: jsonl.encode(entries))
        except OSError as error:
            raise fs.store_error(error, path, "keeping a finished reply") from error
        return path

    def _header(self) -> bytes:
        header = {
            "type": "session",
            "version": VERSION,
            "id": self._session_id or uuid7(),
            "timestamp": now_iso(),
            "cwd": os.path.dirname(fs.table.realpath(self.path)),
        }
        return jsonl.encode([header])
