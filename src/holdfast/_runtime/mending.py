"""
A transcript that lost its end is made whole before anything is appended to it.

Whoever takes the write lock of a session does so through `acquire`: one look at the size, and
if the file is shorter than a commit has vouched for, `_core.restoring` says what it is. What
was cut off is put back from the rows and booked, all under the write lock: nobody can commit
meanwhile, and nobody finds it half done.  All else is told, and left alone.

A process that dies in the middle has appended some of the missing entries: the next one
skips those.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast import _points
from holdfast._core import restoring

if TYPE_CHECKING:
    from holdfast.ports import HeldTranscript, Store
    from holdfast.types import Session, SessionId, TurnId

__all__ = ["Disagreement", "acquire", "mend"]

_log = logging.getLogger("holdfast.recovery")


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One session that did not agree, and what was found."""

    session_id: SessionId
    path: str
    detail: str
    entries: int = 0  #: That were put back.


async def acquire(store: Store, session: Session, **more: Any) -> HeldTranscript:
    """
    Take the write lock; what was cut off stands again when this returns.

    Args:
        more: what `Transcripts.acquire` takes.

    Raises:
        As `Transcripts.acquire`; and StoreError: the rows cannot be read.

    Cost:
        One look at the file's size beside the lock, unless it is too short.
    """
    held = await store.transcripts.acquire(session, **more)
    try:
        if held.size() < session.end_offset:
            await mend(store, held, session.session_id)
    except BaseException:
        held.release()
        raise
    return held


async def mend(
    store: Store, held: HeldTranscript, session_id: SessionId
) -> tuple[str, Disagreement | None]:
    """Under the write lock.  Returns what was found, and done: None, if it is whole by now."""
    session = await store.control.session(session_id)
    commits = await store.control.commits(session_id)
    lines = await asyncio.to_thread(held.ends)
    was, size = session.end_offset, held.size()
    leaf = held.leaf() if lines and lines[0].kind == "session" else None
    plan = restoring.plan(lines, size, was, commits, leaf)
    if plan.what == "whole":
        return "restored", None
    if plan.what == "rewritten":
        return "rewritten", await _tell(store, held.path, session_id, plan.detail)
    if plan.missing:
        held.append(plan.missing, final=True)
    _points.reach("restore.appended")
    ends = {line.entry_id: line.end for line in await asyncio.to_thread(held.ends)}
    moved: dict[TurnId, int] = {
        each.turn_id: ends[each.final_entry]  # type: ignore[misc]  # A str in that row.
        for each in commits
        if each.final_entry in ends and (each.end_offset or 0) > size
    }
    count = len(plan.missing) - plan.gaps
    told = {
        "entries": count, "turns": list(plan.turns), "detail": plan.detail, "gaps": plan.gaps,
    }  # fmt: skip
    await store.control.restored(session_id, was, held.size(), moved, told)
    _log.warning(
        "session %s: %s was %s: %d entries were put back", session_id, held.path, plan.detail,
        count,
    )  # fmt: skip
    return "restored", Disagreement(session_id, held.path, plan.detail, count)


async def _tell(store: Store, path: str, session_id: SessionId, detail: str) -> Disagreement:
    _log.warning("session %s: %s is %s: left alone", session_id, path, detail)
    await store.control.note(
        "rewritten", store.owner.owner_id, session_id=session_id, data={"detail": detail}
    )
    return Disagreement(session_id, path, detail)
