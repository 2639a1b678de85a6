"""
A conversation that goes on for years: its next turn is as quick and as right as its first.

The transcript is 30 MB, written by hand; a compaction near its end has kept a little of it.
"""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.backends.files.transcript import loaded
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Say
from support import oracle
from support.crowd import Member

KEY = "agent:main:main"
SIZE = 30_000_000
KEPT = 40  #: Messages that the compaction has kept, and as many stand behind it.


def entry(number: int, **more: Any) -> dict[str, Any]:
    role = "assistant" if number % 2 else "user"
    return {
        "type": "message", "id": f"{number:08x}",
        "parentId": f"{number - 1:08x}" if number else None,
        "timestamp": "2026-06-01T10:00:00.000Z",
        "message": {"role": role, "content": f"text {number} " + "x" * 900}, **more,
    }  # fmt: skip


def years() -> list[bytes]:
    """Its lines, without a header."""
    count = SIZE // 1050
    entries = [entry(n) for n in range(count)]
    kept = entries[-2 * KEPT]["id"]
    entries[-KEPT] |= {"type": "compaction", "firstKeptEntryId": kept, "summary": "they talked"}
    return [json.dumps(each).encode() + b"\n" for each in entries]


def put_in_front(path: Path) -> int:
    """Years of talk between the header and what stands behind it.  Returns: how many."""
    header, *rest = path.read_bytes().splitlines(keepends=True)
    lines = years()
    if rest:  # What we wrote goes on where they have ended.
        first = json.loads(rest[0])
        rest[0] = (
            json.dumps({**first, "parentId": json.loads(lines[-1])["id"]}).encode() + b"\n"
        )
    path.write_bytes(b"".join([header, *lines, *rest]))
    assert path.stat().st_size > SIZE - 1_000_000 > loaded.KEPT_BYTES_MAX
    return len(lines)


def expected(count: int) -> list[str]:
    numbers = [*range(count - 2 * KEPT, count - KEPT), *range(count - KEPT + 1, count)]
    return ["they talked", *(f"text {n}" for n in numbers)]


def told(history: Any) -> list[str]:
    found = []
    for message in history:
        content = message.get("summary") or message["content"]
        found.append(content if isinstance(content, str) else content[0]["text"])
    return [text.partition(" x")[0] for text in found]


async def begun(state: Path) -> Path:
    """A session of one finished turn."""
    async with holdfast.open(state, agent=ScriptedModel([Say(("hello",))])) as hf:
        await (await hf.submit(KEY, "hi")).outcome(20)
    return oracle.only_transcript(state)


async def test_every_turn_of_a_long_conversation_is_told_what_came_before(
    tmp_path: Path,
) -> None:
    path = await begun(tmp_path)
    count = put_in_front(path)
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model) as hf:
        for text in ("one", "two", "three"):
            await (await hf.submit(KEY, text)).outcome(20)
    first, second, third = (told(prompt.history) for prompt in model.prompts)
    assert first == [*expected(count), "hi", "hello"]
    assert second == [*first, "one", "reply to: one"]
    assert third == [*second, "two", "reply to: two"]
    entries = oracle.read(path)
    oracle.check_whole(entries)
    assert len(entries) == count + 2 + 6


@pytest.mark.parametrize(
    ("point", "hit", "prompts"),
    [("append.written", 1, 1), ("append.written", 2, 0), ("commit.appended", 1, 0)],
)
async def test_what_a_crashed_turn_has_left_in_it_is_found(
    tmp_path: Path, point: str, hit: int, prompts: int
) -> None:
    """Its question is not asked twice, and a reply that stands there is booked, not run again."""
    with Member(state=str(tmp_path), name="a", kill_at=[point, hit]) as a:
        a.until("ready")
        a.go()
        assert await asyncio.to_thread(a.process.wait, 30) == -signal.SIGKILL
    path = oracle.only_transcript(tmp_path)
    count = put_in_front(path)
    if hit == 1 and point == "append.written":  # And much has been said since by others.
        with path.open("ab") as file:
            file.writelines(
                json.dumps(entry(n + 10_000_000, appendMode="side")).encode() + b"\n"
                for n in range(500)
            )
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model) as hf:
        [turn] = await hf.store.control.turns()
        outcome = await (await hf.receipt(turn.turn_id)).outcome(20)
    assert outcome.kind == "replied"
    assert len(model.prompts) == prompts, "a finished reply was asked for again"
    ours = [each for each in oracle.read(path) if "holdfast" in each]
    assert len(ours) == 2, "a question or a reply twice"
    assert list(oracle.check_answers(oracle.read(path))) == ["a user 0"]
    if prompts:
        assert told(model.prompts[0].history) == expected(count)


async def test_a_control_store_from_a_backup_does_not_run_a_turn_again(tmp_path: Path) -> None:
    """It knows less than the transcript: the reply that stands there is found all the same."""
    path = await begun(tmp_path)
    async with holdfast.open(tmp_path) as hf:
        receipt = await hf.submit(KEY, "later")
    backup = {
        each: each.read_bytes() for each in tmp_path.glob("control.db*") if each.is_file()
    }
    async with holdfast.open(tmp_path, agent=ScriptedModel([Say(("once",))])) as hf:
        assert (await (await hf.receipt(receipt.turn_id)).outcome(20)).text == "once"
    for each in tmp_path.glob("control.db*"):
        each.unlink()
    for each, data in backup.items():
        each.write_bytes(data)
    with path.open("ab") as file:  # Too long to be read whole.
        file.writelines(
            json.dumps(entry(n, parentId=None, appendMode="side")).encode() + b"\n"
            for n in range(900)
        )
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model) as hf:
        outcome = await (await hf.receipt(receipt.turn_id)).outcome(20)
    assert (outcome.kind, outcome.text) == ("replied", "once")
    assert model.prompts == []
