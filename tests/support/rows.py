"""What the control store says once everything has ended: a dead sender cannot tell."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import holdfast

WITHIN_S = 60.0


def every_turn(state: Path) -> list[Any]:
    """Wait until each accepted turn has its outcome and no lease is left; return all turns."""
    return asyncio.run(_every_turn(state))


async def _every_turn(state: Path) -> list[Any]:
    async with holdfast.open(state) as hf:
        turns: list[Any] = []
        while page := await hf.store.control.turns(after=turns[-1].admission if turns else 0):
            turns += page
        for turn in turns:
            await (await hf.receipt(turn.turn_id)).outcome(WITHIN_S)
        left = await hf.store.control.look(hf.store.owner.owner_id)
        assert left.leases == (), "a lease that nobody gave back"
        return [await hf.store.control.turn(turn.turn_id) for turn in turns]
