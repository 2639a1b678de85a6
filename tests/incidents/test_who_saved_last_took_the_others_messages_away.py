"""
Who saved last took the others' messages away (agno #7479, strands #1176, agentscope #2226).

What happened there: a session was one value, or one column of a row.  Two runs read it, each
added its own, each wrote all of it: what the first had saved was gone.  A lock did not help
where the state was read before it was taken.

What happens here: two processes count the replies of one conversation, six times each and all
at once.  Each turn is shown what stands when its lease begins, and adds to it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.lab.scenarios.writing import last_writer_wins
from support.mutant_players import known_to_children
from support.played import played


async def test_every_turn_sees_all_that_was_said(tmp_path: Path) -> None:
    saw = await played("last-writer-wins", tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["counted"] == [str(n) for n in range(1, 13)]


async def test_a_state_that_was_read_before_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_to_children(monkeypatch)
    saw = await last_writer_wins(
        str(tmp_path), gateway="support.mutant_players:counts_what_it_knew"
    )
    assert not saw.ok
    assert len(set(saw.facts["counted"])) < 12
