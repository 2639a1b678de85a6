"""
Bringing a transcript into a store: a new session with all of it, or nothing.

    judge what holds the file  →  read and migrate it into a new file, verified there  →  that
    is published under the session's name, whole, synced  →  one transaction: session and key

A crash before the last step leaves a file that no session names, which `verify` calls an
orphan and nothing reads.

Entries keep their bytes, their stamps of another store included.  These are not taken for
turns of this one: everything that asks for a turn's entries asks by the id of a turn of that
very session, and ids are never given twice.  Tokens are compared, so the session's own begin
above any that it has brought along.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from holdfast._core import jsonl, keys
from holdfast._core.repair import NewerFormatError, Repair, with_fields
from holdfast._core.stamped import stamp_of
from holdfast._core.tree import VERSION
from holdfast._core.verify import Verifier
from holdfast._stamps import now_iso, uuid7
from holdfast.backends.files import fs
from holdfast.backends.files.control import tending as rows
from holdfast.backends.files.lock.standing import judged
from holdfast.backends.files.tending import files as tending_files
from holdfast.errors import (
    BadKeyError,
    BadRequestError,
    BadTranscriptError,
    LockStaleError,
    StoreError,
)
from holdfast.types import Session, SessionId
from holdfast.types.tending import Imported

if TYPE_CHECKING:
    from holdfast.backends.files.control.store import FilesControl

__all__ = ["bring", "default_key"]

#: What a transcript may have and be brought in all the same: it happened, elsewhere.
BORNE: Final = frozenset({"final_without_question"})
#: What migration does; anything else that a repair would do is damage.
MIGRATED: Final = frozenset({"migrated"})
TOKEN_MAX: Final = 2**53
STALE_MS: Final = 1_800_000
_UNFIT: Final = re.compile(r"[^a-z0-9._-]+")


def bring(control: FilesControl, state: str, path: str, key: str | None) -> Imported:
    """As `ports.Tending.bring`."""
    refuse_written(path)
    with tending_files.opened(path) as fd:
        end = tending_files.settled_end(fd)
        header = _header(path, fd, end)
        key = keys.canonical(key) if key else default_key(path, header)
        known = control.tend(lambda db: rows.unwritten(db, key))
        session = known or _new_session(key)
        target = os.path.join(state, session.transcript)
        copied = _Copy(target, session, path)
        try:
            copied.read(fd, end)
            copied.publish(key)
        finally:
            copied.close()
    try:
        control.tend(
            lambda db: rows.adopt(db, session, key, end_offset=copied.size, token=copied.token)
        )
    except (BadRequestError, StoreError) as error:
        if known is None and getattr(error, "landed", False) is False:
            fs.remove_own(target)  # Nobody ever knew its name.
        raise
    return Imported(session.session_id, key, target, copied.entries, copied.migrated_from)


def default_key(path: str, header: dict[str, Any]) -> str:
    """The key that an export names first, or one made of the file's name."""
    export = stamp_of(header).get("export")
    named = export.get("keys") if isinstance(export, dict) else None
    if isinstance(named, list) and named and isinstance(named[0], str):
        try:
            return keys.canonical(named[0])
        except BadKeyError:
            pass  # An export made by hand: its file has a name all the same.
    stem = _UNFIT.sub("-", os.path.basename(path).partition(".jsonl")[0].lower()).strip("-")
    return f"agent:{keys.AGENT_DEFAULT}:imported:{stem or 'transcript'}"


def refuse_written(path: str) -> None:
    """
    Raises LockStaleError if another program holds a claim on *path* that is not dead.

    A claim of ours says that a line is being written; that is waited for in any case.
    """
    try:
        found = judged(path, latched=False, stale_ms=STALE_MS)
    except OSError as error:
        raise fs.store_error(error, path, "looking at its lock") from error
    if found is None or found.facts.ours or found.verdict == "reclaim":
        return
    raise LockStaleError(
        path=path,
        timeout_s=0,
        holder="another program" if found.pid is None else f"pid {found.pid}",
        row=found.row,
        reasons=list(found.reasons) or ["not_dead"],
        age_ms=found.age_ms,
        promised_ms=found.promised_ms,
        hint="stop the program that writes it, then import",
    )


def _new_session(key: str) -> Session:
    session_id, agent_id = SessionId(uuid7()), keys.agent_of(key)
    transcript = f"agents/{agent_id}/sessions/{session_id}.jsonl"
    return Session(session_id, agent_id, transcript, 1, 0, now_iso())


