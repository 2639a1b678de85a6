"""
A process that answers one message with a tool that leaves traces, and dies on the way.  Not a
test.

    python counting.py PLAN         JSON: state, log, model, replay, die

`die`: a named point and its hit, or a place inside the tool: before, in, after its effect.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

import holdfast
from holdfast import _points
from holdfast.agents.pydantic_ai import PydanticAgent
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Act, Call, Say
from holdfast.types import Replay

KEY = "agent:main:main"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Counting:
    """A tool whose effect is two lines in a file, each of them durable."""

    def __init__(self, log: str, place: str | None = None) -> None:
        self._log, self._place = log, place

    def _write(self, word: str) -> None:
        file = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(file, f"{word}\n".encode())
        os.fsync(file)
        os.close(file)

    def _reach(self, place: str) -> None:
        if place == self._place:
            die()

    async def count(self, name: str = "one") -> str:
        self._reach("before")
        self._write(f"{name} begins")
        self._reach("in")
        self._write(f"{name} ends")
        self._reach("after")
        return f"counted {name}"


def scripted(tool: Counting, replay: Replay) -> ScriptedModel:
    async def run() -> str:
        return await tool.count()

    acts: list[Act] = [Call("count", run, {"name": "one"}, replay=replay), Say(("done",))]
    return ScriptedModel(acts)


def with_pydantic(
    tool: Counting, replay: Replay, *, other: Counting | None = None,
    recorded: asyncio.Event | None = None,
) -> PydanticAgent:  # fmt: skip
    """*other*: the tool that dies is the second one, when *recorded* says so."""

    @holdfast.tool(replay=replay)
    async def count(name: str = "one") -> str:
        return await tool.count(name)

    @holdfast.tool(replay=replay)
    async def count_last(name: str) -> str:
        if recorded is not None:
            await recorded.wait()
        return await (other or tool).count(name)

    return PydanticAgent("openai-chat:m", tools=[count, count_last])


def die_at(point: str, hit: int) -> None:
    hits = 0

    def reached() -> None:
        nonlocal hits
        hits += 1
        if hits == hit:
            die()

    _points.install(point, reached)


async def main() -> None:
    plan = json.loads(sys.argv[1])
    place = plan["die"] if isinstance(plan["die"], str) else None
    tool = Counting(plan["log"], place)
    if place is None:
        die_at(*plan["die"])
    agent: Any
    if plan["model"] == "scripted":
        agent = scripted(tool, plan["replay"])
    elif plan["model"] == "two calls":
        recorded = asyncio.Event()
        _points.install("tool.ended", recorded.set)
        first = Counting(plan["log"])
        agent = with_pydantic(first, plan["replay"], other=tool, recorded=recorded)
    else:
        agent = with_pydantic(tool, plan["replay"])
    async with holdfast.open(plan["state"], agent=agent) as hf:
        await (await hf.submit(KEY, "count, please")).outcome()


if __name__ == "__main__":
    asyncio.run(main())
