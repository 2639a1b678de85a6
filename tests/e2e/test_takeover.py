"""
Other hands on a transcript while a model talks: what becomes of the turn and of its reply.

`meddle` runs inside the prompt window, once for each run that is given one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import _points
from holdfast._core import salvage
from holdfast.errors import TakeoverError
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Act, Call, Quiet, Say
from holdfast.types import Prompt, Turn, TurnId
from support import oracle

KEY = "agent:main:main"
Meddle = Callable[[Path], object]


def header_of(path: Path) -> bytes:
    return path.read_bytes().splitlines(keepends=True)[0]


def cut(path: Path) -> None:
    """Everything but the header is gone, the question too."""
    path.write_bytes(header_of(path))


def edit(path: Path) -> None:
    """An editor saves the file: a new one in its place, with another question in it."""
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes().replace(b'"text":"q"', b'"text":"Q"'))
    other.replace(path)


def spoil(path: Path) -> None:
    path.write_bytes(b"this is no transcript\n")


def copied(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def appending(*entries: dict[str, Any], torn: bytes = b"") -> Meddle:
    def append(path: Path) -> None:
        last = {"parentId": oracle.read(path)[-1]["id"]}  # As their writers do it.
        lines = [json.dumps({**last, **entry}).encode() + b"\n" for entry in entries]
        with path.open("ab") as file:
            file.write(b"".join(lines) + torn)

    return append


class World:
    """One message to one agent, with somebody meddling while it answers."""

    def __init__(self, state: Path, *runs: list[Act], meddle: tuple[Meddle, ...]) -> None:
        self.state = state
        self.meddling = list(meddle)
        self.model = ScriptedModel(*runs, gate=self._gate)
        self.turn: Turn | None = None

    async def _gate(self, _prompt: Prompt, position: int) -> None:
        if position == 0 and self.meddling:
            self.meddling.pop(0)(oracle.only_transcript(self.state))

    async def ask(self, **settings: Any) -> Turn:
        async with holdfast.open(self.state, agent=self.model, settings=settings) as hf:
            receipt = await hf.submit(KEY, "q")
            await receipt.outcome(20)
            self.turn = await hf.store.control.turn(receipt.turn_id)
        return self.turn

    def entries(self) -> list[dict[str, Any]]:
        """Those that parse; a torn line of a stranger's is none."""
        lines = oracle.only_transcript(self.state).read_bytes().split(b"\n")[1:]
        found = []
        for line in lines:
            with suppress(ValueError):
                found.append(json.loads(line))
        return found

    def stamped(self, name: str) -> list[dict[str, Any]]:
        return [each for each in self.entries() if each.get("holdfast", {}).get(name)]

    def run(self, *arguments: str) -> tuple[int, Any]:
        found = subprocess.run(
            [sys.executable, "-m", "holdfast", *arguments, "--json"],
            env={**os.environ, "HOLDFAST_STORE": str(self.state)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return found.returncode, json.loads(found.stdout)


# ------------------------------------------------------------------------- no takeover


@pytest.mark.parametrize(
    "meddle",
    [
        appending({"type": "label", "id": "f", "parentId": "x", "label": "l"}),
        appending({"type": "session_info", "id": "f", "name": "n"}),
        appending({"type": "model_change", "id": "f", "model": "m"}),
        appending({"type": "custom", "id": "f", "customType": "c"}),
        appending({"type": "of_the_future", "id": "f"}),
        appending({"type": "message", "id": "f", "appendMode": "side"}),
        appending(torn=b'{"type":"message","id":"half'),
        appending({"type": "custom", "id": "f"}, torn=b"{"),
        copied,
        os.utime,
        lambda path: path.chmod(0o640),
        Path.read_bytes,
    ],
)
async def test_what_is_no_takeover_costs_no_second_call_of_the_model(
    tmp_path: Path, meddle: Meddle
) -> None:
    """#93193, backups, readers: one call, one reply, on the branch, nothing salvaged."""
    world = World(tmp_path, [Say(("a", "b"))], meddle=(meddle,))
    turn = await world.ask()
    assert (turn.outcome, turn.reply, turn.reruns, turn.salvaged) == ("replied", "ab", 0, None)
    assert len(world.model.prompts) == 1
    assert [each["id"] for each in world.stamped("final")] == [turn.final_entry]
    assert not world.stamped("rebased")
    assert len(oracle.check_answers(world.entries())) == 1


async def test_a_message_that_comes_in_between_stands_before_the_reply(tmp_path: Path) -> None:
    def say(path: Path) -> None:
        message = {"role": "user", "content": "by another program"}
        entry = {"type": "message", "id": "f", "message": message}
        appending(entry)(path)

    world = World(tmp_path, [Say(("a", "b"))], meddle=(say,))
    turn = await world.ask()
    assert turn.outcome == "replied"
    [final] = world.stamped("final")
    assert final["parentId"] == "f"


# ------------------------------------------------------------------------------- rerun


@pytest.mark.parametrize("meddle", [cut, edit])
async def test_a_rewritten_transcript_is_answered_anew_and_no_tool_runs_twice(
    tmp_path: Path, meddle: Meddle
) -> None:
    ran: list[str] = []

    async def pay() -> str:
        ran.append("paid")
        return "receipt 7"

    acts: list[Act] = [Call("pay", pay), Say(("first",))]
    again: list[Act] = [Call("pay", pay), Say(("second",))]
    world = World(tmp_path, acts, again, meddle=(meddle,))
    turn = await world.ask()
    assert (turn.outcome, turn.reply) == ("replied", "second")
    assert (turn.attempts, turn.reruns) == (1, 1), "a takeover spends no attempt"
    assert ran == ["paid"]
    assert [m["role"] for m in world.model.prompts[1].made] == ["assistant", "toolResult"]
    [final] = world.stamped("final")
    kept = world.stamped("salvaged")
    assert [each["appendMode"] for each in kept] == ["side"] * 3
    assert oracle.text_of(kept[-1]) == "first"
    assert not any("final" in each["holdfast"] for each in kept)
    oracle.check_ids(world.entries())
    on_branch = [e for e in world.entries() if "toolResult" in json.dumps(e) and e not in kept]
    assert len(on_branch) == 1, "the rerun's reply has lost what its tools have done"
    assert final["holdfast"].get("rebased") is None
    code, shown = world.run("turns", "show", turn.turn_id)
    assert code == 0
    [told] = shown["salvaged"]
    assert told["where"] == "transcript"
    assert told["entries"] == [each["id"] for each in kept]
    assert (told["text"], told["tool_messages"]) == ("first", 2)


async def test_a_silence_over_a_rewritten_transcript_is_thought_over(tmp_path: Path) -> None:
    ran: list[str] = []

    async def look() -> str:
        ran.append("looked")
        return "nothing"

    silent: list[Act] = [Call("look", look), Quiet(tokens=("hm",))]
    world = World(tmp_path, silent, [Call("look", look), Say(("now",))], meddle=(cut,))
    turn = await world.ask()
    assert (turn.outcome, turn.reply, ran) == ("replied", "now", ["looked"])
    assert [each.entries for each in salvage.read(turn.salvaged)] == [()]


async def test_rewritten_each_time_the_reply_goes_over_the_new_head_and_says_so(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, [Say(("first",))], [Say(("second",))], meddle=(cut, cut))
    turn = await world.ask()
    assert (turn.outcome, turn.reply, turn.reruns) == ("replied", "second", 1)
    [final] = world.stamped("final")
    assert final["holdfast"]["rebased"] is True
    assert world.stamped("rebased") == [final]
    answers = oracle.check_answers(world.entries())
    assert list(answers) == ["q"], "a reply without its question"


async def test_a_turn_of_ones_own_loop_is_replied_over_the_new_head(tmp_path: Path) -> None:
    """Nobody else can run it again, and its caller has said its word."""
    async with holdfast.open(tmp_path) as hf:
        async with hf.turn(KEY, "q") as turn:
            cut(oracle.only_transcript(tmp_path))
            await turn.reply("mine")
        row = await hf.store.control.turn(TurnId(turn.turn_id))
    assert (row.outcome, row.reply) == ("replied", "mine")


async def test_a_turn_of_ones_own_loop_hears_of_the_takeover_if_that_is_wanted(
    tmp_path: Path,
) -> None:
    async with holdfast.open(tmp_path, settings={"session.on_rewritten": "fail"}) as hf:
        with pytest.raises(TakeoverError) as caught:
            async with hf.turn(KEY, "q") as turn:
                cut(oracle.only_transcript(tmp_path))
                await turn.reply("mine")
        row = await hf.store.control.turn(TurnId(turn.turn_id))
    assert Path(caught.value.path) == oracle.only_transcript(tmp_path)
    assert (row.outcome, row.reason) == ("failed", "taken_over")


# ------------------------------------------------------------- fail, files, promotion


async def test_who_wants_no_rerun_gets_a_failure_and_may_promote_the_reply(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, [Say(("precious",))], meddle=(cut,))
    turn = await world.ask(**{"session.on_rewritten": "fail"})
    assert (turn.outcome, turn.reason) == ("failed", "taken_over")
    assert len(world.model.prompts) == 1
    code, done = world.run("turns", "promote", turn.turn_id)
    assert (code, done["fresh"], done["text"]) == (0, True, "precious")
    [entry] = world.stamped("promoted")
    assert entry["id"] == done["entry"]
    assert "appendMode" not in entry
    assert oracle.text_of(entry) == "precious"
    assert world.stamped("final") == [], "a failed turn has got a reply"
    before = oracle.only_transcript(tmp_path).read_bytes()
    code, again = world.run("turns", "promote", turn.turn_id)
    assert (code, again) == (0, {**done, "fresh": False})
    assert oracle.only_transcript(tmp_path).read_bytes() == before, "promoted twice"
    _, shown = world.run("turns", "show", turn.turn_id)
    assert shown["outcome"] == "failed"
    code, found = world.run("sessions", "verify", str(oracle.only_transcript(tmp_path)))
    assert (code, found["ok"]) == (0, True)


async def test_a_promoted_reply_is_what_the_next_turn_goes_on_from(tmp_path: Path) -> None:
    world = World(tmp_path, [Say(("precious",))], meddle=(cut,))
    turn = await world.ask(**{"session.on_rewritten": "fail"})
    assert world.run("turns", "promote", turn.turn_id)[0] == 0
    await world.ask()
    assert "precious" in json.dumps(world.model.prompts[-1].history)


async def test_what_was_not_salvaged_cannot_be_promoted(tmp_path: Path) -> None:
    world = World(tmp_path, [Say(("fine",))], meddle=())
    turn = await world.ask()
    before = oracle.only_transcript(tmp_path).read_bytes()
    code, said = world.run("turns", "promote", turn.turn_id)
    assert (code, said["error"]["code"]) == (2, "bad_request")
    assert "nothing to promote" in said["error"]["message"]
    assert oracle.only_transcript(tmp_path).read_bytes() == before


async def test_a_reply_whose_file_is_no_transcript_any_more_is_kept_in_a_file(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, [Say(("precious",))], meddle=(spoil,))
    turn = await world.ask()
    assert (turn.outcome, turn.reason) == ("failed", "bad_transcript")
    assert oracle.only_transcript(tmp_path).read_bytes() == b"this is no transcript\n"
    [told] = world.run("turns", "show", turn.turn_id)[1]["salvaged"]
    [kept] = (tmp_path / "salvage").iterdir()
    assert (told["where"], told["file"]) == ("file", str(kept))
    [line] = kept.read_text().splitlines()
    assert oracle.text_of(json.loads(line)) == "precious"


# ---------------------------------------------------------------------- the claim is gone


@pytest.mark.parametrize("times", [1, 4])
async def test_a_claim_removed_before_the_reply_costs_neither_the_reply_nor_an_attempt(
    tmp_path: Path, times: int
) -> None:
    """`rm *.lock` by a stranger, again and again: nothing is written, the model not asked."""
    removed: list[int] = []

    def remove() -> None:
        # The first check is the question's.
        for claim in tmp_path.glob("agents/*/sessions/*.lock"):
            if asked() and len(removed) < times:
                claim.unlink()
                removed.append(len(world.entries()))

    def asked() -> bool:
        return bool(world.entries())

    world = World(tmp_path, [Say(("precious",))], meddle=())
    _points.install("token.checked", remove)
    try:
        turn = await world.ask()
    finally:
        _points.install("token.checked", lambda: None)
    assert removed == [1] * times, "something was written without our claim"
    assert (turn.outcome, turn.reply, turn.attempts) == ("replied", "precious", 1)
    assert len(world.model.prompts) == 1
    assert list(oracle.check_answers(world.entries())) == ["q"]
