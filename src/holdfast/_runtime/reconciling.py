"""
Before the first message is accepted: do the rows and the transcripts agree?

    1. what dead owners held is ended: their turns go back to their places, or end
    2. each transcript is as long as its rows say: one look at a file's size each
    3. one that is shorter is looked at, under its write lock: cut, or rewritten
    4. what was cut off is put back from the rows; all else is told, and left alone

Two processes that start at once do this one after the other, by the write lock; the second
finds nothing missing.  What cannot be looked at now, and what is cut later, is seen by whoever
takes the write lock next (`mending.py`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast._core.beats import Watch
from holdfast._runtime import mending
from holdfast._runtime.mending import Disagreement
from holdfast._runtime.reaping import Reaper
from holdfast.errors import HoldfastError
from holdfast.types import SessionId

if TYPE_CHECKING:
    from holdfast._core.settings import Settings
    from holdfast._runtime.recovery import Recovery
    from holdfast.ports import Store

__all__ = ["Reconciled", "is_due", "reconcile"]

_log = logging.getLogger("holdfast.recovery")


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What starting has found."""

    sessions: int  #: That were looked at.
    ended: int  #: Leases of dead owners.
    restored: tuple[Disagreement, ...] = ()
    rewritten: tuple[Disagreement, ...] = ()  #: Shorter, and not by a cut: left alone.
    unsure: tuple[Disagreement, ...] = ()  #: Could not be looked at: left alone.
    leases: int = 0  #: Of owners that live, or may: left alone.
    seconds: float = 0.0

    @property
    def quiet(self) -> bool:
        """Nothing needs a person's eye."""
        return not (self.restored or self.rewritten or self.unsure)

    def __str__(self) -> str:
        told = [
            f"{self.sessions} sessions looked at in {self.seconds * 1000:.0f} ms",
            f"{self.ended} attempts of dead owners ended" if self.ended else "",
            f"{self.leases} turns run elsewhere" if self.leases else "",
            *(
                f"{len(found)} {word}"
                for word, found in (
                    ("restored", self.restored),
                    ("rewritten, left alone", self.rewritten),
                    ("not readable, left alone", self.unsure),
                )
                if found
            ),
        ]
        return ", ".join(each for each in told if each)


async def is_due(store: Store, *, permanent: bool) -> bool:
    """
    Whether who opens *store* is to reconcile it: a runner that serves always does, before it
    says that it is one; anybody else only where no such runner lives.
    """
    if permanent:
        return True
    for agent_id in await store.control.known_agents():
        for runner in await store.control.permanent_runners(agent_id):
            if not store.is_dead(runner):
                return False
    return True


async def reconcile(store: Store, settings: Settings, recovery: Recovery) -> Reconciled:
    """
    Make rows and transcripts agree, as far as that is certain.

    Raises:
        StoreError: the rows cannot be read.  A transcript that cannot be is told, no more.

    Cost:
        One look at a file's size a session that has a commit, in a thread.
    """
    began_s = time.monotonic()
    ended, leases = await _end_dead(store, settings, recovery)
    after: SessionId | None = None
    count, short = 0, list[SessionId]()
    while page := await store.control.vouched(after):
        count, after = count + len(page), page[-1].session_id
        short += await asyncio.to_thread(store.transcripts.shorter, page)
    found: dict[str, list[Disagreement]] = {"restored": [], "rewritten": [], "unsure": []}
    for session_id in short:
        kind, told = await _mend(store, settings, session_id)
        if told is not None:
            found[kind].append(told)
    told_all = Reconciled(
        count, ended, leases=leases, seconds=time.monotonic() - began_s,
        **{kind: tuple(each) for kind, each in found.items()},
    )  # fmt: skip
    level = logging.INFO if told_all.quiet else logging.WARNING
    _log.log(level, "start: %s", told_all)
    return told_all


async def _end_dead(store: Store, settings: Settings, recovery: Recovery) -> tuple[int, int]:
    """How many leases were ended, and how many are left alone."""
    reaper = Reaper(
        store, settings, recovery, Watch(settings.lease_ms / 1000),
        overdue=lambda _: None, runs=lambda _: True,
    )  # fmt: skip
    before = len((await store.control.look(store.owner.owner_id)).leases)
    await reaper.look()
    try:
        async with asyncio.timeout(2 * settings.settle_ms / 1000):
            await reaper.settle()
    except TimeoutError:
        await reaper.stop()  # The keeper goes on with it.
    after = len((await store.control.look(store.owner.owner_id)).leases)
    return max(before - after, 0), after


async def _mend(
    store: Store, settings: Settings, session_id: SessionId
) -> tuple[str, Disagreement | None]:
    """What was found, and done: None, if it is whole by now."""
    path = ""
    try:
        session = await store.control.session(session_id)
        path = store.transcripts.path(session)
        held = await store.transcripts.acquire(
            session, timeout_s=settings.settle_ms / 1000, token=None,
            run_id="reconcile", lane=None,
        )  # fmt: skip
        try:
            return await mending.mend(store, held, session_id)
        finally:
            held.release()
    except HoldfastError as error:
        _log.warning("session %s: left alone: %s", session_id, error)
        return "unsure", Disagreement(session_id, path, str(error))
