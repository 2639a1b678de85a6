"""
The suite that every store must pass: what the runtime relies on, and nothing else.

Each clause is an async function of a factory; calling the factory again opens the *same*
store as another owner, as another process would.

    @pytest.mark.parametrize("clause", conformance.CLAUSES, ids=conformance.name)
    async def test_my_store(clause):
        await clause(lambda: MyStore(...))

A clause raises AssertionError when the store breaks its promise.
"""

from __future__ import annotations

from typing import Any

from holdfast.testing import _conform_admission, _conform_leases, _conform_transcripts
from holdfast.testing._conform import CLAUSES

__all__ = ["CLAUSES", "name"]

#: Importing a part puts its clauses into the suite.
PARTS = (_conform_admission, _conform_leases, _conform_transcripts)


def name(clause: Any) -> str:
    """A clause's name, for test ids."""
    return str(clause.__name__)
