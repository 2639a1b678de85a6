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


def test_what_it_promises_beyond_the_suite() -> None:
    store = MemoryStore(World(), Settings())
    assert store.guarantees == Guarantees.FENCES_APPENDS | Guarantees.WAKES_WAITERS
