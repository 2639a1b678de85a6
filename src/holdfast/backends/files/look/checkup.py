"""
What is wrong with a state directory, found by looking at it from outside.

Each look gives findings; none takes a lock, writes a row, or changes a byte.  What a finding
may lead to is for whoever asked.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from holdfast.backends.files import fs, identity
from holdfast.backends.files.control import schema
from holdfast.backends.files.control.store import DATABASE, GATE
from holdfast.backends.files.lock.gate import Gate
from holdfast.backends.files.look import frozen
from holdfast.backends.files.look.foreigners import foreigners
from holdfast.backends.files.look.kernel_locks import file_id, read_locks
from holdfast.backends.files.medium import medium_of
from holdfast.errors import HoldfastError, NewerSchemaError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.backends.files.look.kernel_locks import FileId, KernelLock
    from holdfast.backends.files.reading import FilesReading

__all__ = ["Finding", "check_control", "check_foreigners", "check_gate", "check_medium",
           "check_owners", "log_facts"]  # fmt: skip

Severity = Literal["error", "warning", "info"]

QUICK_CHECK_S: Final = 10.0  #: A read transaction: while it lasts the log cannot shrink.
STEPS: Final = 10_000  #: SQLite instructions between two looks at the clock.
#: SQLite checkpoints by itself at 4 MB; eight times that is somebody's open reader.
LOG_BYTES_MAX: Final = 32 * 1024 * 1024
#: No read of ours lasts longer than 250 ms; one that is there all this time is another's.
READER_WITHIN_S: Final = 0.4
READER_LOOKS: Final = 20
#: Bytes of the `-shm` that SQLite locks: one for the writer, five for readers.
WRITER_AT: Final = 120
READERS_AT: Final = range(123, 128)

_OWNERS: Final = (
    "SELECT owner_id, pid, start_time, boot_id, pid_namespace, host,"
    " (SELECT count(*) FROM leases WHERE leases.owner_id = owners.owner_id)"
    " + (SELECT count(*) FROM slots WHERE slots.owner_id = owners.owner_id) FROM owners"
)
_RUNNERS: Final = "SELECT owner_id, agent_id, permanent FROM runners"
_WAITING: Final = "SELECT agent_id, count(*) FROM turns WHERE state = 'accepted' GROUP BY 1"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth telling.  `error`: not healthy; the others do not change the verdict."""

    code: str
    severity: Severity
    detail: str
    hint: str = ""
    path: str | None = None
    fixed: bool | None = None  #: By --fix; None: nothing was tried.
    why: str | None = None  #: Why it was not.
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        told = {**asdict(self), **self.facts}
        del told["facts"]
        return {name: value for name, value in told.items() if value is not None}

    def after_fix(self, *, fixed: bool, why: str | None = None) -> Finding:
        return replace(self, fixed=fixed, why=why)


# -------------------------------------------------------------------------- what it is on


def check_medium(where: str, *, allowed: bool) -> Iterator[Finding]:
    """*allowed*: `store.allow_shared_filesystem`.  Always one finding; info if it is fine."""
    try:
        medium = medium_of(where)
    except OSError as error:
        detail = f"its file system cannot be asked: {error.strerror}"
        yield Finding("medium", "error", detail, path=where)
        return
    kind = "shared with other machines" if medium.shared else "local"
    facts = {"filesystem": medium.name, "shared": medium.shared, "read_only": medium.read_only}
    if medium.shared:
        hint = "move it to a local directory: writers of other machines are not excluded here"
        severity: Severity = "warning" if allowed else "error"
        yield Finding(
            "shared_filesystem", severity, f"on {medium.name}, {kind}", hint, where, facts=facts
        )
    elif medium.read_only:
        detail = f"on {medium.name}, {kind}, read-only: it can be read, nothing can be sent"
        yield Finding("read_only", "info", detail, path=where, facts=facts)
    else:
        yield Finding("medium", "info", f"on {medium.name}, {kind}", path=where, facts=facts)


