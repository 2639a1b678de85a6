"""What is over is forgotten, in small slices; what anybody may still need is not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import holdfast
from holdfast import _stamps
from holdfast._core import retention
from holdfast._core.settings import Settings
from holdfast._runtime.sweeping import ANEW_S, Sweeper
from holdfast.errors import NotFoundError
from holdfast.testing import ScriptedModel
from holdfast.types import Handover, MadeEntry, SessionId, ToolRecord, TurnId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from holdfast import Holdfast

KEY = "agent:main:main"


@pytest.fixture(autouse=True)
def _nobody_else_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nobody:
        def __init__(self, *_: object) -> None: ...

        async def sweep(self, *_: object) -> int:
            return 0

    monkeypatch.setattr("holdfast._runtime.keeper.Sweeper", Nobody)


@pytest.fixture(params=["files", "memory"])
async def hf(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Holdfast]:
    where = str(tmp_path / "state") if request.param == "files" else "memory:"
    async with holdfast.open(where, agent=ScriptedModel()) as opened:
        yield opened


async def replied(hf: Holdfast, text: str, key: str = KEY, **more: Any) -> TurnId:
    receipt = await hf.submit(key, text, **more)
    assert (await receipt.outcome(30)).kind == "replied"
    return receipt.turn_id


def change(hf: Holdfast, sql: str, *values: Any) -> None:
    hf.store.control.tend(lambda db: db.execute(sql, values))  # type: ignore[attr-defined]


def age(hf: Holdfast, turn_id: TurnId, days: float) -> None:
    """Let a turn have been accepted, and ended, *days* ago."""
    at = _stamps.days_before(_stamps.now_ms() - int(days * retention.DAY_MS), 0)
    back_ms = int(days * retention.DAY_MS)
    world = getattr(hf.store.control, "_world", None)
    if world is None:
        change(
            hf,
            "UPDATE turns SET ended_at = ?, accepted_ms = accepted_ms - ? WHERE turn_id = ?",
            at, back_ms, turn_id,
        )  # fmt: skip
    else:
        turn = world.turns[turn_id]
        world.turns[turn_id] = replace(
            turn, ended_at=at, accepted_ms=turn.accepted_ms - back_ms
        )


def old_ids(hf: Holdfast, turn_id: TurnId) -> None:
    """Let its idempotency key have been given as long ago as ids tell: ids are times."""
    old = "00000000-0000-7000-8000-" + turn_id[-12:]
    world = getattr(hf.store.control, "_world", None)
    if world is None:
        change(hf, "UPDATE turns SET turn_id = ? WHERE turn_id = ?", old, turn_id)
        change(hf, "UPDATE idempotency SET turn_id = ? WHERE turn_id = ?", old, turn_id)
    else:
        turn = world.turns.pop(turn_id)
        world.turns[TurnId(old)] = replace(turn, turn_id=TurnId(old))
        world.beside[TurnId(old)] = world.beside.pop(turn_id)
        room = world.rooms[turn.session_id]
        room.turns[room.turns.index(turn_id)] = TurnId(old)
        for key, (digest, whose) in list(world.receipts.items()):
            if whose == turn_id:
                world.receipts[key] = (digest, TurnId(old))


async def swept(hf: Holdfast, days: int = 30) -> int:
    sweeper = Sweeper(hf.store, Settings(keep_days=days))
    return await sweeper.sweep(lambda: False)


async def left(hf: Holdfast) -> list[TurnId]:
    return [turn.turn_id for turn in await hf.store.control.turns()]


async def test_a_turn_goes_with_everything_of_it_when_its_days_are_over(hf: Holdfast) -> None:
    turns = [await replied(hf, f"m{n}", idempotency_key=f"k{n}") for n in range(4)]
    one_tool(hf, turns[0])
    age(hf, turns[0], 31)
    age(hf, turns[1], 29)
    assert await swept(hf) == 1
    assert await left(hf) == turns[1:]
    with pytest.raises(NotFoundError):
        await hf.store.control.turn(turns[0])
    assert await hf.store.control.tool_calls(turns[0]) == []
    again = await hf.submit(KEY, "another text", idempotency_key="k0")
    assert (await again.outcome(30)).kind == "replied", "the key is free again"
    assert (await hf.submit(KEY, "m1", idempotency_key="k1")).turn_id == turns[1]


def one_tool(hf: Holdfast, turn_id: TurnId) -> None:
    world = getattr(hf.store.control, "_world", None)
    if world is None:
        change(
            hf,
            "INSERT INTO tool_calls (turn_id, call_id, result_id, name, arguments, replay, state,"
            " token, started_at) VALUES (?, 'c', 'r', 'n', x'7b7d', 'safe', 'done', 1, 't')",
            turn_id,
        )
    else:
        world.tool_calls[turn_id] = {
            "c": ToolRecord(turn_id, "c", "r", "n", {}, "safe", "done", 1, 1, None, "t", None)  # type: ignore[arg-type]
        }


async def test_a_key_is_free_again_seven_days_after_the_outcome_and_not_before(
    hf: Holdfast,
) -> None:
    turns = [await replied(hf, f"m{n}", idempotency_key=f"k{n}") for n in range(3)]
    for turn, days in zip(turns, (8, 6.9, 0), strict=True):
        age(hf, turn, days)
        old_ids(hf, turn)
    assert await swept(hf) == 1
    assert len(await left(hf)) == 3, "their rows are kept longer than their keys"
    assert (await hf.submit(KEY, "anew", idempotency_key="k0")).fresh
    for text, key in [("m1", "k1"), ("m2", "k2")]:
        assert not (await hf.submit(KEY, text, idempotency_key=key)).fresh


async def test_keep_days_alone_takes_no_key_away(hf: Holdfast) -> None:
    """With `store.keep_days = 1` a turn that has a key stays for the key's seven days."""
    turns = [
        await replied(hf, f"m{n}", idempotency_key="k" if n == 0 else None) for n in range(5)
    ]
    for turn in turns[:3]:
        age(hf, turn, 3)
    assert await swept(hf, days=1) == 2
    assert await left(hf) == [turns[0], *turns[3:]]
    assert not (await hf.submit(KEY, "m0", idempotency_key="k")).fresh


