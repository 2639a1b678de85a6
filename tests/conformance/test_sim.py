"""
The simulator's store keeps every promise that the runtime relies on.

Its control is in memory; its transcripts are written by the files code, lock and all, on a
simulated disk.  Here nobody is interrupted: the clauses run on the test's own event loop.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("greenlet", reason="the simulator needs greenlet (the extra `sim`)")

from holdfast.testing import conformance, sim


@pytest.mark.parametrize("clause", conformance.CLAUSES, ids=conformance.name)
async def test_simulated(clause: Any) -> None:
    with sim.stores() as make:
        await clause(make)
