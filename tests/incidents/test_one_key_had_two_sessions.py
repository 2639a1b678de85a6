"""
One key had two sessions (openclaw #85404).

What happened there: who came first to a key made its session; two that came at once made two.
The lane put their runs one behind the other, but each had asked which session it was before
it stood in the lane, so half of the conversation was in another file.

What happens here: the transaction that accepts a message says which session it is for.  Four
processes write to a fresh key at once, in different spellings: one session, asked in the order
of acceptance, each turn knowing all before it.  A reset moves the key with all who wait.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.lab.scenarios import identity
from support.played import played

NAME = "one-key-two-sessions"


async def test_one_key_has_one_session_and_a_reset_moves_who_waits(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["sessions"] == 1
    assert saw.facts["asked_in_the_order_of_acceptance"] is True
    assert saw.facts["each_knew_all_before_it"] is True
    assert saw.facts["answered_in"] == ["old", "new", "new"]
    assert saw.facts["transcripts"] == 2


async def test_a_second_session_is_noticed(tmp_path: Path) -> None:
    keys = (identity.DESK, f"{identity.DESK}2")
    saw = await identity.one_key_two_sessions(str(tmp_path), keys=keys)
    assert not saw.ok
    assert saw.facts["sessions"] == 2
    assert saw.facts["each_knew_all_before_it"] is False
    assert saw.facts["transcripts"] == 3
