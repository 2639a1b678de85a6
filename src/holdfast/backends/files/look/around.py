"""
What stands around a session beyond its rows: its write lock, its file, the lives of processes.

Reading only, like all of `look`.  A moment's truth: what may be a moment's accident (a claim
that is not there yet, a process that a debugger stops) counts when two looks find it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from holdfast.backends.files import fs, identity
from holdfast.backends.files.control.store import GATE
from holdfast.backends.files.lock.gate import Gate
from holdfast.backends.files.look import frozen
from holdfast.backends.files.look.locks import lock_of
from holdfast.errors import BadTranscriptError, NotFoundError, StoreError
from holdfast.types import Around

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast.types import Owner, Session

__all__ = ["around", "life"]

LOOK_AGAIN_S: Final = 0.05


def around(state: str, session: Session, owners: Collection[Owner], *, stale_ms: int) -> Around:
    """
    Args:
        owners: processes whose life is asked for.

    Cost:
        A handful of small reads; twice that, and LOOK_AGAIN_S, if something looks wrong.
    """
    path = os.path.join(state, session.transcript)
    lock = _lock(path, stale_ms)
    lives = {owner.owner_id: life(owner) for owner in owners}
    blocked = _blocked(state)
    suspect = lock is not None and (lock["claim"] is None or lock["holder"]["stopped"])
    if suspect or blocked or "stopped" in lives.values():
        fs.table.sleep(LOOK_AGAIN_S)
        if suspect:
            lock = _lock(path, stale_ms)
        blocked = blocked and _blocked(state)
        lives |= {o.owner_id: life(o) for o in owners if lives[o.owner_id] == "stopped"}
    return Around(lives, lock, _wrong(path, session), blocked)


def life(owner: Owner) -> str:
    """``alive``, ``stopped``, ``dead`` or ``unknown``: cannot be known from here."""
    found = identity.facts_about(identity.of_owner(owner))
    if found == "alive" and frozen.is_frozen(owner.pid, owner.start_time):
        return "stopped"
    return found


def _lock(path: str, stale_ms: int) -> dict[str, Any] | None:
    try:
        seen = lock_of(path, stale_ms=stale_ms)
    except (NotFoundError, BadTranscriptError, StoreError):
        return None  # What is wrong with the file is told of the file.
    return None if seen is None else seen.to_json()


def _wrong(path: str, session: Session) -> str | None:
    """What is wrong with a transcript, as far as that shows without reading it."""
    try:
        found = fs.table.stat(path)
    except FileNotFoundError:
        if not session.end_offset:
            return None  # Nothing was ever written to it.
        return f"{path} is gone, with {session.end_offset} bytes that were committed"
    except OSError as error:
        return f"{path} cannot be looked at: {error.strerror}"
    if found.st_size < session.end_offset:
        return f"{path} has {found.st_size} bytes; {session.end_offset} were committed"
    return None


def _blocked(state: str) -> str | None:
    holder = frozen.inside(Gate(os.path.join(state, GATE)))
    if holder is None or not frozen.is_frozen(holder.pid, holder.start):
        return None
    return frozen.in_words(frozen.transaction_of(state), holder)
