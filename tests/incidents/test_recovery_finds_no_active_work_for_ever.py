"""
Recovery found "no active work", for ever (openclaw #125980).

What happened there: recovery and a newer writer changed one row at once; recovery lost the
comparison and gave up.  From then on the watchdog looked for something that ran, found
nothing, said `no_active_work` and did nothing; the lane stood until a restart.

What happens here: three processes recover one dead run at once; one does it, the others were
late, and so is who comes with old news.  A claim behind which nothing runs is seen by the
process in whose name it stands, and put back; what waited behind it is answered.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast._runtime.runner import Runner
from support.played import played, soon

NAME = "recovery-gives-up"


async def test_one_of_them_recovers_it_and_a_claim_without_a_run_is_put_back(
    tmp_path: Path,
) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["fenced_by_so_many"] == 1
    assert saw.facts["old_news_change_nothing"] is True
    assert saw.facts["found_and_put_back"] is True
    assert saw.facts["outcomes"] == ["replied"] * 4


async def test_a_process_that_believes_its_claims_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runner, "runs", lambda *_: True)
    with soon(5):
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["found_and_put_back"] is False
    assert saw.facts["claims_left"] == 1
