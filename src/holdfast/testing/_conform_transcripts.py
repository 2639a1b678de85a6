"""Clauses about entries and their one writer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast.errors import LockTimeoutError
from holdfast.testing._conform import admit, clause, hold, opened, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store

__all__: list[str] = []  # What it has to say is in the suite already.


@clause
async def what_was_appended_is_loaded(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turn = await admit(a)
        session = await a.control.session(turn.session_id)
        for store, entry_id, parent in ((a, "e1", None), (b, "e2", "e1"), (a, "e3", "e2")):
            held = await hold(store, session)
            try:
                assert held.load().leaf == parent
                held.append(
                    [{"type": "custom", "id": entry_id, "parentId": parent}], final=True
                )
            finally:
                held.release()
        assert list(b.transcripts.read(session).entries) == ["e1", "e2", "e3"]


@clause
async def a_transcript_has_one_writer(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await a.control.session((await admit(a)).session_id)
        held = await hold(a, session)
        try:
            rival = asyncio.create_task(hold(b, session, timeout_s=0.05))
            await refused(LockTimeoutError, rival)
        finally:
            held.release()
        (await hold(b, session)).release()


@clause
async def growth_behind_a_mark_is_told_apart(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await a.control.session((await admit(a)).session_id)
        held = await hold(a, session)
        held.append([{"type": "custom", "id": "e1", "parentId": None}], final=True)
        held.load()
        mark = held.mark()
        assert held.advance(mark) == "same"
        held.release()
        other = await hold(b, session)
        other.append([{"type": "custom", "id": "e2", "parentId": "e1"}], final=True)
        other.release()
        held = await hold(a, session)
        try:
            assert held.advance(mark) == "appended"
        finally:
            held.release()
