"""Clauses about recovery: what owners say of their runs, and what commits vouch for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast._core import jsonl
from holdfast._core.frozen import What
from holdfast._core.settings import LANES
from holdfast.testing._conform import (
    COMMIT,
    KEY,
    admit,
    clause,
    entry,
    hold,
    leased_now,
    opened,
    rewrite_clause,
    write,
)
from holdfast.types import FrozenHolder

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import Store
    from holdfast.testing._conform import Rewrite
    from holdfast.types import Session, SessionId, Turn

__all__: list[str] = []  # What it has to say is in the suite already.


async def _committed(store: Store, *, synced: bool = False, final: str = "f1") -> Turn:
    """A turn whose final entry stands in the transcript, and is booked."""
    await admit(store)
    leased = await leased_now(store)
    appended = await write(store, leased.session, entry(f"q-{final}", None), entry(final, None))
    what = replace(
        COMMIT, final_entry=final, entries=appended.data, end_offset=appended.end_offset,
        generation=appended.generation, synced=synced,
    )  # fmt: skip
    return await store.control.commit(leased.turn.turn_id, leased.token, what)


@clause
async def a_beat_says_what_its_owners_runs_are_at(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        turn = await admit(a)
        await leased_now(a)

        async def seen() -> object:
            holder = (await b.control.why(turn.session_id, LANES)).holder
            assert holder is not None
            return dict(holder.progress)

        assert await seen() == {}
        told = {"kind": "model", "age_ms": 7}
        assert await a.control.beat(a.owner.owner_id, {turn.turn_id: told})
        assert await seen() == told
        assert await b.control.beat(b.owner.owner_id, {turn.turn_id: {"kind": "idle"}})
        assert await seen() == told, "somebody else spoke for it"
        assert await a.control.beat(a.owner.owner_id)
        assert await seen() == told


@clause
async def a_look_says_how_long_ago_somebody_wanted_a_run_ended(
    make: Callable[[], Store],
) -> None:
    async with opened(make, 2) as [a, b]:
        turn = await admit(a)
        await leased_now(a)
        [lease] = (await b.control.look(b.owner.owner_id)).leases
        assert lease.abort_age_ms is None
        await b.control.cancel(turn.turn_id)
        [lease] = (await b.control.look(b.owner.owner_id)).leases
        assert lease.abort_age_ms is not None
        assert lease.abort_age_ms >= 0


@clause
async def what_is_noted_is_an_event(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn, me = await admit(store), store.owner.owner_id
        await store.control.note(
            "stuck", me, session_id=turn.session_id, turn_id=turn.turn_id,
            data={"class": "long_running", "nothing": None},
        )  # fmt: skip
        await store.control.note("loop_delay", me)
        stuck, delay = await store.control.events(kinds=["stuck", "loop_delay"])
        assert (stuck.session_id, stuck.turn_id, stuck.owner_id, stuck.lane) == (
            turn.session_id, turn.turn_id, me, "user",
        )  # fmt: skip
        assert dict(stuck.data) == {"class": "long_running"}
        assert (delay.kind, delay.turn_id, dict(delay.data)) == ("loop_delay", None, {})


@clause
async def what_commits_vouch_for_is_told_with_its_lines(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        control = store.control
        await admit(store, session_key="agent:main:empty")
        assert await control.vouched() == []
        await control.end_waiting((await control.turns())[0].turn_id, "cancelled", "cancelled")
        turn = await _committed(store)
        session = await control.session(turn.session_id)
        [vouched] = await control.vouched()
        assert (vouched.session_id, vouched.transcript, vouched.generation) == (
            session.session_id, session.transcript, session.generation,
        )  # fmt: skip
        assert vouched.end_offset == session.end_offset > 0
        assert await control.vouched(session.session_id) == []
        [commit] = await control.commits(session.session_id)
        assert (commit.turn_id, commit.final_entry) == (turn.turn_id, "f1")
        assert commit.end_offset == session.end_offset
        lines = [line.entry for line in jsonl.lines(commit.entries or b"")]
        assert [each and each["id"] for each in lines] == ["q-f1", "f1"]
        await _committed(store, final="f2", synced=True)
        dropped, kept = await control.commits(session.session_id)
        assert dropped.entries is None, "a later one was synced"
        assert kept.entries is not None


@clause
async def a_restored_transcript_is_vouched_for_as_it_is(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await _committed(store)
        was = (await store.control.session(turn.session_id)).end_offset
        at = {turn.turn_id: was - 1}
        await store.control.restored(turn.session_id, was, was - 1, at, {"entries": 1})
        assert (await store.control.session(turn.session_id)).end_offset == was - 1
        [commit] = await store.control.commits(turn.session_id)
        assert commit.end_offset == was - 1
        await store.control.restored(turn.session_id, was, 7, {}, {"entries": 0})
        assert (await store.control.session(turn.session_id)).end_offset == was - 1, (
            "a commit since then was forgotten"
        )
        first, _ = await store.control.events(kinds=["restored"])
        assert first.data["entries"] == 1


@clause
async def a_held_transcript_says_where_its_lines_end(make: Callable[[], Store]) -> None:
    async with opened(make) as [store]:
        turn = await _committed(store)
        session = await store.control.session(turn.session_id)
        held = await hold(store, session)
        try:
            header, *lines = held.ends()
            assert (header.kind, header.entry_id) == ("session", None)
            assert [each.entry_id for each in lines] == ["q-f1", "f1"]
            ends = [header.end, *(each.end for each in lines)]
            assert ends == sorted(set(ends))
            assert ends[-1] == held.size() == session.end_offset
        finally:
            held.release()


@clause
async def a_transcript_is_found_by_its_path_and_nothing_else_is(
    make: Callable[[], Store],
) -> None:
    async with opened(make) as [store]:
        turn = await _committed(store)
        session = await store.control.session(turn.session_id)
        path = store.transcripts.path(session)
        assert store.transcripts.is_at(session, path)
        assert not store.transcripts.is_at(session, path + "x")
        assert not store.transcripts.is_at(session, "")


@clause
async def nobody_is_frozen_who_runs(make: Callable[[], Store]) -> None:
    async with opened(make, 2) as [a, b]:
        owners = (a.owner, b.owner)
        assert a.frozen(owners) == []
        ourselves = FrozenHolder(a.owner.pid, a.owner.start_time, None, a.owner, "")
        assert a.end_frozen(ourselves, owners, 10**9).what is What.NOTHING


@rewrite_clause
async def a_transcript_that_was_cut_is_shorter_than_its_rows_say(
    make: Callable[[], Store], rewrite: Rewrite
) -> None:
    async with opened(make) as [store]:
        turn = await _committed(store)
        session: Session = await store.control.session(turn.session_id)

        async def shorter() -> list[SessionId]:
            return store.transcripts.shorter(await store.control.vouched())

        assert await shorter() == []
        rewrite(store, session, lambda lines: [*lines, b'{"type":"custom","id":"more"}\n'])
        assert await shorter() == [], "longer is not shorter"
        rewrite(store, session, lambda lines: lines[:2])
        assert await shorter() == [session.session_id]
        assert (await store.control.session_of_key(KEY)).session_id == session.session_id