def _header(path: str, fd: int, end: int) -> dict[str, Any]:
    for raw, _ in tending_files.raw_lines(tending_files.pieces(fd, end)):
        if raw.strip():
            entry = next(jsonl.lines(raw + b"\n")).entry
            if entry is not None and entry.get("type") == "session":
                return entry
            break
    raise _damaged(path, 1, "the first line is not a session header")


def _damaged(path: str, line: int | None, detail: str) -> BadTranscriptError:
    hint = f"mend it, keeping a copy, with: holdfast sessions repair {path}"
    return BadTranscriptError(path=path, detail=detail, line=line, hint=hint)


class _Copy:
    """The new transcript: private until it is published whole."""

    def __init__(self, target: str, session: Session, source: str) -> None:
        self._target, self._session, self._source = target, session, source
        self._private = f"{target}.{uuid4().hex}"
        self.entries = self.size = self.token = 0
        self.migrated_from = VERSION
        directory = os.path.dirname(target)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self._fd = fs.open_fd(self._private, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise fs.store_error(error, target, "making a new transcript") from error

    def read(self, fd: int, end: int) -> None:
        """
        Take all of *fd* over.

        Raises:
            BadTranscriptError: something in it is damaged; names the line.
            StoreError: it could not be written.
        """
        session_id = self._session.session_id
        repair = Repair(session_id=session_id, now=now_iso(), new_id=uuid7)
        found = Verifier()
        first = True
        try:
            for raw, whole in tending_files.raw_lines(tending_files.pieces(fd, end)):
                if not whole:
                    raise _damaged(self._source, None, "its last line is torn")
                told = repair.line(raw)
                if first and told:
                    told, first = self._own_header(raw, told), False
                else:
                    self._note_token(told)
                found.feed(told)
                if set(repair.counts) - MIGRATED:
                    code = next(iter(set(repair.counts) - MIGRATED))
                    raise _damaged(self._source, repair.number, code.replace("_", " "))
                self._write(told)
            fs.table.fsync(self._fd)
        except NewerFormatError as error:
            raise BadTranscriptError(
                path=self._source, detail=str(error), line=1, hint="upgrade this Holdfast"
            ) from error
        except OSError as error:
            raise fs.store_error(error, self._target, "writing a new transcript") from error
        report = found.finish()
        bad = next((p for p in report.problems if p.code not in BORNE), None)
        if bad is not None:
            raise _damaged(self._source, bad.line, f"{bad.code}: {bad.detail}")
        self.entries = report.entries

    def publish(self, key: str) -> None:
        """Raises BadRequestError: a turn has begun to write there meanwhile."""
        try:
            fs.table.link(self._private, self._target)
        except FileExistsError:
            raise BadRequestError(
                detail=f"{key} has a conversation already",
                hint="give another key with --key, or delete that session first",
            ) from None
        except OSError as error:
            if not self._stands():
                raise fs.store_error(error, self._target, "publishing it") from error
        try:
            fs.sync_dir(os.path.dirname(self._target))
        except OSError as error:
            fs.remove_own(self._target)
            raise fs.store_error(error, self._target, "publishing it") from error

    def close(self) -> None:
        fs.close_quietly(self._fd)
        fs.remove_own(self._private)

    def _stands(self) -> bool:
        try:
            made, found = fs.table.fstat(self._fd), fs.table.lstat(self._target)
        except OSError:
            return False
        return (made.st_dev, made.st_ino) == (found.st_dev, found.st_ino)

    def _own_header(self, raw: bytes, told: bytes) -> bytes:
        """The header, with this session's id; the one it had is kept beside it."""
        header = next(jsonl.lines(raw + b"\n")).entry or {}
        version = header.get("version")
        self.migrated_from = version if isinstance(version, int) else 1
        mine = {**stamp_of(header)}
        mine.pop("export", None)  # What the other store knew of it.
        mine["imported"] = {"session": header.get("id"), "at": now_iso()}
        fields = {"id": self._session.session_id, "holdfast": mine}
        return with_fields(told.rstrip(b"\n"), fields) + b"\n"

    def _note_token(self, told: bytes) -> None:
        if b'"token"' not in told:
            return
        for line in jsonl.lines(told):
            token = stamp_of(line.entry or {}).get("token")
            if isinstance(token, int) and self.token < token < TOKEN_MAX:
                self.token = token

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            written = fs.table.write(self._fd, left)
            self.size += written
            left = left[written:]
