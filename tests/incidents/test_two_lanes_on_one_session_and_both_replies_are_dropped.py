"""
Two lanes on one session file, and both replies were dropped (issue #85913, PR #86067).

What happened there: lanes are queued by session *key*, and several keys lead to one file: in
three days 122 takeovers on 37 files; 60 by the mirror of the main session, 36 by heartbeats,
20 by a channel.  Both lanes gave the lock back for their prompts, both streamed, and whoever
came back second found a changed fingerprint: "All models failed", after the model had
answered.  With bytes of a third party in between, 0 of 2 replies were delivered, 2 takeovers;
with the file's own line of windows 1 of 2.

What happens here: one line of windows per file, whatever it is called, and what others
append is no takeover: 2 of 2, one after the other, the second built on the first.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.testing import ScriptedModel
from support import oracle
from support.crowd import Member
from support.incident import KEY, appends, nobody_is_blocked, said, texts, until

LANES = {
    "agent:main:telegram:direct:ann": "user",
    "agent:main:matrix:channel:room": "user",
    "agent:main:main:heartbeat": "heartbeat",
    "agent:main:cron:nightly": "cron",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk.jsonl"


async def test_both_have_their_reply_though_a_third_party_writes_in_between(path: Path) -> None:
    """The thread's own reproduction: A in its window, B behind it, strange bytes at 111 ms."""
    streaming, answered = asyncio.Event(), asyncio.Event()
    open_now: list[str] = []
    attempts: dict[str, holdfast.Attempt] = {}
    missed: dict[str, list[str]] = {}

    async def lane(name: str) -> None:
        async with holdfast.Attempt(path, lane=name) as attempt:
            attempts[name] = attempt
            await attempt.append(said(f"{name} asks", "user"))
            async with attempt.prompt_window() as view:
                missed[name] = [e["id"] for e in view.before]
                open_now.append(name)
                assert open_now == [name], "two prompts at once on one file"
                streaming.set()
                await answered.wait()
                open_now.remove(name)
            await attempt.append(said(f"{name} is answered"))

    first = asyncio.create_task(lane("heartbeat"))
    await streaming.wait()
    second = asyncio.create_task(lane("channel"))
    await until(lambda: "channel" in attempts and attempts["channel"].state == "in_line")
    stranger = appends(path)
    answered.set()
    await asyncio.gather(first, second)
    assert texts(path)[-2:] == ["heartbeat is answered", "channel is answered"]
    assert stranger["id"] in missed["channel"], "its prompt is built on an old history"
    assert len(missed["channel"]) == 2, "the first lane's reply is part of it"
    await nobody_is_blocked(path)


async def test_a_lane_that_talks_for_ever_holds_up_no_other_session(tmp_path: Path) -> None:
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    async with holdfast.Attempt(one) as slow, slow.prompt_window():
        async with holdfast.Attempt(other, timeout_s=2, queue_timeout_s=2) as quick:
            async with quick.prompt_window():
                pass
            await quick.append(said("answered"))
    assert texts(other) == ["answered"]


async def test_all_keys_of_one_conversation_are_answered_in_one_file(tmp_path: Path) -> None:
    """The histogram's lanes, all at once, in two gateways over one state directory."""
    model = ScriptedModel()
    async with (
        holdfast.open(tmp_path, agent=model) as one,
        holdfast.open(tmp_path, agent=model) as two,
    ):
        await (await one.submit(KEY, "first")).outcome(20)
        for alias in LANES:
            await one.add_alias(alias, KEY)
        receipts = [
            await gateway.submit(key, f"{key} by {n}", lane=lane)
            for n, gateway in enumerate((one, two))
            for key, lane in LANES.items()
        ]
        outcomes = [await receipt.outcome(30) for receipt in receipts]
    assert [outcome.kind for outcome in outcomes] == ["replied"] * 8
    assert {outcome.attempts for outcome in outcomes} == {1}
    entries = oracle.read(oracle.only_transcript(tmp_path))
    oracle.check_whole(entries)
    assert len(oracle.check_answers(entries)) == 9
    assert len(model.prompts) == 9, "a finished reply was thrown away and asked for again"
    roles = [entry["message"]["role"] for entry in entries]
    assert roles == ["user", "assistant"] * 9


def test_two_processes_with_heartbeats_and_people_lose_nothing(tmp_path: Path) -> None:
    plan: dict[str, Any] = {
        "state": str(tmp_path),
        "lanes": ["user", "heartbeat"],
        "per_lane": 2,
        "settings": {"turn.heartbeats_yield": False},  # All are answered.
    }
    with Member(name="a", **plan) as a, Member(name="b", **plan) as b:
        for member in (a, b):
            member.until("ready")
        for member in (a, b):
            member.go()
        for member in (a, b):
            member.until("done")
        kinds = [each["kind"] for member in (a, b) for each in member.outcomes()]
        assert (a.end(), b.end()) == (0, 0)
    assert kinds == ["replied"] * 8
    entries = oracle.read(oracle.only_transcript(tmp_path))
    assert len(oracle.check_answers(entries)) == 8
    attempts = {each["holdfast"]["attempt"] for each in oracle.finals(entries)}
    assert attempts == {1}, "a reply was dropped and asked for again"