async def test_the_last_commits_of_a_transcript_stay_however_old(hf: Holdfast) -> None:
    """By these a transcript that was cut is known, and put back."""
    turns = [await replied(hf, f"m{n}") for n in range(5)]
    for turn in turns:
        age(hf, turn, 400)
    await swept(hf)
    session = (await hf.session(KEY)).session_id
    kept = await hf.store.control.commits(session)
    assert [each.turn_id for each in kept] == turns[-2:]
    assert kept[-1].entries is not None, "the lines that no later commit has synced"
    assert await swept(hf) == 0


async def test_what_waits_or_runs_or_is_owed_stays(hf: Holdfast) -> None:
    turns = [await replied(hf, f"m{n}") for n in range(4)]
    async with hf.turn(KEY, "runs") as running:
        waiting = await hf.submit(KEY, "waits")
        for turn in [*turns[:2], TurnId(running.turn_id), waiting.turn_id]:
            age(hf, turn, 400)
        owe(hf, turns[0])
        assert await swept(hf) == 1
        assert turns[1] not in await left(hf)
        assert {turns[0], running.turn_id, waiting.turn_id} <= set(await left(hf))
        await running.reply("done")
    assert (await waiting.outcome(30)).kind == "replied"


def owe(hf: Holdfast, turn_id: TurnId) -> None:
    world = getattr(hf.store.control, "_world", None)
    if world is None:
        change(
            hf,
            "INSERT INTO deliveries (delivery_id, turn_id, session_id, kind, part, parts, target,"
            " channel, body, body_hash, state, created_ms, expires_ms, created_at)"
            " VALUES ('d', ?, 's', 'reply', 1, 1, 'a:b', 'a', x'78', 'h', 'unknown', 0, 9000000000000000, 't')",
            turn_id,
        )
    else:
        world.deliveries["d"] = _Owed(turn_id)


class _Owed:
    """As much of a delivery as is asked about."""

    state, delivery_id = "unknown", "d"

    def __init__(self, turn_id: TurnId) -> None:
        self.turn_id = turn_id


