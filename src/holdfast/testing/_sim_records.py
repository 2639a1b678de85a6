"""
The transcripts of a simulated store, read as they are written.

After every write: no turn is asked or answered twice, nobody appends under a token after a
newer one has loaded, and nothing is answered after its turn's row says how it ended.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.stamped import is_question
from holdfast._core.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from holdfast.testing._sim_disk import Inode
    from holdfast.testing._sim_process import Process
    from holdfast.testing._sim_world import World
    from holdfast.types import Turn

__all__ = ["Record", "Records"]

#: What a writer that died in the middle of a line leaves behind.
TORN: Final = frozenset({"unparsable", "torn_tail"})


@dataclass(slots=True)
class Record:
    """One transcript, as far as its lines are whole."""

    read: int = 0  #: Bytes.
    session_id: str = ""
    lines: list[tuple[int, str]] = field(default_factory=list)  #: (end, entry id), in order.
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def path(self, entry_id: str | None) -> Iterator[dict[str, Any]]:
        """From *entry_id* up to the root."""
        while entry_id is not None and entry_id in self.entries:
            entry = self.entries[entry_id]
            yield entry
            entry_id = entry.get("parentId")


class Records:
    """All transcripts of one world."""

    def __init__(self, world: World, rows: Callable[[], Mapping[Any, Turn]]) -> None:
        self._world, self._rows = world, rows
        self._records: dict[int, Record] = {}
        self._effective: dict[str, int] = {}  #: Session → the newest token that has loaded.
        self.finals: dict[str, list[str]] = {}  #: Turn → ids of its final entries.
        self.questions: dict[str, list[str]] = {}
        self.ends: dict[str, list[str]] = {}  #: Turn → outcomes that entries tell.

    # ------------------------------------------------------------- the kernel tells

    def wrote(self, process: Process, inode: Inode) -> None:
        """Something was added to *inode*, if that is a transcript."""
        record = self._records.get(inode.number)
        if record is None:
            if b'"session"' not in inode.data[:24]:
                return
            record = self._records[inode.number] = Record()
        stop = inode.data.rfind(b"\n") + 1
        if stop <= record.read:
            return
        at = record.read
        record.read = stop
        for line in bytes(inode.data[at:stop]).splitlines(keepends=True):
            at += len(line)
            entry: Any = None
            with suppress(ValueError):
                entry = json.loads(line)
            if isinstance(entry, dict):
                self._add(record, at, entry, process)

    def _add(self, record: Record, end: int, entry: dict[str, Any], by: Process) -> None:
        if entry.get("type") == "session":
            record.session_id = str(entry.get("id"))
            return
        entry_id, stamp = str(entry.get("id")), entry.get("holdfast") or {}
        record.lines.append((end, entry_id))
        record.entries[entry_id] = entry
        turn_id = str(stamp.get("turn"))
        self._check_token(record, by, entry_id)
        if stamp.get("final") is True:
            each = self.finals.setdefault(turn_id, [])
            each.append(entry_id)
            if len(each) > 1:
                self._world.fail(f"{turn_id} was answered {len(each)} times: {each}")
            turn = self._rows().get(turn_id)
            if turn is None or turn.ended:
                self._world.fail(f"{turn_id} was answered after its end: {turn}")
        elif is_question(entry):
            self._asked(record, turn_id, entry_id)
        elif entry.get("customType") == "holdfast:turn-ended":
            self.ends.setdefault(turn_id, []).append(entry["data"]["outcome"])

    def _asked(self, record: Record, turn_id: str, entry_id: str) -> None:
        """Once; but for one that left the branch with the host that it had been merged into."""
        each = self.questions.setdefault(turn_id, [])
        above = {entry["id"] for entry in record.path(entry_id)}
        for earlier in each:
            entry = record.entries.get(earlier)  # None: it stands in another session.
            if entry is None or earlier in above or "host" not in entry["holdfast"]:
                self._world.fail(f"{turn_id} was asked twice: {[*each, entry_id]}")
        each.append(entry_id)

    def cut(self, inode: Inode) -> None:
        """Its last bytes were taken back: a write had come to nothing."""
        record = self._records.get(inode.number)
        if record is None or len(inode.data) >= record.read:
            return
        record.read = len(inode.data)
        while record.lines and record.lines[-1][0] > record.read:
            _, entry_id = record.lines.pop()
            entry = record.entries.pop(entry_id)
            turn_id = str((entry.get("holdfast") or {}).get("turn"))
            for found in (self.finals, self.questions):
                if entry_id in found.get(turn_id, ()):
                    found[turn_id].remove(entry_id)

    # --------------------------------------------------------------------- tokens

    def loaded(self, process: Process) -> None:
        """Under the write lock, *process* has read what its attempt is built on."""
        for session_id, token in _claims(process):
            self._effective[session_id] = max(self._effective.get(session_id, 0), token)

    def _check_token(self, record: Record, process: Process, entry_id: str) -> None:
        """An append by token n comes before the load of token n + 1, or is refused."""
        newest = self._effective.get(record.session_id, 0)
        for session_id, token in _claims(process):
            if session_id == record.session_id and token < newest:
                self._world.fail(
                    f"{process.name} appended {entry_id} under token {token}, after token"
                    f" {newest} has loaded"
                )

    # -------------------------------------------------------------------- reading

    def of(self, session_id: str) -> Record | None:
        """Its transcript; one that a dead process was about to publish is shorter."""
        found = [each for each in self._records.values() if each.session_id == session_id]
        return max(found, key=lambda each: each.read, default=None)

    def followed(self, turn: Turn) -> bool:
        """Whether another turn's message stands under its question: then it has to stay."""
        record, asked = self.of(turn.session_id), set(self.questions.get(turn.turn_id, ()))
        if record is None:
            return False
        return any(
            entry.get("type") == "message"
            and (entry.get("holdfast") or {}).get("turn") != turn.turn_id
            and asked & {each["id"] for each in record.path(entry["id"])}
            for entry in record.entries.values()
        )

    def verify(self, *, torn: bool) -> None:
        """In the end: every transcript is what a transcript should be."""
        for path, inode in self._world.disk.files():
            if inode.number not in self._records or not path.endswith(".jsonl"):
                continue
            for problem in verify(bytes(inode.data)).problems:
                if not (torn and problem.code in TORN):
                    self._world.fail(f"{path}: {problem}")


def _claims(process: Process) -> Iterator[tuple[str, int]]:
    """(session, token) of each claim that *process* has published and holds open."""
    for description in process.fds.values():
        data = description.inode.data
        if b'"claimId"' in data:
            with suppress(ValueError):
                claim = json.loads(data)
                if claim.get("token") is not None:
                    yield str(claim.get("sessionId")), claim["token"]
