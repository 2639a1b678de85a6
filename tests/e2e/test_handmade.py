"""
Transcripts made by hand from the format's description open, go on, and keep every byte.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.testing import ScriptedModel
from support import oracle

KEY = "agent:main:main"


def user(entry_id: str, parent: str | None, text: str, **more: Any) -> dict[str, Any]:
    body = {"role": "user", "content": text, "timestamp": 1795170000000}
    return {
        "type": "message", "id": entry_id, "parentId": parent,
        "timestamp": "2026-06-01T10:00:00.000Z", "message": body, **more,
    }  # fmt: skip


def assistant(entry_id: str, parent: str, text: str, **more: Any) -> dict[str, Any]:
    entry = user(entry_id, parent, "", **more)
    entry["message"] = {
        "role": "assistant", "content": [{"type": "text", "text": text}], "provider": "anthropic",
        "model": "opus", "usage": {"input": 3, "output": 5}, "stopReason": "stop",
        "__openclaw": {"mirrorIdentity": "x"},
    }  # fmt: skip
    return entry


HEADER = {
    "type": "session", "version": 3, "id": "0f8fad5b", "timestamp": "2026-06-01T09:00:00.000Z",
    "cwd": "/home/ann", "parentSession": "/somewhere/else.jsonl", "madeBy": "a program of 2027",
}  # fmt: skip

FILES: dict[str, tuple[list[Any], list[str]]] = {
    "unknown types and fields": (
        [
            user("a1b2c3d4", None, "hi", flavour={"deep": [1, 2.5, None, "ü"]}),
            {"type": "hologram", "id": "e5f6a7b8", "parentId": "a1b2c3d4", "beams": [1, 2, 3]},
            assistant("c9d0e1f2", "e5f6a7b8", "hello"),
        ],
        ["hi", "hello"],
    ),
    "labels and session info": (
        [
            user("00000001", None, "hi"),
            assistant("00000002", "00000001", "hello"),
            {"type": "label", "id": "00000003", "parentId": None, "targetId": "00000001", "label": "L"},
            {"type": "session_info", "id": "00000004", "parentId": "00000002", "name": "renamed"},
            {"type": "model_change", "id": "00000005", "parentId": "00000002", "provider": "x", "modelId": "y"},
            {"type": "thinking_level_change", "id": "00000006", "parentId": "00000005", "thinkingLevel": "low"},
        ],
        ["hi", "hello"],
    ),
    "compaction": (
        [
            user("00000001", None, "old question"),
            assistant("00000002", "00000001", "old answer"),
            user("00000003", "00000002", "kept question"),
            assistant("00000004", "00000003", "kept answer"),
            {
                "type": "compaction", "id": "00000005", "parentId": "00000004",
                "summary": "they talked", "firstKeptEntryId": "00000003", "tokensBefore": 9000,
                "details": {"readFiles": ["a"]}, "fromHook": True,
            },
        ],
        ["they talked", "kept question", "kept answer"],
    ),
    "side entries and a moved leaf": (
        [
            user("00000001", None, "hi"),
            assistant("00000002", "00000001", "hello"),
            assistant("00000003", "00000002", "mirrored", appendMode="side"),
            user("00000004", "00000002", "abandoned branch"),
            {"type": "leaf", "id": "00000005", "parentId": "00000004", "targetId": "00000002"},
            {"type": "custom", "id": "00000006", "parentId": "00000002", "customType": "openclaw.cache-ttl", "data": {"n": 1}},
            {"type": "custom_message", "id": "00000007", "parentId": "00000006", "customType": "note", "content": "mind", "display": True},
            {"type": "branch_summary", "id": "00000008", "parentId": "00000007", "fromId": "root", "summary": "elsewhere"},
        ],
        ["hi", "hello", "mind", "elsewhere"],
    ),
}  # fmt: skip


def written(entries: list[Any]) -> bytes:
    """As other programs write: other spacing, other key order, escapes, a CR in a string."""
    lines = [json.dumps(HEADER)]
    for n, entry in enumerate(entries):
        style = {
            "ensure_ascii": bool(n % 2),
            "separators": (", ", ":") if n % 3 else (",", ": "),
        }
        lines.append(json.dumps(entry, sort_keys=n % 2 == 0, **style))  # type: ignore[arg-type]
    return ("\n".join(lines) + "\n").encode()


def told(message: Any) -> str:
    content = message.get("summary") or message["content"]
    return content if isinstance(content, str) else content[0]["text"]


@pytest.mark.parametrize("name", FILES)
async def test_a_handmade_transcript_goes_on_and_keeps_every_byte(
    tmp_path: Path, name: str
) -> None:
    entries, expected = FILES[name]
    data = written(entries)
    async with holdfast.open(tmp_path) as hf:
        receipt = await hf.submit(KEY, "and now?")
        session = await hf.session(KEY)
        path = Path(hf.store.transcripts.path(session))
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model) as hf:
        outcome = await (await hf.receipt(receipt.turn_id)).outcome(10)
        assert outcome.text == "reply to: and now?"
        await (await hf.submit(KEY, "again")).outcome(10)
    assert path.read_bytes().startswith(data), "bytes that were there have changed"
    assert [told(m) for m in model.prompts[0].history] == expected
    after = oracle.read(path)
    oracle.check_whole(after)
    assert oracle.check_answers(after) == {
        "and now?": "reply to: and now?",
        "again": "reply to: again",
    }
    assert len(path.read_bytes().splitlines()) == len(entries) + 1 + 4
