"""
Two keys of one session were locked apart (hermes #64934).

What happened there: a turn's lease was kept by routing key, and two keys led to one session.
Both ran, what they wrote was interleaved, question and answer no longer alternated, and from
then on every request of that session failed.

What happens here: a name is resolved first; what is queued, leased and locked is the session.
Two gateways answer one conversation by two names at once, and it reads as one.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.lab.scenarios import identity
from support.played import played

NAME = "two-keys-one-session"


async def test_two_names_are_one_conversation(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["sessions"] == 1
    assert saw.facts["they_alternate"] is True
    assert saw.facts["interleaved"] == 0
    assert saw.facts["both_are_known_to_the_next"] == 22


async def test_names_that_are_not_resolved_are_noticed(tmp_path: Path) -> None:
    saw = await identity.two_keys_one_session(str(tmp_path), aliased=False)
    assert not saw.ok
    assert saw.facts["sessions"] == 2
    assert saw.facts["both_are_known_to_the_next"] < 22
