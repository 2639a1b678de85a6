"""
What a dead process had claimed was nobody's any more (openclaw #90940).

What happened there: events were claimed before they were worked on.  A process that died in
between left them claimed; no other ever took them, and no restart gave them back.

What happens here: gateways die with a message claimed and not begun and its transcript's lock
held; in a run, with a message steered into it and a program's own turn waiting; and while a
reply is being sent.  Each of these names its owner, and the owner's death gives it back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast._runtime.reaping import Reaper
from holdfast._runtime.recovery import Recovery
from holdfast.backends.files.control.store import FilesControl
from holdfast.lab.scenarios import stuck
from support.played import played, soon

NAME = "claims-are-never-released"


async def test_every_kind_of_claim_is_given_back(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    for name, ends in stuck.ENDS.items():
        assert saw.facts[f"{name}_outcomes"] == ends
        assert saw.facts[f"{name}_left_waiting_leased_owed_locked"] == [0, 0, 0, 0]


@pytest.mark.parametrize("claim", ["leased", "running"])
async def test_a_session_that_stays_claimed_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claim: str
) -> None:
    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr(stuck, "DEATHS", {claim: stuck.DEATHS[claim]})
    monkeypatch.setattr(Reaper, "end", lambda *_: None)
    monkeypatch.setattr(Recovery, "end_attempt", nothing)
    with soon():
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert "nothing" in saw.facts[f"{claim}_outcomes"]


async def test_a_programs_own_turn_that_nobody_ends_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stays(recovery: Recovery, turn_id: Any, *_: object) -> Any:
        return await recovery._store.control.turn(turn_id)

    monkeypatch.setattr(stuck, "DEATHS", {"running": stuck.DEATHS["running"]})
    monkeypatch.setattr(Recovery, "end_waiting", stays)
    with soon():
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert "nothing" in saw.facts["running_outcomes"]


async def test_a_part_that_stays_claimed_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody disowns a dead owner's deliveries, neither at burial nor when asked to."""

    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr(stuck, "DEATHS", {"delivering": stuck.DEATHS["delivering"]})
    monkeypatch.setattr(stuck, "followed", nothing)
    monkeypatch.setattr(FilesControl, "bury", nothing)
    monkeypatch.setattr(FilesControl, "disown_deliveries", nothing)
    with soon():
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    left = saw.facts["delivering_left_waiting_leased_owed_locked"]
    assert left == [0, 0, 1, 0]
