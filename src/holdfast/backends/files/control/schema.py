"""
The control store's tables, and how they come to be.

`PRAGMA user_version` numbers the schema; migrations run in order, each in one transaction.
A store with a higher number was written by a newer Holdfast: it is refused by name and not
touched.

What the tables are for, and who moves what, is told in `ports.py`; here is only the form.
Ids are UUIDv7 as text.  Times are RFC 3339 text, for people; no decision compares them.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

from holdfast.backends.files.control.schema_3 import V3
from holdfast.errors import NewerSchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MIGRATIONS", "VERSION", "checked_version", "migrate", "schema_version"]

_V1: Final = """
CREATE TABLE sessions (
  session_id  TEXT PRIMARY KEY,
  agent_id    TEXT NOT NULL,
  transcript  TEXT NOT NULL,              -- relative to the state directory
  generation  INTEGER NOT NULL DEFAULT 1, -- raised by whoever rewrites the transcript
  token       INTEGER NOT NULL DEFAULT 0, -- the last fencing token issued; never goes back
  end_offset  INTEGER NOT NULL DEFAULT 0, -- bytes that a commit has vouched for
  created_at  TEXT NOT NULL
) STRICT;

CREATE TABLE keys (                       -- several keys may name one session
  session_key TEXT PRIMARY KEY,
  session_id  TEXT NOT NULL REFERENCES sessions,
  created_at  TEXT NOT NULL
) STRICT;
CREATE INDEX keys_of_session ON keys (session_id);

CREATE TABLE aliases (                    -- another spelling of a key
  alias       TEXT PRIMARY KEY,
  session_key TEXT NOT NULL
) STRICT;

CREATE TABLE agents (                     -- every agent that a runner ever registered
  agent_id      TEXT PRIMARY KEY,
  first_seen_at TEXT NOT NULL
) STRICT;

CREATE TABLE turns (
  admission       INTEGER PRIMARY KEY AUTOINCREMENT,
  turn_id         TEXT NOT NULL UNIQUE,
  session_id      TEXT NOT NULL REFERENCES sessions,
  session_key     TEXT NOT NULL,
  agent_id        TEXT NOT NULL,
  lane            TEXT NOT NULL,
  source          TEXT NOT NULL,
  priority        INTEGER NOT NULL,
  policy          TEXT NOT NULL,
  state           TEXT NOT NULL,          -- _core/turns.py
  outcome         TEXT,
  reason          TEXT,
  hint            TEXT,
  text            TEXT NOT NULL,
  reply           TEXT,
  model           TEXT,
  attempts        INTEGER NOT NULL DEFAULT 0,
  reruns          INTEGER NOT NULL DEFAULT 0,
  idempotency_key TEXT,
  home            TEXT,                   -- the runner that admitted it
  bound           INTEGER NOT NULL DEFAULT 0,
  not_before_ms   INTEGER NOT NULL DEFAULT 0,
  host            TEXT,                   -- the turn it is provisionally merged into
  token           INTEGER,
  owner_id        TEXT,
  abort_requested INTEGER NOT NULL DEFAULT 0,
  accepted_at     TEXT NOT NULL,
  started_at      TEXT,
  ended_at        TEXT,
  final_entry     TEXT,
  entries         BLOB,                   -- the turn's lines, until a later commit is synced
  end_offset      INTEGER,
  generation      INTEGER,
  finished        BLOB,
  salvaged        BLOB,
  attachments     BLOB,
  approvals       BLOB,
  usage           BLOB
) STRICT;
CREATE INDEX turns_waiting ON turns (session_id, priority DESC, admission)
  WHERE state = 'accepted';
CREATE INDEX turns_running ON turns (owner_id) WHERE state = 'running';
CREATE INDEX turns_of_session ON turns (session_id, admission);
CREATE INDEX turns_with_bytes ON turns (session_id) WHERE entries IS NOT NULL;

CREATE TABLE idempotency (                -- scope: the canonical key, not the session
  session_key     TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  request_hash    TEXT NOT NULL,
  turn_id         TEXT NOT NULL,
  PRIMARY KEY (session_key, idempotency_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE leases (                     -- at most one a session; that is the exclusion
  session_id  TEXT PRIMARY KEY REFERENCES sessions,
  turn_id     TEXT NOT NULL UNIQUE,
  token       INTEGER NOT NULL,
  owner_id    TEXT NOT NULL,
  effective   INTEGER NOT NULL DEFAULT 0, -- the token was left under the write lock
  recovering  INTEGER NOT NULL DEFAULT 0, -- held by a reaper that ends somebody's attempt
  taken_at    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE slots (                      -- one row a slot in use
  turn_id  TEXT PRIMARY KEY,
  lane     TEXT NOT NULL,
  owner_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX slots_of_lane ON slots (lane);

CREATE TABLE owners (                     -- processes that have this store open
  owner_id      TEXT PRIMARY KEY,
  pid           INTEGER NOT NULL,
  start_time    INTEGER NOT NULL,
  boot_id       TEXT NOT NULL,
  pid_namespace INTEGER NOT NULL,
  host          TEXT NOT NULL,
  beat          INTEGER NOT NULL DEFAULT 0,
  draining      INTEGER NOT NULL DEFAULT 0,
  since         TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE runners (
  owner_id  TEXT NOT NULL REFERENCES owners ON DELETE CASCADE,
  agent_id  TEXT NOT NULL,
  permanent INTEGER NOT NULL,             -- 0: embedded in a `send` or `chat`
  PRIMARY KEY (owner_id, agent_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (                     -- what happened, for people
  event_id   INTEGER PRIMARY KEY AUTOINCREMENT,
  at         TEXT NOT NULL,
  kind       TEXT NOT NULL,
  session_id TEXT,
  turn_id    TEXT,
  owner_id   TEXT,
  data       TEXT
) STRICT;
"""

_V2: Final = """
-- What the agent is told for this turn only.
ALTER TABLE turns ADD COLUMN instructions TEXT;
-- Earlier messages, JSON: a new session begins with them.  Until the outcome.
ALTER TABLE turns ADD COLUMN seed BLOB;
"""

MIGRATIONS: Final = (_V1, _V2, V3)
VERSION: Final = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, path: str, *, upto: int = VERSION) -> None:
    """
    Bring the schema to our version, or to an earlier one (*upto*).  Called inside a write
    transaction, which it is all of.

    Raises:
        NewerSchemaError: the store is ahead of us.
    """
    found = checked_version(connection, path)
    for number, script in enumerate(MIGRATIONS[found:upto], start=found + 1):
        for statement in _statements(script):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")


def _statements(script: str) -> Iterator[str]:
    """One by one: `executescript` would commit what stands open."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    assert not statement.strip(), statement


def checked_version(connection: sqlite3.Connection, path: str) -> int:
    """The schema's version.  Raises NewerSchemaError if it is ahead of us."""
    found = schema_version(connection)
    if found > VERSION:
        raise NewerSchemaError(
            path=path,
            detail=f"schema version {found}; this Holdfast knows {VERSION}",
            found=found,
            known=VERSION,
        )
    return found


def schema_version(connection: sqlite3.Connection) -> int:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    return int(found)
