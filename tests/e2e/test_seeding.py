"""`submit(seed=…, instructions=…)`: what a message brings along, through crashes and races."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import holdfast
from holdfast._core import jsonl
from holdfast._core.verify import verify
from holdfast._runtime import entries
from holdfast.errors import ProviderError
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Fail, Say
from holdfast.types import FencingToken
from support import oracle

KEY = "agent:main:main"
SEED = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi!"}]


def told(prompt: Any) -> list[tuple[str, str]]:
    return [(m["role"], oracle.text_of({"message": m})) for m in prompt.history]


def texts(state: Path) -> list[str]:
    found = oracle.read(oracle.only_transcript(state))
    return [oracle.text_of(entry) for entry in found if entry["type"] == "message"]


async def test_a_new_session_begins_with_its_seed_and_any_other_ignores_it(
    tmp_path: Path,
) -> None:
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model) as hf:
        for text in ("first", "second"):
            receipt = await hf.submit(KEY, text, seed=SEED, instructions=f"about {text}")
            assert (await receipt.outcome(30)).kind == "replied"
        await (await hf.submit(KEY, "third")).outcome(30)
    path = oracle.only_transcript(tmp_path)
    assert texts(tmp_path) == [
        "hello", "hi!", "first", "reply to: first", "second", "reply to: second",
        "third", "reply to: third",
    ]  # fmt: skip
    first, second, third = model.prompts
    assert told(first) == [("user", "hello"), ("assistant", "hi!")]
    assert told(second)[:3] == [*told(first), ("user", "first")]
    assert [first.instructions, second.instructions] == ["about first", "about second"]
    assert third.instructions is None
    assert "about" not in path.read_text(), "instructions are no messages"
    found = oracle.read(path)
    oracle.check_whole(found)
    assert list(oracle.check_answers(found)) == ["first", "second", "third"]
    assert verify(path.read_bytes()).ok


async def test_two_first_messages_race_and_one_of_them_seeds(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
        receipts = await asyncio.gather(*(hf.submit(KEY, f"m{n}", seed=SEED) for n in range(8)))
        for receipt in receipts:
            assert (await receipt.outcome(30)).kind == "replied"
    assert texts(tmp_path).count("hi!") == 1
    assert texts(tmp_path)[:2] == ["hello", "hi!"]


async def test_a_second_attempt_finds_the_seed_and_does_not_append_it_again(
    tmp_path: Path,
) -> None:
    """The turn goes back to its place by a drain, and another process runs it anew."""
    asked = asyncio.Event()

    async def hang(prompt: Any, position: int) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with holdfast.open(tmp_path, agent=ScriptedModel(gate=hang)) as hf:
        receipt = await hf.submit(KEY, "again", seed=SEED, instructions="Be brief.")
        await asked.wait()
        await hf.close(finish_s=0)
    assert texts(tmp_path) == ["hello", "hi!", "again"]
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model) as hf:
        assert (await (await hf.receipt(receipt.turn_id)).outcome(30)).kind == "replied"
    assert texts(tmp_path) == ["hello", "hi!", "again", "reply to: again"]
    assert told(model.prompts[0]) == [("user", "hello"), ("assistant", "hi!")]
    assert model.prompts[0].instructions == "Be brief."


async def test_a_seed_that_was_torn_is_completed(tmp_path: Path) -> None:
    """A crash inside the one write may leave whole lines of it; nobody was told of them."""
    async with holdfast.open(tmp_path) as hf:  # Nobody answers here.
        receipt = await hf.submit(KEY, "again", seed=SEED)
        session = await hf.session(KEY)
        path = Path(hf.store.transcripts.path(session))
    turn: Any = SimpleNamespace(turn_id=receipt.turn_id, text="again")
    stamp = entries.Stamp(receipt.turn_id, 1, FencingToken(1))
    header = {"type": "session", "version": 3, "id": session.session_id, "timestamp": "t"}
    whole = jsonl.encode([header, *entries.seeded(SEED, turn, stamp, None)])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]) + b'{"type": "mess')
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model) as hf:
        assert (await (await hf.receipt(receipt.turn_id)).outcome(30)).kind == "replied"
    assert told(model.prompts[0]) == [("user", "hello"), ("assistant", "hi!")]
    lines = [line for line in path.read_bytes().splitlines() if line.endswith(b"}")]
    said = [json.loads(line) for line in lines if b'"message"' in line]
    assert [oracle.text_of(entry) for entry in said] == [
        "hello", "hi!", "again", "reply to: again",
    ]  # fmt: skip


async def test_a_retry_inside_the_run_is_told_the_same(tmp_path: Path) -> None:
    failing = Fail(ProviderError(reason="server_error", detail="x", retry_after_s=0.0))
    model = ScriptedModel([failing], [Say(("ok",))])
    async with holdfast.open(tmp_path, agent=model) as hf:
        receipt = await hf.submit(KEY, "retry", seed=SEED, instructions="Be brief.")
        assert (await receipt.outcome(30)).text == "ok"
    assert [(told(p), p.instructions) for p in model.prompts] == [
        ([("user", "hello"), ("assistant", "hi!")], "Be brief.")
    ] * 2


async def test_a_message_that_failed_is_a_message_all_the_same(tmp_path: Path) -> None:
    """No commit vouches for it, but the transcript has it: too late for a seed."""
    failing = Fail(ProviderError(reason="auth", detail="x"))
    async with holdfast.open(tmp_path, agent=ScriptedModel([failing])) as hf:
        assert (await (await hf.submit(KEY, "fails")).outcome(30)).kind == "failed"
        assert (await (await hf.submit(KEY, "works", seed=SEED)).outcome(30)).kind == "replied"
    assert texts(tmp_path) == ["fails", "works", "reply to: works"]


async def test_the_row_keeps_the_seed_until_the_outcome_and_not_after(tmp_path: Path) -> None:
    def kept(hf: holdfast.Holdfast) -> list[Any]:
        control: Any = hf.store.control
        return control._look_up(lambda db: db.execute("SELECT seed FROM turns").fetchall())  # type: ignore[no-any-return]

    async with holdfast.open(tmp_path) as hf:  # Nobody answers here.
        await hf.submit(KEY, "later", seed=SEED)
        [(seed,)] = kept(hf)
        assert b"hi!" in seed
    async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
        [turn] = await hf.store.control.turns()
        await (await hf.receipt(turn.turn_id)).outcome(30)
        assert kept(hf) == [(None,)]
