"""
A person's reply was dropped because a heartbeat had written first (issue #85913).

What happened there: while a channel's reply streamed, a heartbeat, or the mirror of the main
session, appended to the same file (36 and 60 of the 122 takeovers).  The fence knew only two
kinds of line, ``delivery-mirror`` and ``gateway-injected`` of an assistant, and poisoned the
attempt for any other: the finished reply of a run of up to 22 minutes (1,303,727 ms) was lost.

What happens here: whatever is appended in between stays, the reply goes after it, and the
next prompt knows of both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Say
from support import oracle
from support.incident import APPEND, KEY, Gate, in_another_process

BEAT = {"role": "user", "content": [{"type": "text", "text": "heartbeat"}]}
OK = {"role": "assistant", "content": [{"type": "text", "text": "HEARTBEAT_OK"}]}
MIRROR = {**OK, "provider": "openclaw", "model": "delivery-mirror"}


@pytest.mark.parametrize(
    "written", [(BEAT, OK), (BEAT,), (MIRROR, BEAT)], ids=["heartbeat", "its prompt", "mirror"]
)
async def test_the_reply_goes_after_what_the_heartbeat_wrote(
    tmp_path: Path, written: tuple[dict[str, Any], ...]
) -> None:
    gate = Gate()
    model = ScriptedModel([Say(("the ", "reply"))], gate=gate)
    async with holdfast.open(tmp_path, agent=model) as hf:
        receipt = await hf.submit(KEY, "hello")
        await gate.reached.wait()
        path = oracle.only_transcript(tmp_path)
        for n, message in enumerate(written):
            parent = oracle.read(path)[-1]["id"]
            entry = {"type": "message", "id": f"beat{n}", "parentId": parent}
            await in_another_process(APPEND, path, json.dumps({**entry, "message": message}))
        gate.opened.set()
        outcome = await receipt.outcome(20)
        assert (outcome.kind, outcome.text, outcome.attempts) == ("replied", "the reply", 1)
        await (await hf.submit(KEY, "and then")).outcome(20)
    entries = oracle.read(path)
    oracle.check_whole(entries)
    [reply, _] = oracle.finals(entries)
    assert reply["parentId"] == f"beat{len(written) - 1}"
    told = json.dumps(model.prompts[-1].history)
    assert "the reply" in told
    assert all(m["content"][0]["text"] in told for m in written), "forgotten"
    assert len(model.prompts) == 2


async def test_a_heartbeat_of_ours_waits_until_the_person_has_its_reply(tmp_path: Path) -> None:
    gate = Gate()
    model = ScriptedModel([Say(("the ", "reply"))], gate=gate)
    async with holdfast.open(tmp_path, agent=model) as hf:
        async with hf.turn(KEY, "before") as turn:
            await turn.reply("x")
        await hf.add_alias("agent:main:main:heartbeat", KEY)
        person = await hf.submit(KEY, "hello")
        await gate.reached.wait()
        beat = await hf.submit("agent:main:main:heartbeat", "beat", lane="heartbeat")
        assert beat.session_id == person.session_id
        assert (beat.position, beat.waiting_for) == (1, "turn")
        gate.opened.set()
        assert (await person.outcome(20)).text == "the reply"
        assert (await beat.outcome(20)).kind == "replied"
    answers = oracle.check_answers(oracle.read(oracle.only_transcript(tmp_path)))
    assert answers == {"before": "x", "hello": "the reply", "beat": "reply to: beat"}
