"""
Clauses for stores whose transcripts others can change behind their back: an editor, a
restore.  Each gets something that does it; see `conformance`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast._core import jsonl
from holdfast._core.fence import Ledger
from holdfast.testing._conform import (
    KEY,
    entry,
    hold,
    opened,
    rewrite_clause,
    session_now,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store
    from holdfast.testing._conform import Rewrite
    from holdfast.types import Change, Mark, Session

__all__: list[str] = []  # What it has to say is in the suite already.


async def _marked(store: Store, key: str = KEY) -> tuple[Session, Mark]:
    """A session with the entries e1 and e2, and a mark behind them."""
    session = await session_now(store, session_key=key)
    await write(store, session, entry("e1", None), entry("e2", "e1"))
    held = await hold(store, session)
    mark = held.mark()
    held.release()
    return session, mark


async def _changed(store: Store, session: Session, mark: Mark, own: Ledger) -> Change:
    held = await hold(store, session)
    try:
        change: Change = await held.advance(mark, own)
        if change.kind != "rewritten":
            assert change.head == held.load().leaf
        return change
    finally:
        held.release()


@rewrite_clause
async def a_transcript_written_anew_is_rewritten(
    make: Callable[[], Store], rewrite: Rewrite
) -> None:
    other = jsonl.encode([entry("x1", None, text="something else, and quite a bit longer")])
    changes: tuple[Callable[[list[bytes]], list[bytes]], ...] = (
        lambda lines: [lines[0], other],
        lambda lines: lines[:2],  # Its last entry was cut off.
        lambda lines: [lines[0], lines[1].replace(b"custom", b"cuStom"), *lines[2:]],
        lambda lines: [lines[0], other, *lines[1:]],
    )
    for number, change in enumerate(changes):
        async with opened(make, 2) as [a, b]:
            session, mark = await _marked(a, f"agent:main:s{number}")
            rewrite(b, session, change)
            found = await _changed(a, session, mark, Ledger())
            assert found.kind == "rewritten"
            assert found.detail, "why, in words"


@rewrite_clause
async def the_same_bytes_in_another_place_are_the_same(
    make: Callable[[], Store], rewrite: Rewrite
) -> None:
    async with opened(make, 2) as [a, b]:
        session, mark = await _marked(a)
        rewrite(b, session, list)
        change = await _changed(a, session, mark, Ledger())
        assert (change.kind, change.entries, change.head) == ("same", (), "e2")
        await write(b, session, entry("e3", "e2"))
        change = await _changed(a, session, mark, Ledger())
        assert (change.kind, change.head) == ("appended", "e3")


@rewrite_clause
async def a_copy_that_has_grown_has_only_grown(
    make: Callable[[], Store], rewrite: Rewrite
) -> None:
    async with opened(make, 2) as [a, b]:
        session, mark = await _marked(a)
        more = entry("e3", "e2")
        rewrite(b, session, lambda lines: [*lines, jsonl.encode([more])])
        change = await _changed(a, session, mark, Ledger())
        assert (change.kind, change.entries, change.head) == ("appended", (more,), "e3")


@rewrite_clause
async def what_we_had_appended_ourselves_is_missed(
    make: Callable[[], Store], rewrite: Rewrite
) -> None:
    async with opened(make, 2) as [a, b]:
        session, mark = await _marked(a)
        own, ours = Ledger(), entry("o1", "e2")
        await write(a, session, ours)
        own.add([ours])
        assert (await _changed(a, session, mark, own)).kind == "same"
        rewrite(b, session, lambda lines: lines[:-1])
        assert (await _changed(a, session, mark, own)).kind == "rewritten"


@rewrite_clause
async def what_is_loaded_is_what_stands_there_now(
    make: Callable[[], Store], rewrite: Rewrite
) -> None:
    async with opened(make, 2) as [a, b]:
        session, _ = await _marked(a)
        other = jsonl.encode([entry("x1", None)])
        rewrite(b, session, lambda lines: [lines[0], other])
        for store in (a, b):
            held = await hold(store, session)
            try:
                assert list(held.load().entries) == ["x1"]
                assert held.leaf() == "x1"
            finally:
                held.release()


@rewrite_clause
async def a_line_that_does_not_parse_stays_and_is_passed_over(
    make: Callable[[], Store], rewrite: Rewrite
) -> None:
    async with opened(make, 2) as [a, b]:
        session, mark = await _marked(a)
        rewrite(b, session, lambda lines: [*lines, b'{"type": "custom", "id": "torn\n'])
        assert (await _changed(a, session, mark, Ledger())).kind == "appended"
        await write(a, session, entry("e3", "e2"))
        tree = b.transcripts.read(session)
        assert list(tree.entries) == ["e1", "e2", "e3"]
        assert [why for _, why in tree.skipped] == ["unparsable"]
        page = b.transcripts.page(session, None, limit=10)
        assert [each["id"] for _, each in page.entries] == ["e1", "e2", "e3"]
