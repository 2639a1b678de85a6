"""
Does a turn cost more where thousands wait?

Admit, lease and commit, straight through the control store, in a session with few waiting
turns and in one with many, in blocks, in turns: a shared machine is another one the next
minute.  The queues keep their lengths: each round admits one and ends one.
"""

from __future__ import annotations

import asyncio
import os
import statistics
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from holdfast import _assemble
from holdfast._core.settings import parse
from holdfast._runtime import admission
from holdfast.lab.figures import ms
from holdfast.types import Commit

if TYPE_CHECKING:
    from holdfast._core.settings import Settings
    from holdfast.ports import Store

__all__ = ["queue_depths"]

FEW: Final = 10
MANY: Final = 10_000
BLOCK: Final = 20
WARMUP: Final = 20
KEY: Final = "agent:main:bench"
_TEXT: Final = "What did we decide about the harbour?"
_REPLY: Final = Commit(
    reply="Nothing.", final_entry="f", entries=b"{}\n", end_offset=0, generation=1, synced=True
)


def queue_depths(where: str, *, quick: bool) -> dict[str, Any]:
    """
    Measure in directories under *where*.

    Returns:
        ``{"by_waiting": [{"waiting", "p50_ms", "p99_ms"}], "ratio"}``: of the medians.
    """
    depths = (FEW, MANY // 10 if quick else MANY)
    rounds = 100 if quick else 1_000
    return asyncio.run(_depths(where, depths, rounds))


async def _depths(where: str, depths: tuple[int, ...], rounds: int) -> dict[str, Any]:
    settings = parse({"turn.queue_max": MANY * 2})
    lines = [
        _Line(_assemble.open_store(os.path.join(where, f"queue-{depth}"), settings), settings)
        for depth in depths
    ]
    try:
        for line, depth in zip(lines, depths, strict=True):
            await line.fill(depth)
            for _ in range(WARMUP):
                await line.once()
        took: list[list[int]] = [[] for _ in lines]
        while len(took[0]) < rounds:
            for line, mine in zip(lines, took, strict=True):
                mine += [await line.once() for _ in range(BLOCK)]
    finally:
        for line in lines:
            await line.store.close()
    medians = [statistics.median(each) for each in took]
    return {
        "by_waiting": [
            {
                "waiting": depth, "p50_ms": ms(median),
                "p99_ms": ms(statistics.quantiles(each, n=100)[98]),
            }
            for depth, median, each in zip(depths, medians, took, strict=True)
        ],
        "ratio": round(medians[-1] / medians[0], 2),
    }  # fmt: skip


class _Line:
    """One session with a queue, and a runner that ends turns as fast as they come."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self._settings = store, settings

    async def fill(self, depth: int) -> None:
        control, me = self.store.control, self.store.owner
        await control.register(me)
        await control.register_runner(me.owner_id, ["main"], permanent=True)
        for start in range(0, depth, BLOCK):  # The writer commits together what comes together.
            count = min(BLOCK, depth - start)
            await asyncio.gather(*(self._admit() for _ in range(count)))

    async def once(self) -> int:
        """Nanoseconds of one more and one less."""
        control, start = self.store.control, perf_counter_ns()
        await self._admit()
        leased = await control.pick(self.store.owner.owner_id, {"main"}, self._settings.lanes)
        assert leased is not None
        await control.commit(leased.turn.turn_id, leased.token, _REPLY)
        return perf_counter_ns() - start

    async def _admit(self) -> None:
        me = self.store.owner.owner_id
        asked = admission.asked(
            self._settings, KEY, _TEXT, lane="user", source="bench", policy=None,
            idempotency_key=None, model=None, bound=False, home=lambda _: me,
        )  # fmt: skip
        await self.store.control.admit(asked, self._settings.agents)
