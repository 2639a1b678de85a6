"""
A message was dropped because a compaction took longer than anybody waits (openclaw #129368).

What happened there: the lock was held for the summarising model call as well, 300 to 720 s; a
message waited 60 s for it.  The two bounds made the drop certain, and nobody tried again.

What happens here: a wait for the lock that runs out costs nothing.  The turn is back in its
place and says what it waits for, `why` names who has it, and afterwards everybody is answered
in order; a reply that was finished meanwhile is kept, and its model is not asked again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast._runtime.attempt import Attempt
from holdfast.errors import LockWaitError
from support.played import played, soon

NAME = "a-compaction-holds-the-lock"


async def test_everybody_is_answered_when_it_ends(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["outcomes"] == ["replied"] * 3
    assert saw.facts["attempts"] == [1, 1, 1]
    assert saw.facts["model_calls"] == ["a long question", "message 1", "message 2"]


async def test_contention_that_counts_as_a_failure_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Attempt.failed

    async def gives_up(attempt: Attempt, error: Any) -> Any:
        if isinstance(error, LockWaitError):
            return await attempt.fail("lock_timeout", error)
        return await real(attempt, error)

    monkeypatch.setattr(Attempt, "failed", gives_up)
    with soon():
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert "failed" in saw.facts["outcomes"]
