"""
Typing in bursts left messages `interrupted` for good (openclaw #148707).

What happened there: several messages in a row, each steering, superseding or interrupting the
one before: 8 of 31 sessions failed, and 35 of the users' messages stayed `interrupted`, never
answered and never put back.

What happens here: 31 sessions, four messages each, by three policies, and the gateway is
killed in the middle.  Each message is answered by its own turn or by one that took it in, its
question stands once; cancelled is only what a policy says is, and its sender is told.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast._runtime import merging, steering
from holdfast._runtime.attempt import Attempt
from holdfast._runtime.reaping import Reaper
from support.played import played, soon

NAME = "burst-typing"


async def test_every_message_of_every_burst_has_its_outcome(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts == {
        "unknown_outcomes": [], "stuck": 0, "cancelled_by_policy": [],
        "sessions_answered": 31, "answered_and_not_asked_exactly_once": 0,
        "left_behind": [0, 0],
    }  # fmt: skip


async def test_a_gateway_that_leaves_dead_runs_alone_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reaper, "end", lambda *_: None)
    with soon(6):
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["stuck"] > 0


async def test_a_message_that_counts_as_answered_without_having_been_asked_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn takes nothing in, and claims to have answered all that was sent to it."""

    def everything(held: Any, hosted: Any, parent: Any, host: Any) -> tuple[Any, ...]:
        return tuple(turn.turn_id for turn in hosted)

    async def nothing(*_: Any) -> Any:
        return (), ()

    async def alone(attempt: Attempt) -> Any:
        attempt._leased = replace(attempt._leased, merges=())
        return await real(attempt)

    real = Attempt.begin
    monkeypatch.setattr(merging, "answered", everything)
    monkeypatch.setattr(steering, "taken_in", nothing)
    monkeypatch.setattr(Attempt, "begin", alone)
    saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["answered_and_not_asked_exactly_once"] > 0
