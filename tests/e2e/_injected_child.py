"""
A process that strace fails, cuts short or kills.  Not a test.

    python _injected_child.py append PATH NOTES COUNT   appends, and notes what it is told
    python _injected_child.py turn   STATE NOTES        sends a message and answers it

Only system calls that follow the mark count: `MARK` is a stat of a name that is nowhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import holdfast
import holdfast._runtime.runtime
import holdfast.backends.files.store
from holdfast.agents.demo import DemoAgent
from holdfast.errors import HoldfastError


def note(path: str, **facts: object) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, json.dumps(facts).encode() + b"\n")
    os.close(fd)


def append(path: str, notes: str, count: str) -> None:
    lock = holdfast.WriteLock(path)
    for number in range(int(count)):
        try:
            with lock as hold:
                hold.append(b'{"n":%d,"pad":"%s"}\n' % (number, b"x" * 40), sync=True)
        except HoldfastError as error:
            landed = getattr(error, "landed", False)
            note(notes, n=number, error=type(error).__name__, landed=landed)
        else:
            note(notes, n=number)


def turn(state: str, notes: str) -> None:
    async def lead() -> None:
        async with holdfast.open(state, agent=DemoAgent(delay_s=0)) as hf:
            receipt = await hf.submit("main", "hello", idempotency_key="m-1")
            note(notes, accepted=receipt.turn_id)
            outcome = await receipt.outcome(30)
            note(notes, kind=outcome.kind, text=outcome.text)

    asyncio.run(lead())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
