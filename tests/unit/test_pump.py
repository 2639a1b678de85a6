"""Whoever waits for a change hears of it, whatever was told, and when."""

from __future__ import annotations

import asyncio

import pytest

from holdfast._runtime.pump import Pump

WITHIN_S = 20.0


@pytest.mark.parametrize("idle", [True, False], ids=["the pump sleeps", "it has just looked"])
async def test_who_waits_for_a_change_needs_no_hint(idle: bool) -> None:
    """What it waits for may have been told between its own look and this."""
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1

    pump = Pump(look, lambda: False)
    pump.start()
    try:
        if idle:
            await asyncio.sleep(0)
        else:
            pump.wake()
            while not looks:
                await asyncio.sleep(0)
        for _ in range(2):
            await asyncio.wait_for(pump.change(), WITHIN_S)
        assert looks >= 2
        assert pump.awaited == 0
    finally:
        await pump.stop()
