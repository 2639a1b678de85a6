"""Clauses about entries: what was appended is what is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast._core import jsonl
from holdfast._core.fence import Ledger
from holdfast.errors import StoreError
from holdfast.testing._conform import clause, entry, hold, opened, session_now, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store

__all__: list[str] = []  # What it has to say is in the suite already.

#: What we know nothing of, and must not change.
STRANGE: dict[str, Any] = {
    "type": "something_of_tomorrow", "id": "e1", "parentId": None,
    "text": 'caf\u00e9 \U0001f980 \u2028\u0000\r\n\t"\\', "none": None, "no": False,
    "large": 9_007_199_254_740_993, "small": -0.125, "empty": {"list": [], "object": {}},
    "nested": [[{"a": [1, "2", None]}]], "": "an empty name",
    "holdfast": {"extra": {"kept": 1}},
}  # fmt: skip


@clause
async def what_was_appended_is_loaded(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)
        for store, entry_id, parent in ((a, "e1", None), (b, "e2", "e1"), (a, "e3", "e2")):
            held = await hold(store, session)
            try:
                assert (held.load().leaf, held.leaf()) == (parent, parent)
                held.append([entry(entry_id, parent)], final=True)
                assert (held.load().leaf, held.leaf()) == (entry_id, entry_id)
            finally:
                held.release()
        assert list(b.transcripts.read(session).entries) == ["e1", "e2", "e3"]


@clause
async def what_a_turn_is_built_on_is_what_all_of_it_says(make: Callable[[], Store]) -> None:
    """However long it is, and however often it was looked at before."""
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)
        kept = {"type": "compaction", "firstKeptEntryId": "e498", "summary": "s"}
        talk = [_said(n) for n in range(600)]
        talk[500] |= kept
        stamp = {"turn": "t-1", "attempt": 1, "token": 1, "seq": 1, "final": True}
        talk[3]["holdfast"] = {**stamp, "seq": 0, "final": False}
        talk[4]["holdfast"] = stamp
        await write(a, session, *talk)
        for store in (a, b, a):
            held = await hold(store, session)
            try:
                branch, tree, left = held.branch(), held.load(), held.about("t-1")
                assert branch.leaf == tree.leaf == held.leaf()
                assert branch.history() == tree.history()
                assert len(branch.history()) == len(tree.path()) - 500 + 2
                assert left.ends["t-1"] == tree.ends["t-1"]
                assert left.questions["t-1"] == tree.questions["t-1"] == "e3"
                assert {"e3", "e4"} <= set(left.entries)
                size, more = held.size(), _said(len(tree.path()))
                held.append([more], final=True)
                assert held.branch().leaf == held.leaf() == more["id"]
                assert held.about(more["id"], size).entries[more["id"]] == more
            finally:
                held.release()


def _said(number: int) -> dict[str, Any]:
    message = {"role": "user" if number % 2 else "assistant", "content": "x" * 400}
    parent = f"e{number - 1}" if number else None
    return entry(f"e{number}", parent, type="message", message=message)


@clause
async def entries_keep_what_we_know_nothing_of(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)
        appended = await write(a, session, STRANGE)
        await write(b, session, entry("e2", "e1"))
        [line, _] = jsonl.lines(appended.data + b"{}\n")
        assert line.entry == STRANGE
        for store in (a, b):
            assert store.transcripts.read(session).entries["e1"] == STRANGE
            page = store.transcripts.page(session, None, limit=10)
            assert page.entries[0][1] == STRANGE
            held = await hold(store, session)
            try:
                assert held.load().entries["e1"] == STRANGE
            finally:
                held.release()


@clause
async def a_batch_is_appended_in_order_and_whole(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)
        batch = [entry(f"e{n}", f"e{n - 1}" if n else None) for n in range(20)]
        first = await write(a, session, *batch[:10])
        second = await write(b, session, *batch[10:])
        assert [line.entry for line in jsonl.lines(first.data + second.data)] == batch
        assert second.end_offset - first.end_offset == len(second.data)
        assert first.generation == second.generation == session.generation
        assert list(a.transcripts.read(session).entries.values()) == batch


@clause
async def what_a_reader_does_with_an_entry_changes_no_transcript(
    make: Callable[[], Store],
) -> None:
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)
        mine = entry("e1", None, data={"n": [1]})
        await write(a, session, mine)
        mine["data"]["n"].append(2)
        page = a.transcripts.page(session, None, limit=10)
        page.entries[0][1]["data"]["n"].append(3)
        a.transcripts.read(session).entries["e1"]["data"]["n"].append(4)
        for store in (a, b):
            held = await hold(store, session)
            try:
                assert held.load().entries["e1"]["data"] == {"n": [1]}
            finally:
                held.release()


@clause
async def sessions_have_transcripts_of_their_own(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        here, there = [await session_now(a, session_key=f"agent:main:{k}") for k in "ab"]
        held = await hold(a, here)
        try:
            await write(b, there, entry("e1", None))  # Nobody waits for the other.
            assert held.load().entries == {}
        finally:
            held.release()
        assert a.transcripts.path(here) != a.transcripts.path(there)


@clause
async def a_transcript_that_nobody_began_has_no_entries(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        session = await session_now(store)
        assert store.transcripts.page(session, None, limit=10).entries == ()
        assert store.transcripts.page(session, None, limit=10, last=3).entries == ()
        store.transcripts.end(session)
        try:
            store.transcripts.read(session)
        except StoreError:
            return
        raise AssertionError("there is nothing to read, and nobody said so")


@clause
async def growth_behind_a_mark_is_told_apart(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)
        held = await hold(a, session)
        held.append([entry("e1", None)], final=True)
        mark = held.mark()
        assert mark.leaf == "e1"
        change = await held.advance(mark)
        assert (change.kind, change.entries, change.head) == ("same", (), "e1")
        held.release()
        others = (entry("e2", "e1", note="x"), entry("l1", "e2", type="label"))
        await write(b, session, *others)
        held = await hold(a, session)
        try:
            change = await held.advance(mark)
            assert (change.kind, change.entries) == ("appended", others)
            assert change.head == held.load().leaf == held.leaf()
            assert (await held.advance(held.mark())).kind == "same"
        finally:
            held.release()


@clause
async def a_mark_of_an_empty_transcript_is_one_too(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)
        held = await hold(a, session)
        mark = held.mark()
        assert mark.leaf is None
        assert (await held.advance(mark)).kind == "same"
        held.release()
        await write(b, session, entry("e1", None))
        held = await hold(a, session)
        try:
            change = await held.advance(mark)
            assert (change.kind, change.head) == ("appended", "e1")
        finally:
            held.release()


@clause
async def what_a_window_appends_itself_is_not_told_as_others(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)
        held = await hold(a, session)
        mark, own = held.mark(), Ledger()
        ours = [entry("o1", None)]
        held.append(ours, final=False)
        own.add(ours)
        change = await held.advance(mark, own)
        assert (change.kind, change.entries, change.head) == ("same", (), "o1")
        held.release()
        await write(b, session, entry("e1", "o1"))
        held = await hold(a, session)
        try:
            change = await held.advance(mark, own)
            assert (change.kind, change.head) == ("appended", "e1")
            assert change.entries == (entry("e1", "o1"),)
            assert (await held.advance(mark)).entries == (*ours, entry("e1", "o1"))
        finally:
            held.release()


@clause
async def a_leaf_entry_moves_the_head_back(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        session = await session_now(a)
        await write(a, session, entry("e1", None), entry("e2", "e1"))
        held = await hold(a, session)
        mark = held.mark()
        held.release()
        back = {"type": "leaf", "id": "l1", "parentId": "e2", "targetId": "e1"}
        await write(b, session, back)
        held = await hold(a, session)
        try:
            change = await held.advance(mark)
            assert (change.kind, change.head) == ("appended", "e1")
            assert held.leaf() == held.load().leaf == "e1"
        finally:
            held.release()
