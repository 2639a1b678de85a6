"""
Replies, and what users had written, were lost without a word (openclaw 12.5, the most common
label of all; #84059, #127736, #93625, #85913).

What happened there: a gateway that died in its first model call had not written the question
anywhere; a heartbeat, a job or a queued message that failed was nobody's; a failure that was
told was told as another.

What happens here: messages of all lanes in three sessions are accepted, and the gateway is
killed in its first model calls.  Each has an outcome afterwards, each question stands once,
and the one that no model will ever answer says why.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast._runtime.reaping import Reaper
from support.played import played, soon

NAME = "lost-without-a-word"


async def test_whoever_was_told_accepted_is_told_an_outcome(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["outcomes"] == {"failed": 1, "replied": 12}
    assert saw.facts["said_of_the_failure"] == ["auth", True]
    assert saw.facts["questions_that_stand_once"] == 13


async def test_a_gateway_that_leaves_dead_runs_alone_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reaper, "end", lambda *_: None)
    with soon():
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["without_an_outcome"] > 0