async def test_a_reply_that_was_salvaged_stays(hf: Holdfast) -> None:
    turns = [await replied(hf, f"m{n}") for n in range(4)]
    world = getattr(hf.store.control, "_world", None)
    if world is None:
        change(hf, "UPDATE turns SET salvaged = x'78' WHERE turn_id = ?", turns[0])
    else:
        world.turns[turns[0]] = replace(world.turns[turns[0]], salvaged=b"x")
    for turn in turns[:2]:
        age(hf, turn, 400)
    assert await swept(hf) == 1
    assert await left(hf) == [turns[0], *turns[2:]]


async def test_a_wall_clock_that_jumps_ahead_takes_nothing_away(
    hf: Holdfast, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [
        await replied(hf, f"m{n}", idempotency_key=f"k{n}" if n % 2 else None) for n in range(6)
    ]
    year_ms = _stamps.now_ms() + 365 * retention.DAY_MS
    monkeypatch.setattr(_stamps, "now_ms", lambda: year_ms)
    world = getattr(hf.store.control, "_world", None)
    if world is not None:
        monkeypatch.setattr(world, "now_ms", lambda: year_ms)
    assert await swept(hf, days=1) == 0
    assert await left(hf) == turns


async def test_what_a_run_has_made_goes_with_its_outcome_at_the_latest(hf: Holdfast) -> None:
    ended = await replied(hf, "m")
    async with hf.turn(KEY, "runs") as running:
        token, mine = running.token, TurnId(running.turn_id)
        made = [MadeEntry("e", {"role": "assistant"})]
        await hf.store.control.add_made(mine, token, made)  # type: ignore[arg-type]
        world = getattr(hf.store.control, "_world", None)
        if world is None:
            change(hf, "INSERT INTO made VALUES (?, 1, 'e', x'7b7d')", ended)
        else:
            world.made[ended] = {"e": made[0]}
        assert await swept(hf) == 1
        assert len(await hf.store.control.made(mine)) == 1
        await running.reply("done")


async def test_requests_to_let_go_are_kept_a_day(hf: Holdfast) -> None:
    new, old = _stamps.uuid7(), "00000000-0000-7000-8000-000000000000"
    world = getattr(hf.store.control, "_world", None)
    for request_id in (new, old):
        if world is None:
            change(
                hf,
                "INSERT INTO handovers VALUES (?, 's', 't', 'o', 't', NULL, NULL)",
                request_id,
            )
        else:
            world.handovers[request_id] = Handover(
                request_id,
                SessionId("s"),
                TurnId("t"),
                "o",
                "t",  # type: ignore[arg-type]
            )
    assert await swept(hf) == 1
    assert (await hf.store.control.handover(new)).request_id == new
    with pytest.raises(NotFoundError):
        await hf.store.control.handover(old)


async def test_a_sweep_goes_on_where_it_was_and_looks_again_later(hf: Holdfast) -> None:
    count = 2 * retention.SLICE + 7
    turns = [await replied(hf, f"m{n}") for n in range(count + 2)]
    for turn in turns:
        age(hf, turn, 31)
    now_s = [0.0]
    sweeper = Sweeper(hf.store, Settings(), now_s=lambda: now_s[0])
    asked = []

    def stopping() -> bool:
        asked.append(None)
        return len(asked) > 4  # Within the turns.

    assert 0 < await sweeper.sweep(stopping) < count
    assert await sweeper.sweep(lambda: False) > 0
    assert await left(hf) == turns[-2:]
    first = await replied(hf, "one more")
    second = await replied(hf, "and one")
    age(hf, first, 400)  # Older than where the sweep stands.
    age(hf, second, 400)
    assert await sweeper.sweep(lambda: False) <= 2
    now_s[0] += ANEW_S
    await sweeper.sweep(lambda: False)
    assert len(await left(hf)) == 2


async def test_a_slice_is_small_whatever_there_is(tmp_path: Path) -> None:
    """By the rows that it looks at; how long that takes is a benchmark."""
    async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
        for n in range(retention.SLICE + 3):
            age(hf, await replied(hf, f"m{n}"), 31)
        done = await hf.store.control.trim("turns", keep_days=30)
        assert done.removed == retention.SLICE
        assert done.after is not None
        done = await hf.store.control.trim("turns", keep_days=30, after=done.after)
        assert (done.removed, done.after) == (1, None)
    with closing(sqlite3.connect(tmp_path / "control.db")) as db:
        assert db.execute("SELECT count(*) FROM turns").fetchone() == (2,)
