"""
A message to another session was accepted, and then dropped (openclaw #98415).

What happened there: `accepted` meant put into a list in memory.  The message waited for its
session's lock, timed out after 60 s, and was dropped; its caller was never told.

What happens here: accepted is a row.  It outlives its caller, even one that died before it
heard the word; it has no time-out; it ends with an outcome and, if it failed, with the
reason.  Who does not want to wait is told so at once.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.lab.scenarios import waiting
from support.played import played, soon

NAME = "accepted-then-dropped"


async def test_what_was_accepted_outlives_its_caller_and_is_answered(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts == {
        "who_will_not_wait_is_told": "RejectedError",
        "accepted_and_kept": [True, True], "third_was_accepted_before": True,
        "outcomes": ["replied", "replied", "failed", "replied"],
        "told_why_it_failed": ["auth"],
        "asked_once_each": ["a long question", "one", "two", "wrong key"],
    }  # fmt: skip


@pytest.mark.parametrize("told_where", ["memory", "elsewhere"])
async def test_an_acceptance_that_only_its_caller_knows_of_is_noticed(
    tmp_path: Path, told_where: str
) -> None:
    where = "memory:" if told_where == "memory" else str(tmp_path / "elsewhere")
    with soon(10):
        saw = await waiting.accepted_then_dropped(str(tmp_path / "s"), callers_store=where)
    assert not saw.ok
    assert saw.facts["accepted_and_kept"] == [False, False]
    assert saw.facts["third_was_accepted_before"] is False
