"""
A process is killed around a tool call: a tool that may run twice runs again, one that may not
does not, and the model is told which.

Method: a real process with a tool that leaves traces on disk kills itself (SIGKILL) before, in
or after the tool's effect, or at a named point beside it.  This process then adopts its turn.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast._runtime.tools import INTERRUPTED
from holdfast.testing.model_server import ModelServer, Step
from holdfast.types import Replay, ToolRecord
from support import counting, oracle
from support.counting import Counting, scripted, with_pydantic

CHILD = Path(counting.__file__)
COUNTED = "counted one"

#: Where it dies → how often the effect (begins, ends) after that, by what the tool declares,
#: and what the model is told.
SAFE: dict[Any, tuple[int, int, str]] = {
    ("made.added", 1): (1, 1, COUNTED),  # The call is durable; nobody meant to run it yet.
    ("tool.begun", 1): (1, 1, COUNTED),
    "before": (1, 1, COUNTED),
    "in": (2, 1, COUNTED),
    "after": (2, 2, COUNTED),
    ("tool.ran", 1): (2, 2, COUNTED),
    ("tool.ended", 1): (1, 1, COUNTED),
    ("made.added", 2): (1, 1, COUNTED),
}
NEVER: dict[Any, tuple[int, int, str]] = {
    ("made.added", 1): (1, 1, COUNTED),
    ("tool.begun", 1): (0, 0, INTERRUPTED),
    "before": (0, 0, INTERRUPTED),
    "in": (1, 0, INTERRUPTED),
    "after": (1, 1, INTERRUPTED),
    ("tool.ran", 1): (1, 1, INTERRUPTED),
    ("tool.ended", 1): (1, 1, COUNTED),
    ("made.added", 2): (1, 1, COUNTED),
}
CASES = [
    pytest.param(replay, die, *want, id=f"{replay}-{die if isinstance(die, str) else '-'.join(map(str, die))}")
    for replay, table in (("safe", SAFE), ("never", NEVER))
    for die, want in table.items()
]  # fmt: skip


@dataclass
class After:
    """What is left when somebody else has finished the turn."""

    begins: Counter[str]
    ends: Counter[str]
    entries: list[dict[str, Any]]
    calls: list[ToolRecord]
    attempts: int

    def results(self) -> list[dict[str, Any]]:
        found = (e for e in self.entries if e["type"] == "message")
        return [e for e in found if e["message"]["role"] == "toolResult"]


class Scene:
    def __init__(self, state: Path) -> None:
        self.state, self.log = state / "state", state / "effects"

    async def killed(self, model: str, replay: str, die: Any) -> None:
        plan = {
            "state": str(self.state), "log": str(self.log), "model": model, "replay": replay,
            "die": die,
        }  # fmt: skip
        child = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, str(CHILD), json.dumps(plan)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=60, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert child.returncode == -signal.SIGKILL, child.stderr

    async def adopted(self, agent: Any) -> After:
        async with holdfast.open(self.state, agent=agent) as hf:
            [turn] = await hf.store.control.turns()
            outcome = await (await hf.receipt(turn.turn_id)).outcome(30)
            assert (outcome.kind, outcome.text) == ("replied", "done")
            calls = await hf.store.control.tool_calls(turn.turn_id)
            assert await hf.store.control.made(turn.turn_id) == []
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        words = [line.split() for line in lines]
        begins = Counter(name for name, what in words if what == "begins")
        ends = Counter(name for name, what in words if what == "ends")
        entries = oracle.read(oracle.only_transcript(self.state))
        oracle.check_whole(entries)
        assert list(oracle.check_answers(entries)) == ["count, please"]
        return After(begins, ends, entries, calls, outcome.attempts)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with ModelServer() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def check(after: After, begins: int, ends: int, said: str) -> None:
    assert (after.begins["one"], after.ends["one"]) == (begins, ends)
    roles = [e["message"]["role"] for e in after.entries if e["type"] == "message"]
    assert roles == ["user", "assistant", "toolResult", "assistant"], "said or told twice"
    [result], [call] = after.results(), after.calls
    assert oracle.text_of(result) == said
    assert result["id"] == call.result_id, "the entry has not the id that was noted for it"
    assert call.state == ("interrupted" if said == INTERRUPTED else "done")


@pytest.mark.parametrize(("replay", "die", "begins", "ends", "said"), CASES)
async def test_a_tool_of_the_scripted_model(
    scene: Scene, replay: Replay, die: Any, begins: int, ends: int, said: str
) -> None:
    await scene.killed("scripted", replay, die)
    model = scripted(Counting(str(scene.log)), replay)
    after = await scene.adopted(model)
    check(after, begins, ends, said)
    assert after.attempts == 2
    [asked] = model.prompts
    made = [message["role"] for message in asked.made]
    whole = die == ("made.added", 2)
    assert made == (["assistant", "toolResult"] if whole else ["assistant"])


@pytest.mark.parametrize(("replay", "die", "begins", "ends", "said"), CASES)
async def test_a_tool_of_pydantic_ai(
    scene: Scene, server: ModelServer, replay: Replay, die: Any, begins: int, ends: int, said: str
) -> None:  # fmt: skip
    server.add(Step.call("count", {"name": "one"}), Step.reply("done"))
    await scene.killed("pydantic", replay, die)
    assert len(server.requests) == 1
    agent = with_pydantic(Counting(str(scene.log)), replay)
    after = await scene.adopted(agent)
    await agent.aclose()
    check(after, begins, ends, said)
    assert len(server.requests) == 2, "the model was asked again for what it had said"
    told = server.requests[-1].body["messages"]
    assert [message["role"] for message in told] == ["user", "assistant", "tool"]
    assert told[-1]["content"] == said


@pytest.mark.parametrize(
    ("replay", "begins", "said"), [("never", 1, INTERRUPTED), ("safe", 2, "counted two")]
)
async def test_of_two_calls_at_once_the_finished_one_is_not_made_again(
    scene: Scene, server: ModelServer, replay: Replay, begins: int, said: str
) -> None:
    both = Step.calls(("count", {"name": "one"}), ("count_last", {"name": "two"}))
    server.add(both, Step.reply("done"))
    await scene.killed("two calls", replay, "in")
    agent = with_pydantic(Counting(str(scene.log)), replay)
    after = await scene.adopted(agent)
    await agent.aclose()
    assert after.begins == {"one": 1, "two": begins}
    told = {oracle.text_of(each) for each in after.results()}
    assert told == {COUNTED, said}
    assert len(after.results()) == 2
    assert {each["id"] for each in after.results()} == {c.result_id for c in after.calls}
