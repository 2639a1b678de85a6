"""Who does not care is not woken for each commit of all the others, and misses nothing by it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import holdfast
from holdfast.backends.files import inotify
from holdfast.backends.files.wake import Wake
from holdfast.testing import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT_S = 30.0


@pytest.fixture
def wake(tmp_path: Path) -> Iterator[Wake]:
    made = Wake(str(tmp_path / "wake"))
    yield made
    made.close()


class Ear:
    def __init__(self, *, cares: bool) -> None:
        self.cares, self.told, self._now = cares, 0, asyncio.Event()

    def __call__(self) -> bool:
        self.told += 1
        self._now.set()
        return self.cares

    async def hears(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self._now.wait()
        self._now.clear()


async def test_who_does_not_care_is_not_told_again_at_once(
    wake: Wake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inotify, "DEAF_S", 3_600.0)
    deaf, keen = Ear(cares=False), Ear(cares=True)
    stops = [wake.watch(deaf), wake.watch(keen)]
    for _ in range(3):
        wake.poke()
        await keen.hears()
    await deaf.hears()
    assert (deaf.told, keen.told) == (1, 3)
    for stop in stops:
        stop()


async def test_what_it_was_not_told_of_it_is_told_of_later(
    wake: Wake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inotify, "DEAF_S", 0.001)
    ear = Ear(cares=False)
    stop = wake.watch(ear)
    for _ in range(3):
        wake.poke()
        await ear.hears()
    stop()


async def test_who_stops_while_it_is_deaf_is_told_nothing_more(
    wake: Wake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inotify, "DEAF_S", 3_600.0)
    loop, made = asyncio.get_running_loop(), []
    later = loop.call_later

    def call_later(*asked: Any) -> asyncio.TimerHandle:
        made.append(later(*asked))
        return made[-1]

    monkeypatch.setattr(loop, "call_later", call_later)
    ear = Ear(cares=False)
    stop = wake.watch(ear)
    wake.poke()
    await ear.hears()
    stop()
    assert [each.cancelled() for each in made] == [True], "it would listen to a closed file"


async def test_a_process_cares_if_somebody_in_it_waits_or_could_run_a_turn(
    tmp_path: Path,
) -> None:
    where = str(tmp_path / "state")
    async with holdfast.open(where) as sender:
        receipt = await sender.submit("main", "hello")
        assert sender._told() is False
        changing = asyncio.create_task(sender.change())
        await asyncio.sleep(0)
        assert sender._told() is True
        await changing
        assert sender._told() is False
        waiting = asyncio.create_task(receipt.outcome(WAIT_S))
        while not sender._told():  # It is listed once its task has begun.
            await asyncio.sleep(0)
        async with holdfast.open(where, agent=ScriptedModel()) as runner:
            assert runner._told() is True
            assert (await waiting).kind == "replied"
