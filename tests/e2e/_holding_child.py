"""
A process that opens a state directory and does what its stdin says, one JSON object a line;
answers each with one line of JSON.  `hold` leases a session and does nothing with it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from typing import Any

import holdfast
from holdfast.errors import HoldfastError


def say(**told: Any) -> None:
    os.write(1, (json.dumps(told) + "\n").encode())


async def do(
    hf: holdfast.Holdfast, stack: AsyncExitStack, asked: dict[str, Any]
) -> dict[str, Any]:
    match asked["do"]:
        case "hold":
            turn = await stack.enter_async_context(hf.turn(asked["key"], "held"))
            return {"turn": turn.turn_id}
        case "submit":
            turns = []
            for n in range(asked["count"]):
                receipt = await hf.submit(
                    asked["key"], f"{asked['name']} {n}",
                    idempotency_key=f"{asked['name']}-{n}",
                )  # fmt: skip
                turns.append((receipt.turn_id, receipt.session_id))
            return {"turns": turns}
        case "alias":
            return {"key": await hf.add_alias(asked["alias"], asked["key"])}
        case _:
            return {}


async def main() -> None:
    loop = asyncio.get_running_loop()
    async with holdfast.open(sys.argv[1]) as hf, AsyncExitStack() as stack:
        say(ready=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            try:
                say(**await do(hf, stack, json.loads(line)))
            except HoldfastError as error:
                say(error=error.code)
        os._exit(0)  # What it holds is left to whoever finds it.


asyncio.run(main())
