"""Clauses about reading a transcript page by page, without a lock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast.errors import BadRequestError
from holdfast.testing._conform import clause, entry, hold, opened, session_now, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store
    from holdfast.types import EntriesPage, Session

__all__: list[str] = []  # What it has to say is in the suite already.

IDS = [f"e{n}" for n in range(7)]


def _ids(page: EntriesPage) -> list[str]:
    return [each["id"] for _, each in page.entries]


async def _written(store: Store) -> Session:
    session = await session_now(store)
    parents = [None, *IDS]
    await write(store, session, *(entry(i, parents[n]) for n, i in enumerate(IDS)))
    return session


@clause
async def pages_show_every_entry_once_and_in_order(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await _written(a)
        for limit in (1, 2, 3, 7, 100):
            seen, after = [], None
            while (page := b.transcripts.page(session, after, limit=limit)).entries:
                assert len(page.entries) <= limit
                seen += _ids(page)
                after = page.next
            assert seen == IDS


@clause
async def every_cursor_goes_on_behind_its_entry(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await _written(a)
        whole = a.transcripts.page(session, None, limit=100)
        for number, (cursor, _) in enumerate(whole.entries, start=1):
            after = b.transcripts.page(session, cursor, limit=100)
            assert _ids(after) == IDS[number:]


@clause
async def the_last_cursor_finds_what_comes_later(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await _written(a)
        empty = b.transcripts.page(session, None, limit=100)
        last = b.transcripts.page(session, None, limit=100, last=2)
        await write(a, session, entry("later", IDS[-1]))
        for page in (empty, last):
            assert _ids(b.transcripts.page(session, page.next, limit=100)) == ["later"]


@clause
async def the_last_entries_can_be_asked_for(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        session = await _written(store)
        for last in (1, 3, 7, 100):
            page = store.transcripts.page(session, None, limit=1, last=last)
            assert _ids(page) == IDS[-last:]


@clause
async def what_is_no_cursor_is_refused(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        session = await _written(store)
        for bad in ("", "x", "1", "1.x", "-1.0", "1.2.3", "\u0661.\u0661"):
            try:
                store.transcripts.page(session, bad, limit=1)
            except BadRequestError:
                continue
            raise AssertionError(f"{bad!r} was taken for a cursor")


@clause
async def a_cursor_of_an_earlier_generation_starts_over(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        session = await _written(store)
        page = store.transcripts.page(session, None, limit=3)
        later = replace(session, generation=session.generation + 1)
        assert _ids(store.transcripts.page(later, page.next, limit=100)) == IDS


@clause
async def an_end_differs_once_entries_were_added(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await _written(a)
        before = b.transcripts.end(session)
        assert b.transcripts.end(session) == before
        held = await hold(a, session)
        size = held.size()
        assert b.transcripts.end(session) == before, "a lock is not an entry"
        held.append([entry("later", IDS[-1])], final=True)
        assert held.size() != size
        held.release()
        assert b.transcripts.end(session) != before
