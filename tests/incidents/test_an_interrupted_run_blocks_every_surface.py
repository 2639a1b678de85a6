"""
An interrupted run blocked every surface (openclaw #128762).

What happened there: a run was interrupted, its "active turn claim" stayed, and whatever was
sent to the session from then on was refused: from the web, from the channels, from the
terminal.  The user went back a version.

What happens here: one run is interrupted by a kill of its gateway, another by a person while
its model hears nothing.  Both sessions answer every surface; the first run is repeated, the
second ended; no claim is left although the deaf model has not even noticed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast._runtime.reaping import Reaper
from holdfast._runtime.recovery import Recovery
from support.played import played, soon

NAME = "a-turn-claim-stays"


async def test_every_surface_is_answered_again(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts == {
        "killed_run": "replied", "interrupted_run": "cancelled",
        "every_surface_of_both": {"replied": 9}, "claims_left": 0,
    }  # fmt: skip


async def test_claims_that_outlive_their_owners_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr(Reaper, "end", lambda *_: None)
    monkeypatch.setattr(Recovery, "end_attempt", nothing)
    with soon():
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["killed_run"] == "nothing"
    assert saw.facts["claims_left"] == 1
