"""
Reading a state directory from outside: no owner, no lock, no row, no byte changed.

The commands that only look use this instead of a `FilesStore`.  SQLite itself would create
files while it reads, so how the database is opened depends on what stands beside it:

    a log (`-wal`) with something in it    somebody has it open, or died: read through the
                                           log, with its index mapped for reading only
    a log whose index is gone              a medium that came from elsewhere, or read-only: the
                                           index is made anew in our memory, and nowhere else
    no log                                 the last writer left: the file alone is everything,
                                           read as if nobody could write

The last two are only believed if neither file was touched meanwhile.  So everything that
only reads works on a read-only medium too, whatever its last writer left there.

A store of an earlier version is read as it is: see `control/older.py`.
"""

from __future__ import annotations

import os
import sqlite3
import time
import urllib.parse
from typing import TYPE_CHECKING, Any, Final, TypeVar

from holdfast._core.tree import Tree
from holdfast.backends.files import fs, identity
from holdfast.backends.files.control import (
    deliveries,
    making,
    moving,
    older,
    queries,
    schema,
    telling,
)
from holdfast.backends.files.control.faults import translated
from holdfast.backends.files.control.lineage import refuse_inherited
from holdfast.backends.files.control.rows import TURN, fetch_turn, to_turn
from holdfast.backends.files.control.store import DATABASE
from holdfast.backends.files.live import FilesLive
from holdfast.backends.files.look.around import around
from holdfast.backends.files.transcript.transcripts import FilesTranscripts, read_tree
from holdfast.errors import (
    BadRequestError,
    NotFoundError,
    UnavailableError,
)
from holdfast.types import Owner, OwnerId, TurnId

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from holdfast._core.settings import Lane
    from holdfast.types import (
        Around,
        Delivery,
        EventRow,
        Place,
        Session,
        SessionId,
        ToolRecord,
        Turn,
        Why,
    )

__all__ = ["FilesReading", "is_dead"]

T = TypeVar("T")

PREFIX_CHARS_MIN: Final = 8  #: Of a turn's id: all but the last minute's differ by then.
TRIES: Final = 20  #: Looks at a store that is opened or closed at that very moment.
TRY_AGAIN_S: Final = 0.02
BUSY_S: Final = 1.0  #: SQLite's own wait, while somebody recovers the log.

_READ_THE_LOG: Final = ("mode=ro&readonly_shm=1", "mode=ro")
#: In exclusive mode SQLite keeps the index in its memory; and this VFS locks nothing, as a
#: file that cannot be written to cannot be locked either.
_READ_THE_LOG_ALONE: Final = ("mode=ro&vfs=unix-none",)
_READ_THE_FILE: Final = ("mode=ro&immutable=1",)

#: Inode, size, time of the last change; None: there is no such file.
_State = tuple[int, int, int] | None


