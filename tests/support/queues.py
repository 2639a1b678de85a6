"""The files store's queue without its threads and files: transaction bodies on a database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from unittest.mock import patch

from holdfast._core.settings import Lane
from holdfast.backends.files import fs
from holdfast.backends.files.control import admission, leases, owners, schema
from holdfast.testing._conform import COMMIT, asked_for
from holdfast.types import Leased, Owner, OwnerId, Turn

ME = OwnerId("owner-0")


class Queue:
    """A store in memory, one owner of it, and a clock that goes when it is told to."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.now_s = 1_000.0

    def owner(self, name: str) -> OwnerId:
        me = Owner(OwnerId(name), 1, 1, "boot", 1, "host")
        owners.register(self.db, me)
        owners.register_runner(self.db, me.owner_id, ["main"], permanent=True)
        return me.owner_id

    def admit(self, session: str = "a", **more: Any) -> Turn:
        asked = asked_for(
            **{"session_key": f"agent:main:{session}", "queue_max": 99_999, **more}
        )
        return admission.admit(self.db, asked, ()).turn

    def pick(self, lanes: dict[str, Lane], **more: Any) -> Leased | None:
        return leases.pick(self.db, more.pop("me", ME), ["main"], lanes, **more)

    def commit(self, leased: Leased) -> Turn:
        return leases.commit(self.db, leased.turn.turn_id, leased.token, COMMIT)


@contextmanager
def queue() -> Iterator[Queue]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        schema.migrate(db, ":memory:")
        found = Queue(db)
        with patch.object(fs.table, "monotonic", lambda: found.now_s):
            found.owner(ME)
            yield found
