"""Warnings of long waits: at once, twice, four times the bound; one look for all that are due."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from holdfast._core.settings import LANES, Settings
from holdfast._runtime.warning import Warnings
from holdfast.backends.memory.store import MemoryStore
from holdfast.backends.memory.world import World
from holdfast.errors import UnavailableError
from holdfast.testing._conform import admit, leased_now, opened
from holdfast.types import Place, TurnId


class Stage:
    """Warnings over a store in memory, with a clock of their own."""

    def __init__(self, store: Any, **settings: Any) -> None:
        self.now_s = 100.0
        self.told: list[tuple[TurnId, Place, int]] = []
        self.looks = 0
        self.store, self.control = store, store.control
        self.failing = False
        self.warnings = Warnings(
            self, Settings(wait_warn_ms=2_000, **settings),
            lambda *told: self.told.append(told), now_s=lambda: self.now_s,
        )  # fmt: skip  # type: ignore[arg-type]
        self.owner, ask = store.owner, store.control.turn_states

        async def counted(*asked: Any) -> Any:
            self.looks += 1
            if self.failing:
                raise UnavailableError(path="memory:", detail="broken")
            return await ask(*asked)

        store.control.turn_states = counted

    async def after(self, seconds: float) -> None:
        self.now_s += seconds
        await self.warnings.look()


@pytest.fixture
def world() -> World:
    return World()


async def test_a_wait_is_told_at_once_twice_four_times_its_bound(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(lambda: MemoryStore(world, Settings())) as [store]:
        running = await admit(store)
        await leased_now(store)
        stage = Stage(store)
        turn = await admit(store, lane="heartbeat", priority=20)
        stage.warnings.waits(turn)
        with caplog.at_level(logging.WARNING, "holdfast.wait"):
            for _ in range(36):
                await stage.after(0.25)
        assert [round(ms, -2) for _, _, ms in stage.told] == [2_000, 4_000, 8_000]
        assert stage.looks == 3, "only what is due is asked for"
        first = caplog.records[0].getMessage()
        assert first.startswith("lane wait exceeded: lane=heartbeat waited_ms=2")
        assert "position=1" in first
        assert f"blocker={running.turn_id}" in first
        assert f"turn={turn.turn_id}" in first
        assert "has been running for" in first
        told = await store.control.events(kinds=["wait"])
        assert len(told) == 3
        assert (told[0].lane, told[0].turn_id) == ("heartbeat", turn.turn_id)
        assert told[0].data["blocker"] == running.turn_id
        assert told[0].data["blocker_lane"] == "user"


async def test_a_turn_that_has_started_is_not_told_of_until_it_waits_again(
    world: World,
) -> None:
    async with opened(lambda: MemoryStore(world, Settings())) as [store]:
        stage = Stage(store)
        turn = await admit(store)
        stage.warnings.waits(turn)
        await leased_now(store)
        await stage.after(3)
        assert (stage.told, len(stage.warnings)) == ([], 0)
        stage.warnings.waits(await store.control.turn(turn.turn_id))  # It runs.
        assert len(stage.warnings) == 0
        stage.warnings.waits(turn)  # Put back.
        assert len(stage.warnings) == 1


async def test_a_long_queue_is_one_look_and_one_line(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(lambda: MemoryStore(world, Settings())) as [store]:
        stage = Stage(store)
        turns = [await admit(store, queue_max=100) for _ in range(50)]
        for turn in turns:
            stage.warnings.waits(turn)
            stage.warnings.waits(turn)  # Twice is once.
        await stage.after(2)
        assert (stage.looks, len(stage.told)) == (1, 50)
        [line] = [each for each in caplog.records if each.name == "holdfast.wait"]
        assert f"turn={turns[0].turn_id}" in line.getMessage()
        assert "others=49" in line.getMessage()
        assert len(await store.control.events(kinds=["wait"])) == 1


async def test_a_look_that_fails_is_made_again(world: World) -> None:
    async with opened(lambda: MemoryStore(world, Settings())) as [store]:
        stage = Stage(store)
        stage.warnings.waits(await admit(store))
        stage.failing = True
        with pytest.raises(UnavailableError):
            await stage.after(2)
        stage.failing = False
        await stage.after(0)
        assert len(stage.told) == 1


async def test_a_turn_that_has_ended_is_forgotten_and_asked_of_nobody(world: World) -> None:
    async with opened(lambda: MemoryStore(world, Settings())) as [store]:
        stage = Stage(store)
        turn = await admit(store)
        stage.warnings.waits(turn)
        stage.warnings.over(turn.turn_id)
        assert len(stage.warnings) == 0
        await stage.after(2.5)
        assert stage.looks == 0


async def test_one_that_waits_anew_is_not_told_of_by_its_former_wait(world: World) -> None:
    async with opened(lambda: MemoryStore(world, Settings())) as [store]:
        await admit(store)
        await leased_now(store)
        stage = Stage(store)
        turn = await admit(store)
        stage.warnings.waits(turn)
        await stage.after(1.5)
        stage.warnings.over(turn.turn_id)
        stage.warnings.waits(turn)
        await stage.after(1.0)
        assert stage.told == []
        await stage.after(1.0)
        assert [turn_id for turn_id, _, _ in stage.told] == [turn.turn_id]


async def test_one_that_ends_while_it_is_looked_at_is_told_of_no_more(world: World) -> None:
    async with opened(lambda: MemoryStore(world, Settings())) as [store]:
        stage = Stage(store)
        turn = await admit(store)
        stage.warnings.waits(turn)
        ask = store.control.turn_states

        async def late(*asked: Any) -> Any:
            found = await ask(*asked)
            stage.warnings.over(turn.turn_id)
            return found

        store.control.turn_states = late
        await stage.after(2.5)
        assert stage.told == []
        assert len(stage.warnings) == 0


async def test_without_a_bound_nobody_is_watched(world: World) -> None:
    async with opened(lambda: MemoryStore(world, Settings())) as [store]:
        warnings = Warnings(store, Settings(wait_warn_ms=0), lambda *_: None)
        warnings.waits(await admit(store))
        assert len(warnings) == 0
        assert set(LANES) >= {"user"}
