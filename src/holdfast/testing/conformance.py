"""
The suite that every store must pass: what the runtime relies on, and nothing else.

Each clause is an async function of a factory; calling the factory again opens the *same*
store as another owner, as another process would.  Give each clause a store of its own.

    @pytest.mark.parametrize("clause", conformance.CLAUSES, ids=conformance.name)
    async def test_my_store(clause):
        world = MyWorld()
        await clause(lambda: MyStore(world))

Where a transcript can be changed behind the store's back (an editor, a restore), there are
more clauses, of a factory and of something that does it: it is given a store, a session and
a function from all lines to all lines (bytes, the header first), and puts what that returns
in their place.

    @pytest.mark.parametrize("clause", conformance.REWRITES, ids=conformance.name)
    async def test_my_store_rewritten(clause):
        await clause(lambda: MyStore(...), my_rewrite)

Where a store's clock can be moved on by hand, there are more, of a factory and of something
that does it: it is given milliseconds.

    @pytest.mark.parametrize("clause", conformance.CLOCKS, ids=conformance.name)
    async def test_my_store_in_time(clause):
        await clause(lambda: MyStore(...), my_step)

A clause raises AssertionError when the store breaks its promise.  What only some stores
promise (`ports.Guarantees`) is asked of those whose `guarantees` declare it.  Whatever has to
happen at once is waited for with a bound, so a clause ends also where a store never answers.
"""

from __future__ import annotations

from typing import Any

from holdfast.testing import (
    _conform_admission,
    _conform_deliveries,
    _conform_ends,
    _conform_leases,
    _conform_live,
    _conform_making,
    _conform_merges,
    _conform_order,
    _conform_owed,
    _conform_owners,
    _conform_pages,
    _conform_pick,
    _conform_policies,
    _conform_reading,
    _conform_recovery,
    _conform_rewrites,
    _conform_telling,
    _conform_transcripts,
    _conform_waits,
    _conform_writing,
)
from holdfast.testing._conform import CLAUSES, CLOCKS, REWRITES

__all__ = ["CLAUSES", "CLOCKS", "REWRITES", "name"]

#: Importing a part puts its clauses into the suite.
PARTS = (
    _conform_admission,
    _conform_pick,
    _conform_order,
    _conform_leases,
    _conform_policies,
    _conform_ends,
    _conform_merges,
    _conform_waits,
    _conform_owners,
    _conform_reading,
    _conform_recovery,
    _conform_transcripts,
    _conform_pages,
    _conform_writing,
    _conform_rewrites,
    _conform_live,
    _conform_making,
    _conform_deliveries,
    _conform_owed,
    _conform_telling,
)


def name(clause: Any) -> str:
    """A clause's name, for test ids."""
    return str(clause.__name__)
