"""
A failing provider, or a restart, ran the whole turn again (openclaw #149430, #29106, #121507).

What happened there: the next model, and the next process, began the turn from its question:
tools did again what they had done, and the user was told twice.  Who sent the message once
more because nothing had come got a second turn.

What happens here: a payment is made, the provider fails behind it, is asked again, and the
gateway dies in that answer.  The next one goes on behind the payment.  The same message, sent
again before and after, is the one that was accepted; its reply has one key, although the
receiver's answer was lost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast._runtime.made import MadeSoFar
from holdfast._runtime.sending import Sending
from holdfast._runtime.tools import Tools
from support.played import played

NAME = "said-and-done-twice"


async def test_it_is_done_once_and_said_once(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["payments"] == 1
    assert saw.facts["turns"] == 1
    assert saw.facts["replies"] == [["It is paid"]]
    assert saw.facts["arrived_at_the_user"] == ["It is paid"]


async def test_a_turn_that_begins_from_its_question_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(_: Tools, call: Any, run: Callable[[], Awaitable[Any]]) -> Any:
        del call
        return await run()

    monkeypatch.setattr(MadeSoFar, "begin", lambda _: ())
    monkeypatch.setattr(Tools, "__call__", at_once)
    saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["payments"] == 2


async def test_a_message_that_is_a_new_one_each_time_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Sending.submit

    async def submit(self: Sending, key: str, text: str, **more: Any) -> Any:
        more.pop("idempotency_key", None)
        return await real(self, key, text, **more)

    monkeypatch.setattr(Sending, "submit", submit)
    saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["turns"] == 3
