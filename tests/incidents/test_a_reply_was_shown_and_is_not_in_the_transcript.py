"""
A reply was shown to the user, and is not in the transcript (openclaw #134498).

What happened there: the reply was sent first and written afterwards; between the two the
gateway was restarted, and the conversation went on without what the user had read.

What happens here: a gateway is killed at each step from the finished reply to its arrival.
Nothing was ever shown that did not stand in the transcript; what stands there and was not
sent is sent by the next gateway, under one key, and its model is not asked again.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from holdfast._runtime.attempt import Attempt
from holdfast.lab.scenarios import replies
from holdfast.lab.scenarios._players import Mailbox
from support.played import played

NAME = "shown-but-not-kept"


async def test_nothing_is_shown_before_it_is_kept_and_what_is_kept_is_shown(
    tmp_path: Path,
) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    points = [point.replace(".", "_") for point, _ in replies.DEATHS]
    assert len(points) == 5
    for point in points:
        assert saw.facts[f"{point}_outcome"] == "replied"
        assert saw.facts[f"{point}_shown_before_it_was_kept"] == 0
        assert saw.facts[f"{point}_keys_that_arrived"] == 1
    again = {point: saw.facts[f"{point}_asked_again"] for point in points}
    assert again == {point: int(point == "append_checked") for point in points}


async def test_a_gateway_that_sends_first_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Attempt.finish
    first = replies.DEATHS[0]
    home = tmp_path / first[0].replace(".", "-")
    box = Mailbox(str(home), f"{home}.mailbox")

    async def sends_first(attempt: Attempt, said: Any) -> Any:
        text = said.messages[-1]["content"][0]["text"]
        await asyncio.to_thread(box.put, f"{attempt.turn.turn_id}.1", text)
        return await real(attempt, said)

    monkeypatch.setattr(replies, "DEATHS", (first,))
    monkeypatch.setattr(Attempt, "finish", sends_first)
    saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["append_checked_shown_before_it_was_kept"] == 1
