"""The memory store keeps every promise that the runtime relies on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast._core.settings import Settings
from holdfast.backends.memory import MemoryStore, World
from holdfast.ports import Guarantees, Store
from holdfast.testing import conformance
from holdfast.types import Session


@pytest.mark.parametrize("clause", conformance.CLAUSES, ids=conformance.name)
async def test_memory(clause: Any) -> None:
    world = World()
    await clause(lambda: MemoryStore(world, Settings()))


@pytest.mark.parametrize("clause", conformance.REWRITES, ids=conformance.name)
async def test_memory_rewritten(clause: Any) -> None:
    world = World()

    def rewrite(
        _: Store, session: Session, change: Callable[[list[bytes]], list[bytes]]
    ) -> None:
        world.rewrite(session.session_id, change)

    await clause(lambda: MemoryStore(world, Settings()), rewrite)


@pytest.mark.parametrize("clause", conformance.CLOCKS, ids=conformance.name)
async def test_memory_in_time(clause: Any) -> None:
    now_ms = [1_000_000]

    def step(milliseconds: int) -> None:
        now_ms[0] += milliseconds

    world = World(monotonic=lambda: (now_ms[0] + 0.5) / 1000)
    await clause(lambda: MemoryStore(world, Settings()), step)


def test_what_it_promises_beyond_the_suite() -> None:
    store = MemoryStore(World(), Settings())
    assert store.guarantees == Guarantees.FENCES_APPENDS | Guarantees.WAKES_WAITERS
