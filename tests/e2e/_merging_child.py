"""
A runner whose agent is steered, or whose turn was collected into; killed at a named point.

    python _merging_child.py STATE POINT

Submits `first` and, once the agent runs, `second` with policy steer; or, for a `commit.…` point
after a collect, both at once.  Prints the two turn ids, and dies by SIGKILL at POINT.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator

import holdfast
from holdfast import _points
from holdfast.ports import ToolHook
from holdfast.types import AgentEvent, Final, Made, Prompt, ToolCall

KEY = "agent:main:main"


class Steered:
    """Calls a tool, is steered, replies with all it was told."""

    def __init__(self) -> None:
        self.running = asyncio.Event()
        self.go = asyncio.Event()

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        said = [prompt.text]
        said += [text_of(m) for m in prompt.made if m["role"] == "user"]
        if not any(m["role"] == "toolResult" for m in prompt.made):
            called = {"type": "toolCall", "id": "c1", "name": "look", "arguments": {}}
            yield Made({"role": "assistant", "content": [called], "stopReason": "toolUse"})
            result = await hook(ToolCall("c1", "look", {}, "safe"), look)
            told = [{"type": "text", "text": result}]
            yield Made({"role": "toolResult", "toolCallId": "c1", "content": told})
        self.running.set()
        await self.go.wait()
        said += [each.text for each in await hook.steered()]
        reply = " + ".join(said)
        message = {"role": "assistant", "content": [{"type": "text", "text": reply}]}
        yield Final(message=message, text=reply)


async def look() -> str:
    return "seen"


def text_of(message: object) -> str:
    assert isinstance(message, dict)
    content = message["content"]
    return content if isinstance(content, str) else "".join(p["text"] for p in content)


async def main(state: str, point: str) -> None:
    agent = Steered()
    async with holdfast.open(state, agent=agent) as hf:
        first = await hf.submit(KEY, "first")
        await agent.running.wait()
        second = await hf.submit(KEY, "second", policy="steer")
        print(first.turn_id, second.turn_id, flush=True)
        _points.install(point, lambda: os.kill(os.getpid(), signal.SIGKILL))
        agent.go.set()
        await first.outcome()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
