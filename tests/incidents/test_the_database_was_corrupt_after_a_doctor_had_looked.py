"""
The database was corrupt after a doctor had looked at it (hermes-agent #110106, #109786, #73411).

What happened there: several processes had one SQLite database.  One that only looked, a
doctor, a shell, closed it and took the log away from under a gateway that had it open: the
gateway had opened and closed the file itself, and with that lost its locks.  It wrote on into
a file that was deleted, until the database was malformed.  And a turn that met a busy database
gave up after 1.3 seconds.

What happens here: nobody opens the file beside SQLite, so no log goes while it is held; and
who meets a busy store waits for its place in the line.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.lab.scenarios.writing import one_store_many_processes
from support.mutant_players import known_to_children
from support.played import played


async def test_whoever_looks_takes_nothing_away_and_nobody_gives_up(tmp_path: Path) -> None:
    saw = await played("many-processes-on-one-database", tmp_path)
    assert saw.ok, saw.story
    assert saw.facts == {
        "outcomes": ["replied"], "files_that_went_under_their_holders": 0, "integrity": "ok",
        "turns_in_the_rows": 18, "seen_in_each_session": [6, 6, 6],
    }  # fmt: skip


async def test_a_gateway_that_touches_the_file_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_to_children(monkeypatch)
    saw = await one_store_many_processes(
        str(tmp_path), gateway="support.mutant_players:counts_and_touches"
    )
    assert not saw.ok
    assert saw.facts["files_that_went_under_their_holders"] > 0


async def test_a_gateway_without_patience_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_to_children(monkeypatch)
    saw = await one_store_many_processes(
        str(tmp_path), gateway="support.mutant_players:counts_impatiently"
    )
    assert not saw.ok
    assert "store_unavailable" in saw.facts["outcomes"]
