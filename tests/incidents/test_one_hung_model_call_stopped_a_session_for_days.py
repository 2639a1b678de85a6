"""
One hung model call stopped a session, and its lane, for days (openclaw #92270, #85639, #91700).

What happened there: a run did not move any more, and all that came after it stood behind it:
for 14 hours, for 23 days.  Recovery saw it and released nothing: `released=0`, because a fresh
message had come meanwhile.  Restarts did not empty the queue.

What happens here: the run is told of, ended, tried once more and given up with its reason;
what waits in its session runs in order, the fresh message with it, and so does what waits for
its lane's slot.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast._runtime.reaping import Reaper
from holdfast._runtime.run import Run
from holdfast.lab.scenarios import leaks
from support.played import played, soon

NAME = "stuck-for-days"


async def test_everything_behind_it_runs(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["the_hung_turn"] == ["failed", "no_progress", 2]
    assert saw.facts["the_others"] == ["replied"] * 5
    assert saw.facts["left_behind"] == [0, 0]


async def test_a_run_that_nobody_judges_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = {"turn.progress_timeout_ms": 3_600_000, "models.idle_timeout_ms": 3_600_000}
    monkeypatch.setattr(leaks, "MOVES", {**leaks.MOVES, "recovery.warn_ms": 3_600_000, **hour})
    with soon():
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert not saw.facts["told_of_it"]
    assert saw.facts["the_others"] == ["nothing"] * 5


async def test_a_recovery_that_releases_nothing_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "abort", lambda *_: None)
    monkeypatch.setattr(Reaper, "end", lambda *_: None)
    with soon():
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["told_of_it"]
    assert saw.facts["the_others"] == ["nothing"] * 5