def check_foreigners() -> Iterator[Finding]:
    """The founding system's processes on this machine."""
    try:
        found = list(foreigners())
    except OSError as error:
        yield Finding("processes", "warning", f"/proc cannot be read: {error.strerror}")
        return
    for pid, command in found:
        yield Finding(
            "founding_system",
            "warning",
            f"pid {pid} is the founding system ({command[:80]}): it removes the locks of live"
            " owners that are not its own",
            "give it no transcript of ours: import a session, do not share it",
            facts={"pid": pid},
        )


# ----------------------------------------------------------------------- the control store


def check_control(reading: FilesReading) -> Iterator[Finding]:
    """Integrity and schema.  Cost: reads the whole database, for QUICK_CHECK_S at most."""
    path = os.path.join(reading.where, DATABASE)
    try:
        version, told = reading.ask(lambda db: (schema.schema_version(db), _quick_check(db)))
    except NewerSchemaError as error:
        yield Finding("newer_schema", "error", error.detail, error.hint, path)
        return
    except StoreError as error:
        yield Finding("control_store", "error", error.detail, error.hint, path)
        return
    if told is None:
        yield Finding("quick_check", "info", f"not finished in {QUICK_CHECK_S:g} s", path=path)
    elif told != ["ok"]:
        yield Finding(
            "corrupt", "error", f"quick_check: {'; '.join(told)[:300]}",
            "restore the state directory from a backup", path,
        )  # fmt: skip
    if version < schema.VERSION:
        detail = f"schema version {version}; whoever opens it next makes it {schema.VERSION}"
        yield Finding("older_schema", "info", detail, path=path)


def _quick_check(db: sqlite3.Connection) -> list[str] | None:
    until_s = fs.table.monotonic() + QUICK_CHECK_S
    db.set_progress_handler(lambda: fs.table.monotonic() > until_s, STEPS)
    try:
        return [str(row[0]) for row in db.execute("PRAGMA quick_check(5)")]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return None
    finally:
        db.set_progress_handler(None, 0)


def log_facts(where: str) -> tuple[dict[str, Any], list[Finding]]:
    """
    The log's size, who reads it longest, who writes.  Takes READER_WITHIN_S.

    How: SQLite's readers and its writer hold POSIX locks on bytes of the `-shm`, and
    /proc/locks names their pids.  Not for how long: so whoever is there at each of many
    looks, longer than any read of ours may last, is the oldest reader.
    """
    log, index = (os.path.join(where, DATABASE + end) for end in ("-wal", "-shm"))
    facts: dict[str, Any] = {"wal_bytes": _size(log), "oldest_reader": None, "writer": None}
    try:
        file = file_id(index)
        if file is not None:
            facts["oldest_reader"] = _oldest_reader(file)
            facts["writer"] = _writer(file)
    except OSError as error:
        facts["oldest_reader"] = {"pid": None, "detail": f"unknown: {error.strerror}"}
    reader, findings = facts["oldest_reader"], []
    if reader is not None and reader["pid"] is not None:
        detail = (
            f"pid {reader['pid']} has been reading for {reader['at_least_ms']} ms or longer"
        )
        hint = "end its read transaction: the log cannot shrink meanwhile"
        findings.append(Finding("open_reader", "warning", detail, hint, log))
    if facts["wal_bytes"] > LOG_BYTES_MAX:
        detail = f"the log has {facts['wal_bytes'] // 1024 // 1024} MB"
        hint = "find what reads the database for so long"
        findings.append(Finding("large_log", "warning", detail, hint, log))
    return facts, findings


def _oldest_reader(file: FileId) -> dict[str, Any] | None:
    since_s = fs.table.monotonic()
    there = _readers(file)
    for _ in range(READER_LOOKS):
        if not there:
            return None
        fs.table.sleep(READER_WITHIN_S / READER_LOOKS)
        there &= _readers(file)
    if not there:
        return None
    at_least_ms = round((fs.table.monotonic() - since_s) * 1000)
    return {"pid": min(there)[0], "at_least_ms": at_least_ms}


