"""
A superseded server reloads the session and writes on (adk-python #4751, #1733, #3717).

What happened there: each append compared the time of the last change.  Equal times were
called stale, and at other times a stale one was let in; later releases loaded the session
again and went on.  Two servers that resumed one conversation left their entries interleaved
in it for good, tool calls and all.

What happens here: the first server falls silent behind its tool, the second one takes its
turn over, and the file's time is set back to what it was.  The first wakes up, and writes
nothing: its token is not the newest.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.lab.scenarios.writing import reload_and_continue
from support.mutant_players import known_to_children
from support.played import played


async def test_it_writes_no_byte(tmp_path: Path) -> None:
    saw = await played("reload-and-continue", tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["written_by_it_afterwards"] == 0
    assert saw.facts["replies"] == [["1"], ["2"]]
    assert saw.facts["told_by_the_first"] == ["replied"]


async def test_one_that_does_not_ask_for_its_token_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_to_children(monkeypatch)
    saw = await reload_and_continue(
        str(tmp_path), server="support.mutant_players:counts_unfenced"
    )
    assert not saw.ok
    assert saw.facts["written_by_it_afterwards"] > 0
    assert saw.facts["replies"][0] == ["1", "1"]
