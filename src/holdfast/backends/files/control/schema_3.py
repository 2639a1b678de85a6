"""The third version of the tables: queues, merges, tools, deliveries, the store's clock."""

from __future__ import annotations

from typing import Final

__all__ = ["V3"]

#: As `_core.lanes` had it when this was written; a migration never changes.
PEOPLE: Final = "NOT IN ('subagent', 'cron', 'heartbeat', 'maintenance')"

#: Triggers keep `queues`, so that no writer can forget to:
#: what it says is one look-up, however many turns wait.
V3: Final = f"""
-- sender: as its channel names it.  target: the channel:address that the reply is owed to;
-- part_chars: the longest part that it takes.  parent: the turn that asked for this one;
-- waits_for: the child whose end a running turn awaits; slot_wanted: it comes before new turns.
-- hosted: had a host at some time; asked_entry: its question, taken into its host's run.
-- Times in _ms are by the store's clock.
ALTER TABLE turns ADD COLUMN sender TEXT;
ALTER TABLE turns ADD COLUMN target TEXT;
ALTER TABLE turns ADD COLUMN part_chars INTEGER;
ALTER TABLE turns ADD COLUMN parent TEXT;
ALTER TABLE turns ADD COLUMN waits_for TEXT;
ALTER TABLE turns ADD COLUMN slot_wanted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE turns ADD COLUMN abort_reason TEXT;
ALTER TABLE turns ADD COLUMN abort_at_ms INTEGER;
ALTER TABLE turns ADD COLUMN hosted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE turns ADD COLUMN asked_entry TEXT;
ALTER TABLE turns ADD COLUMN merged_into TEXT;
ALTER TABLE turns ADD COLUMN accepted_ms INTEGER NOT NULL DEFAULT 0;
-- How many heartbeats in a row were pre-empted.
ALTER TABLE sessions ADD COLUMN preempted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN lane TEXT;
-- Of the run, JSON, for people; written with its owner's beat.
ALTER TABLE leases ADD COLUMN progress TEXT;
ALTER TABLE leases ADD COLUMN taken_ms INTEGER NOT NULL DEFAULT 0;
UPDATE turns SET accepted_ms = coalesce(strftime('%s', accepted_at), 0) * 1000
  WHERE state = 'accepted';
DROP INDEX turns_waiting;
CREATE INDEX turns_waiting
  ON turns (session_id, lane, admission, priority, accepted_ms, state, host)
  WHERE state = 'accepted' AND host IS NULL;
CREATE INDEX turns_slot_wanted ON turns (lane) WHERE slot_wanted = 1;
CREATE INDEX turns_hosted ON turns (host) WHERE host IS NOT NULL;
CREATE INDEX turns_of_home ON turns (home) WHERE state = 'accepted';
CREATE INDEX turns_bound ON turns (home) WHERE state = 'accepted' AND bound = 1;
CREATE INDEX turns_committed ON turns (turn_id) WHERE state = 'committed';
-- By age; without those whose row holds the only copy of something: see _core/retention.py.
CREATE INDEX turns_ended ON turns (ended_at)
  WHERE state = 'done' AND entries IS NULL AND salvaged IS NULL;
CREATE INDEX turns_of_parent ON turns (parent) WHERE parent IS NOT NULL;
CREATE INDEX idempotency_of_turn ON idempotency (turn_id);

-- The store's clock: never goes back, whatever the wall clock does; see control/clock.py.
CREATE TABLE clock (
  boot_id   TEXT PRIMARY KEY,
  offset_ms INTEGER NOT NULL,             -- added to that boot's monotonic clock
  last_ms   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row a session and lane with waiting turns: how many, and the first of them.
CREATE TABLE queues (
  session_id  TEXT NOT NULL,
  lane        TEXT NOT NULL,
  waiting     INTEGER NOT NULL DEFAULT 0, -- without a host
  hosted      INTEGER NOT NULL DEFAULT 0, -- with one
  admission   INTEGER,                    -- of the first without a host; NULL: there is none
  priority    INTEGER,                    -- of the same
  accepted_ms INTEGER,                    -- of the same
  home        TEXT,                       -- of the same; '': it has none
  mixed       INTEGER NOT NULL DEFAULT 0, -- a people's lane, not the only one that has a first
  PRIMARY KEY (session_id, lane)
) STRICT, WITHOUT ROWID;
CREATE INDEX queues_by_home ON queues (home, lane, priority, admission)
  WHERE admission IS NOT NULL;
CREATE INDEX queues_mixed ON queues (session_id) WHERE mixed = 1;
CREATE TRIGGER turn_in AFTER INSERT ON turns WHEN NEW.state = 'accepted' BEGIN
  INSERT INTO queues (session_id, lane, waiting, hosted, admission, priority, accepted_ms, home)
    VALUES (NEW.session_id, NEW.lane, NEW.host IS NULL, NEW.host IS NOT NULL,
            iif(NEW.host IS NULL, NEW.admission, NULL),
            iif(NEW.host IS NULL, NEW.priority, NULL),
            iif(NEW.host IS NULL, NEW.accepted_ms, NULL),
            iif(NEW.host IS NULL, coalesce(NEW.home, ''), NULL))
    ON CONFLICT DO UPDATE SET waiting = waiting + excluded.waiting,
                              hosted = hosted + excluded.hosted,
                              home = iif(admission IS NULL, excluded.home, home),
                              admission = coalesce(admission, excluded.admission),
                              priority = coalesce(priority, excluded.priority),
                              accepted_ms = coalesce(accepted_ms, excluded.accepted_ms);
END;
CREATE TRIGGER turn_out AFTER UPDATE OF state, host, session_id ON turns
WHEN OLD.state = 'accepted' BEGIN
  UPDATE queues SET waiting = waiting - (OLD.host IS NULL),
                    hosted = hosted - (OLD.host IS NOT NULL),
                    (admission, priority, accepted_ms, home) =
                      (SELECT admission, priority, accepted_ms, coalesce(home, '') FROM turns
                        WHERE session_id = OLD.session_id AND lane = OLD.lane
                          AND state = 'accepted' AND host IS NULL
                        ORDER BY admission LIMIT 1)
   WHERE session_id = OLD.session_id AND lane = OLD.lane;
  DELETE FROM queues WHERE session_id = OLD.session_id AND lane = OLD.lane
                       AND waiting + hosted = 0;
END;
CREATE TRIGGER turn_back AFTER UPDATE OF state, host, session_id ON turns
WHEN NEW.state = 'accepted' BEGIN
  INSERT INTO queues (session_id, lane, waiting, hosted)
    VALUES (NEW.session_id, NEW.lane, NEW.host IS NULL, NEW.host IS NOT NULL)
    ON CONFLICT DO UPDATE SET waiting = waiting + excluded.waiting,
                              hosted = hosted + excluded.hosted;
  UPDATE queues SET (admission, priority, accepted_ms, home) =
                      (SELECT admission, priority, accepted_ms, coalesce(home, '') FROM turns
                        WHERE session_id = NEW.session_id AND lane = NEW.lane
                          AND state = 'accepted' AND host IS NULL
                        ORDER BY admission LIMIT 1)
   WHERE session_id = NEW.session_id AND lane = NEW.lane;
END;
CREATE TRIGGER turn_home AFTER UPDATE OF home ON turns WHEN NEW.state = 'accepted' BEGIN
  UPDATE queues SET home = coalesce(NEW.home, '')
   WHERE session_id = NEW.session_id AND lane = NEW.lane AND admission = NEW.admission;
END;
CREATE TRIGGER queue_in AFTER INSERT ON queues
WHEN NEW.admission IS NOT NULL
 AND NEW.lane {PEOPLE} BEGIN
  UPDATE queues SET mixed = (SELECT count(*) > 1 FROM queues
                              WHERE session_id = NEW.session_id AND admission IS NOT NULL
                                AND lane {PEOPLE})
   WHERE session_id = NEW.session_id
     AND lane {PEOPLE};
END;
CREATE TRIGGER queue_moved AFTER UPDATE OF admission ON queues
WHEN (OLD.admission IS NULL) <> (NEW.admission IS NULL)
 AND NEW.lane {PEOPLE} BEGIN
  UPDATE queues SET mixed = (SELECT count(*) > 1 FROM queues
                              WHERE session_id = NEW.session_id AND admission IS NOT NULL
                                AND lane {PEOPLE})
   WHERE session_id = NEW.session_id
     AND lane {PEOPLE};
END;
INSERT INTO queues (session_id, lane, waiting, admission, priority, accepted_ms, home)
  SELECT session_id, lane, count(*), min(admission), priority, accepted_ms, coalesce(home, '')
    FROM turns WHERE state = 'accepted' GROUP BY session_id, lane;

-- What a running turn has made so far, in order; gone with its outcome.
CREATE TABLE made (
  turn_id  TEXT NOT NULL,
  seq      INTEGER NOT NULL,
  entry_id TEXT NOT NULL,                 -- of the entry that it is, or will be
  message  BLOB NOT NULL,                 -- JSON
  PRIMARY KEY (turn_id, seq)
) STRICT, WITHOUT ROWID;

-- A tool's intent, durable before it runs; its result, durable after.
CREATE TABLE tool_calls (
  turn_id    TEXT NOT NULL,
  call_id    TEXT NOT NULL,
  result_id  TEXT NOT NULL,               -- of the entry that its result will be
  name       TEXT NOT NULL,
  arguments  BLOB NOT NULL,               -- JSON
  replay     TEXT NOT NULL,               -- never | safe
  state      TEXT NOT NULL,               -- started | done | failed | interrupted
  token      INTEGER NOT NULL,            -- of the attempt that ran it last
  runs       INTEGER NOT NULL DEFAULT 1,
  result     BLOB,                        -- JSON
  started_at TEXT NOT NULL,
  ended_at   TEXT,
  PRIMARY KEY (turn_id, call_id)
) STRICT;                                 -- rowid: in the order of beginning

-- One obligation to hand one part of a committed reply to a channel.
CREATE TABLE deliveries (
  seq           INTEGER PRIMARY KEY AUTOINCREMENT,
  delivery_id   TEXT NOT NULL UNIQUE,     -- the stable key: turn id, dot, part
  turn_id       TEXT NOT NULL,
  session_id    TEXT NOT NULL,
  kind          TEXT NOT NULL,            -- reply | notice
  part          INTEGER NOT NULL,         -- from 1
  parts         INTEGER NOT NULL,
  target        TEXT NOT NULL,            -- channel:address
  channel       TEXT NOT NULL,
  body          BLOB NOT NULL,
  body_hash     TEXT NOT NULL,            -- sha256, hex
  state         TEXT NOT NULL,            -- _core/delivery.py
  attempts      INTEGER NOT NULL DEFAULT 0,
  owner_id      TEXT,                     -- who attempts it now
  not_before_ms INTEGER NOT NULL DEFAULT 0,
  created_ms    INTEGER NOT NULL,         -- by the store's clock
  blocking_ms   INTEGER,                  -- since when it keeps others of its target waiting
  expires_ms    INTEGER NOT NULL,
  reason        TEXT,
  hint          TEXT,
  remote_id     TEXT,
  created_at    TEXT NOT NULL,
  ended_at      TEXT,
  overtaken     INTEGER NOT NULL DEFAULT 0 -- later ones of its target went ahead
) STRICT;
CREATE INDEX deliveries_owed ON deliveries (target, seq)
  WHERE state IN ('pending', 'attempting', 'unknown');
CREATE INDEX deliveries_expiring ON deliveries (expires_ms)
  WHERE state IN ('pending', 'attempting', 'unknown');
CREATE INDEX deliveries_of_turn ON deliveries (turn_id);

-- Everybody that is owed anything: what a look at all that is owed would find, kept.
CREATE TABLE targets (
  target  TEXT PRIMARY KEY,
  channel TEXT NOT NULL,
  wake_ms INTEGER,                        -- when a look may find a part; NULL: one is sent
  seq     INTEGER NOT NULL                -- of the part that it found, or of the first
) STRICT, WITHOUT ROWID;
CREATE INDEX targets_due ON targets (channel, wake_ms);

-- Somebody asks the owner of a session to let go of it.
CREATE TABLE handovers (
  request_id  TEXT PRIMARY KEY,
  session_id  TEXT NOT NULL,
  turn_id     TEXT NOT NULL,
  owner_id    TEXT NOT NULL,              -- who is asked
  asked_at    TEXT NOT NULL,
  answer      TEXT,                       -- let_go | busy
  detail      TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX handovers_open ON handovers (owner_id) WHERE answer IS NULL;
"""
