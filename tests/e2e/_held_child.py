"""
A process whose interpreter is held, by a C call that does not let go of it.  Not a test.

    python _held_child.py STATE interpreter
    python _held_child.py STATE loop         only its event loop is held; its threads run

Says `streaming`, and then nothing at all until a byte comes on stdin.  Then it tries to show a token, run a tool, finish its turn, and take a delivery;
says `woke` and what came of that, and ends with stdin.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sys
from collections.abc import AsyncGenerator
from typing import Any

import holdfast
from holdfast.agents import _transcript
from holdfast.errors import HoldfastError
from holdfast.types import Final, Text, ToolCall

LEASE = {
    "turn.lease_ms": 900, "abort.settle_ms": 200,
    "channels.elsewhere.url": "http://127.0.0.1:9/",  # Known; nobody delivers there here.
}  # fmt: skip
KEY = "agent:main:main"


def say(event: str, **data: Any) -> None:
    os.write(1, (json.dumps({"event": event, **data}) + "\n").encode())


class Agent:
    def __init__(self) -> None:
        self.effects, self.refused = 0, ""
        self.tried = asyncio.Event()
        self.take: Any = None

    async def respond(self, prompt: Any, hook: Any) -> AsyncGenerator[Any, None]:
        yield Text("before")
        say("streaming")
        if sys.argv[2] == "loop":
            os.read(0, 1)
        else:  # PyDLL keeps the interpreter through the call: no thread of ours runs.
            ctypes.PyDLL(None).read(0, ctypes.create_string_buffer(1), 1)
        delivery = asyncio.ensure_future(self.take())
        yield Text("after")
        try:
            await hook(ToolCall("call_1", "count", {}, "never", 5.0), self._effect)
        except HoldfastError as error:
            self.refused = type(error).__name__
        taken = await delivery
        say("woke", effects=self.effects, refused=self.refused, took=taken is not None)
        self.tried.set()
        used = _transcript.usage(fresh=1, output=1)
        content = [{"type": "text", "text": "the held one's"}]
        message = _transcript.assistant(
            content, provider="test", model="held", used=used, stop="stop"
        )
        yield Final(message=message, text="the held one's")

    async def _effect(self) -> None:
        self.effects += 1


async def main() -> None:
    agent = Agent()
    async with holdfast.open(sys.argv[1], agent=agent, settings=LEASE, channels=()) as hf:
        me = hf.store.owner.owner_id
        agent.take = lambda: hf.store.control.next_delivery(me, ["elsewhere"])
        receipt = await hf.submit(KEY, "q", target="elsewhere:somebody")
        outcome = await receipt.outcome()
        await agent.tried.wait()
        say("outcome", text=outcome.text, attempts=outcome.attempts)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