def _readers(file: FileId) -> set[tuple[int, int]]:
    """(pid, byte) of each."""
    return {
        (lock.pid, at)
        for lock in read_locks().on(file, "POSIX")
        for at in READERS_AT
        if lock.pid and lock.start <= at <= _end(lock)
    }


def _writer(file: FileId) -> int | None:
    """Who is inside a write transaction."""
    locks = read_locks().on(file, "POSIX")
    return next((k.pid for k in locks if k.writing and k.start <= WRITER_AT <= _end(k)), None)


def _end(lock: KernelLock) -> float:
    return math.inf if lock.end is None else lock.end


def _size(path: str) -> int:
    try:
        return fs.table.stat(path).st_size
    except OSError:
        return 0


# ------------------------------------------------------------------------ who is inside


def check_gate(where: str) -> Iterator[Finding]:
    """Whether somebody is stopped inside the store: the record, confirmed by /proc/locks."""
    holder = frozen.inside(Gate(os.path.join(where, GATE)))
    if holder is None or not frozen.is_frozen(holder.pid, holder.start):
        return
    confirmed = None
    try:
        file = file_id(os.path.join(where, DATABASE + "-shm"))
        confirmed = file is not None and _writer(file) == holder.pid
    except OSError:
        pass
    detail = frozen.in_words(frozen.transaction_of(where), holder)
    if confirmed is False:  # Between the record and BEGIN: the others pass it over.
        detail = f"pid {holder.pid} is stopped at the store's gate, and holds nothing yet"
    yield Finding(
        "frozen_holder",
        "error" if confirmed is not False else "info",
        detail,
        f"continue it: kill -CONT {holder.pid}",
        where,
        facts={"pid": holder.pid, "confirmed": confirmed},
    )


def check_owners(reading: FilesReading) -> tuple[dict[str, Any], list[Finding]]:
    """Owners and runners, alive or not, and turns that nobody will run."""
    try:
        owners = reading.ask(lambda db: db.execute(_OWNERS).fetchall())
        runners = reading.ask(lambda db: db.execute(_RUNNERS).fetchall())
        waiting = dict(reading.ask(lambda db: db.execute(_WAITING).fetchall()))
    except HoldfastError:
        return {}, []  # `check_control` has told it.
    lives = {row[0]: identity.facts_about(identity.Identity(*row[1:6])) for row in owners}
    there = [row for row in runners if lives.get(row[0]) != "dead"]
    served = Counter(row[1] for row in there)
    findings = []
    for owner_id, pid, start, *_, holds in owners:
        if lives[owner_id] == "dead" and holds:
            findings.append(
                Finding(
                    "dead_owner",
                    "info" if there else "warning",
                    f"pid {pid} is dead and still holds {holds} lease(s) and slot(s)",
                    "any runner gives them back within seconds"
                    if there
                    else "start a runner: holdfast serve",
                    facts={"pid": pid, "owner_id": owner_id},
                )
            )
        elif lives[owner_id] == "alive" and frozen.is_frozen(pid, start):
            findings.append(
                Finding(
                    "frozen_owner",
                    "warning",
                    f"pid {pid} is stopped; it holds {holds} lease(s) and slot(s)",
                    f"continue it: kill -CONT {pid}; its turns move on without it",
                    facts={"pid": pid, "owner_id": owner_id},
                )
            )
    findings += [
        Finding(
            "no_runner", "warning", f"{count} turn(s) of agent {agent} wait, nobody runs it",
            "start a runner: holdfast serve", facts={"agent": agent, "waiting": count},
        )
        for agent, count in sorted(waiting.items())
        if not served[agent]
    ]  # fmt: skip
    facts = {
        "owners": dict(Counter(lives.values())),
        "runners": [
            {"agent": agent, "permanent": bool(permanent), "life": lives.get(owner_id, "dead")}
            for owner_id, agent, permanent in runners
        ],
    }
    return facts, findings
