"""
A session "already has an active writer", who does nothing (codex #38297, #39823, #38150).

What happened there: at first two writers of one thread were merged (#33241).  Then each thread
had one writer, by a lock; and a window that was open somewhere, or a server whose parent had
died, kept everybody out, without a word of who it was or what to do.

What happens here: who waits is told who holds the session, by pid and turn.  Asked to let go,
an idle owner does.  A stopped one cannot answer, and is named with what to do about it.  A
dead one is found without anybody asking.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.lab.scenarios.handing import idle_owner
from support.mutant_players import known_to_children
from support.played import played, soon


async def test_it_lets_go_or_is_named_or_is_found_dead(tmp_path: Path) -> None:
    saw = await played("the-session-has-an-owner-who-does-nothing", tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["asked_to_let_go"] == "let_go"
    assert saw.facts["and_its_own_turn"] == ["cancelled", "handed_over"]
    assert saw.facts["said_of_it"] == [["frozen", True]]
    assert saw.facts["behind_the_dead_one"] == "replied"
    assert saw.facts["left_behind"] == [0, 0]


async def test_an_owner_that_does_not_listen_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_to_children(monkeypatch)
    with soon():
        saw = await idle_owner(str(tmp_path), sits="support.mutant_players:sits_deaf")
    assert not saw.ok
    assert saw.facts["asked_to_let_go"] is None
    assert saw.facts["behind_the_idle_one"] == "nothing"
