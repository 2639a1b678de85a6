"""
Renaming a conversation while it was answered was a takeover (issue #93193).

What happened there: the fence let two kinds of line pass; a new name (`session_info`), a
label, another model (`model_change`), a plugin's `custom` line or a delivery on a side branch
was "session file changed while embedded prompt lock was released", and the reply was lost.

What happens here: whatever is appended is no takeover, of whatever type, known or not.  The
reply goes after it, on the branch, and what was renamed stays renamed.
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
from support.incident import KEY, Gate, appends, entries, nobody_is_blocked, said, texts

MESSAGE = {"role": "assistant", "content": [{"type": "text", "text": "delivered"}]}
WRITTEN: dict[str, dict[str, Any]] = {
    "custom": {"customType": "openclaw.cache-ttl", "data": {"ttl": 300}},
    "custom_message": {"customType": "notice", "content": "hm", "display": False},
    "label": {"targetId": "x", "label": "important"},
    "session_info": {"name": "Holiday"},
    "model_change": {"provider": "other", "modelId": "m2"},
    "thinking_level_change": {"thinkingLevel": "high"},
    "of_the_future": {"anything": [1, 2, 3]},
    "message": {"appendMode": "side", "message": MESSAGE},
}


@pytest.mark.parametrize("kind", WRITTEN)
async def test_the_reply_goes_after_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "talk.jsonl"
    async with holdfast.Attempt(path) as attempt:
        [asked] = await attempt.append(said("q", "user"))
        async with attempt.prompt_window() as window:
            other = appends(path, type=kind, **WRITTEN[kind])
        assert [e["id"] for e in window.entries] == [other["id"]], "nobody was told of it"
        [reply] = await attempt.append({**_built_on(asked), "message": said("the reply")})
    side = kind == "message"
    assert reply["parentId"] == (asked["id"] if side else other["id"])
    assert entries(path)[1] == other, "what others wrote has changed"
    assert texts(path)[-1] == "the reply"
    await nobody_is_blocked(path)


def _built_on(asked: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "parentId": asked["id"]}


async def test_all_of_them_at_once_cost_a_turn_nothing(tmp_path: Path) -> None:
    gate = Gate()
    model = ScriptedModel([Say(("the ", "reply"))], gate=gate)
    async with holdfast.open(tmp_path, agent=model) as hf:
        receipt = await hf.submit(KEY, "hello")
        await gate.reached.wait()
        path = oracle.only_transcript(tmp_path)
        for kind, fields in WRITTEN.items():
            if fields.get("appendMode") != "side":
                appends(path, type=kind, **fields)
        gate.opened.set()
        outcome = await receipt.outcome(20)
        assert (outcome.text, outcome.attempts) == ("the reply", 1)
        await (await hf.submit(KEY, "next")).outcome(20)
    found = oracle.read(path)
    oracle.check_whole(found)
    assert list(oracle.check_answers(found)) == ["hello", "next"]
    assert "Holiday" in path.read_text()
    assert "the reply" in json.dumps(model.prompts[1].history)
    assert len(model.prompts) == 2
