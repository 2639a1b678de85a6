"""
A pruned worker hid its jobs for ever (procrastinate #1518, dbos #804, restate #5196).

What happened there: even engines strand work.  One looked for unfinished work only when it
was started.  One tidied dead workers' rows away, and then looked for stalled jobs among the
workers that were left.  One held a key until an operator removed it by hand.

What happens here: of three workers one is killed and one is struck off the list with its
process.  The third was started before both, and is not started again: it takes what ran there
and what waited there, and the keys are free.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast._runtime.reaping import Reaper
from holdfast._runtime.recovery import Recovery
from support.played import played, soon

NAME = "a-pruned-worker-hides-its-jobs"


async def test_the_third_one_takes_all_of_it(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["rows_removed"] == 1
    assert saw.facts["outcomes"] == ["replied"] * 6
    assert saw.facts["left_behind"] == [0, 0]


async def test_who_looks_only_among_the_workers_that_are_left_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Reaper._reap

    def reap(self: Reaper, look: Any, known: set[Any], *more: Any) -> None:
        real(self, look, known | {lease.owner_id for lease in look.leases}, *more)

    monkeypatch.setattr(Reaper, "_reap", reap)
    with soon(5):
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["outcomes"].count("replied") == 3
    assert saw.facts["left_behind"][0] == 1


async def test_who_looks_only_when_it_is_started_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr(Reaper, "look", nothing)
    monkeypatch.setattr(Recovery, "end_attempt", nothing)
    with soon():
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert "nothing" in saw.facts["outcomes"]