class FilesReading:
    """What can be known of a state directory by looking at it."""

    def __init__(self, state: str) -> None:
        """
        Raises:
            NotFoundError: there is no store at *state*; none is made.
            NewerSchemaError: a newer Holdfast wrote it.
        """
        self.where = os.path.abspath(state)
        self._path = os.path.join(self.where, DATABASE)
        if not os.path.isfile(self._path):
            raise self._no_store()
        self._transcripts = FilesTranscripts(self.where, durability="os", max_hold_ms=1)
        found = self.ask(lambda db: schema.checked_version(db, self._path))
        if found == 0:
            raise self._no_store()

    def _no_store(self) -> NotFoundError:
        return NotFoundError(
            what="store",
            name=self.where,
            hint="name a state directory with --store or HOLDFAST_STORE; `send` makes one",
        )

    # ------------------------------------------------------------------- the database

    def ask(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """
        Give *run* a connection on which it sees one moment of the store.

        Raises:
            UnavailableError: no such moment was to be had.
        """
        failure: sqlite3.Error | None = None
        for _ in range(TRIES):
            before, ways = self._look()
            for how in ways:
                try:
                    result = self._ask_once(run, how)
                except sqlite3.Error as error:
                    failure = error
                    continue
                if ways == _READ_THE_LOG or self._look() == (before, ways):
                    return result
            time.sleep(TRY_AGAIN_S)
        if failure is None:
            raise UnavailableError(path=self._path, detail="it was opened and closed all along")
        raise translated(failure, self._path) from failure

    def _look(self) -> tuple[tuple[_State, _State], tuple[str, ...]]:
        """The database file and its log as they stand, and the ways to read them."""
        file, log = _state_of(self._path), _state_of(self._path + "-wal")
        if log is None or not log[1]:
            return (file, log), _READ_THE_FILE
        indexed = _state_of(self._path + "-shm") is not None
        return (file, log), _READ_THE_LOG if indexed else _READ_THE_LOG_ALONE

    def _ask_once(self, run: Callable[[sqlite3.Connection], T], how: str) -> T:
        where = f"file:{urllib.parse.quote(self._path)}?{how}"
        if how == _READ_THE_LOG[-1] and not os.path.exists(self._path + "-shm"):
            raise sqlite3.OperationalError("its log has just lost its index")
        refuse_inherited(self._path)
        db = sqlite3.connect(where, uri=True, timeout=BUSY_S, isolation_level=None)
        try:
            if how in _READ_THE_LOG_ALONE:
                db.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
            db.execute("PRAGMA temp_store = MEMORY")
            db.execute("BEGIN")
            if 0 < schema.schema_version(db) < schema.VERSION:
                older.shadow(db)
            return run(db)
        finally:
            db.close()

    # ----------------------------------------------------------------------- sessions

    def sessions(self) -> Iterator[tuple[Session, dict[str, Any]]]:
        """Every session, with its keys (JSON), its counts and its running turn."""
        after = ""
        while page := self.ask(lambda db, after=after: queries.sessions(db, after)):  # type: ignore[misc]
            yield from page
            after = page[-1][0].session_id

    def session(self, key: str) -> Session:
        """The session that the canonical *key* names.  Raises NotFoundError."""
        return self.ask(lambda db: queries.session_of_key(db, key))

    def facts(self, session: Session) -> dict[str, Any]:
        """Keys, aliases and counts of one session."""
        return self.ask(lambda db: queries.session_facts(db, session.session_id))

    def older(self, session: Session, keys: Collection[str]) -> list[Session]:
        """Sessions that one of *keys* named before it was reset, the oldest first."""
        return self.ask(lambda db: moving.older(db, session, keys))

    def path(self, session: Session) -> str:
        return self._transcripts.path(session)

    def tree(self, session: Session) -> Tree:
        """The transcript; empty if nothing was ever written to it.  Raises StoreError."""
        path = self.path(session)
        if not session.end_offset and not os.path.exists(path):
            return Tree()
        return read_tree(path)

    # -------------------------------------------------------------------------- turns

    def turns(
        self,
        lanes: Mapping[str, Lane],
        *,
        session_id: SessionId | None = None,
        state: str | None = None,
    ) -> Iterator[tuple[Turn, Place]]:
        """Turns in the order of their admission, each with its place."""
        after = 0

        def page(db: sqlite3.Connection) -> list[tuple[Turn, Place]]:
            found = queries.turns(db, session_id=session_id, state=state, after=after)
            return [(turn, queries.place(db, turn.turn_id, lanes)) for turn in found]

        while found := self.ask(page):
            yield from found
            after = found[-1][0].admission

    def turn(self, name: str, lanes: Mapping[str, Lane]) -> tuple[Turn, Place]:
        """
        The turn whose id is *name*, or the only one whose id begins with it.

        Raises:
            NotFoundError: there is none.
            BadRequestError: too short a beginning, or one that several have.
        """

        def run(db: sqlite3.Connection) -> tuple[Turn, Place]:
            rows = db.execute(
                f"{TURN} WHERE turn_id >= ?1 AND turn_id < ?1 || '~' LIMIT 2",
                (name.lower(),),
            ).fetchall()
            if not rows or len(name) < PREFIX_CHARS_MIN:
                turn = fetch_turn(db, name)  # Says that there is none.
            elif len(rows) > 1:
                raise BadRequestError(
                    detail=f"several turns begin with {name[:80]!r}",
                    hint="give more of the id",
                )
            else:
                turn = to_turn(rows[0])
            return turn, queries.place(db, turn.turn_id, lanes)

        return self.ask(run)

    def merged_into(self, turn: Turn) -> list[TurnId]:
        """Turns that *turn*'s reply answers too, or will if it replies."""
        rows = self.ask(
            lambda db: db.execute(
                "SELECT turn_id FROM turns WHERE session_id = ?1 AND (merged_into = ?2"
                " OR host = ?2) ORDER BY admission",
                (turn.session_id, turn.turn_id),
            ).fetchall()
        )
        return [TurnId(row[0]) for row in rows]

    def tool_calls(self, turn_id: TurnId) -> list[ToolRecord]:
        return self.ask(lambda db: making.tool_calls(db, turn_id))

    def deliveries(self, turn_id: TurnId) -> list[Delivery]:
        rows: list[Delivery] = []
        seq = 0
        while page := self.ask(
            lambda db, seq=seq: deliveries.deliveries(  # type: ignore[misc]
                db, turn_id=turn_id, state=None, after=seq
            )
        ):
            rows += page
            seq = page[-1].seq
        return rows

    def owed(
        self, session_id: SessionId | None, channel: str | None, state: str | None
    ) -> Iterator[Delivery]:
        """Parts of replies, in the order in which they came to be owed."""
        seq = 0
        while page := self.ask(
            lambda db, seq=seq: deliveries.listed(db, session_id, channel, state, seq)  # type: ignore[misc]
        ):
            yield from page
            seq = page[-1].seq

    def live_log(self, turn_id: TurnId) -> str | None:
        """Where the turn's newest live log is, if it has one."""
        live = FilesLive(self.where)
        token = live.newest({turn_id}).get(turn_id)
        return None if token is None else live.path(turn_id, token)

    # ---------------------------------------------------------- what stands, what happened

    def why(
        self, session: Session, lanes: Mapping[str, Lane], *, stale_ms: int
    ) -> tuple[Why, Around]:
        """Who holds a session, who waits for it; and what stands around it."""
        why = self.ask(lambda db: telling.why(db, session.session_id, lanes))
        return why, around(self.where, session, why.owners, stale_ms=stale_ms)

    def events(self, after: int = 0) -> Iterator[EventRow]:
        """Every event behind number *after*, oldest first."""
        while page := self.ask(lambda db, after=after: telling.events(db, after)):  # type: ignore[misc]
            yield from page
            after = page[-1].event_id

    # ------------------------------------------------------------------- who is there

    def runners(self, agent_id: str) -> list[tuple[Owner, bool]]:
        """Runners of *agent_id* not proven dead, with whether they are permanent."""
        rows = self.ask(
            lambda db: db.execute(
                "SELECT owner_id, pid, start_time, boot_id, pid_namespace, host, permanent"
                " FROM runners JOIN owners USING (owner_id)"
                " WHERE agent_id = ? AND draining = 0 ORDER BY permanent DESC, owner_id",
                (agent_id,),
            ).fetchall()
        )
        found = [(_owner(row), bool(row[6])) for row in rows]
        return [(owner, permanent) for owner, permanent in found if not is_dead(owner)]

    def owner(self, owner_id: OwnerId | None) -> Owner | None:
        """The process behind an owner id; None: it has left."""
        row = self.ask(
            lambda db: db.execute(
                "SELECT owner_id, pid, start_time, boot_id, pid_namespace, host FROM owners"
                " WHERE owner_id = ?",
                (owner_id,),
            ).fetchone()
        )
        return None if row is None else _owner(row)


def _state_of(path: str) -> _State:
    try:
        found = fs.table.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def is_dead(owner: Owner) -> bool:
    """Proof of death; False also means: cannot be known from here."""
    who = identity.Identity(
        owner.pid, owner.start_time, owner.boot_id, owner.pid_namespace, owner.host
    )
    return identity.facts_about(who) == "dead"


def _owner(row: tuple[Any, ...]) -> Owner:
    return Owner(OwnerId(row[0]), *row[1:6])
