"""
A process of the lab: the side that works.  Started by `crew.py`, never by hand:

    python -m holdfast.lab.child MODULE:FUNCTION '{"argument": …}'

    child ──▶ {"kind": "ready", …}        all that is slow (imports, opening) is behind it
    parent ─▶ go                          the barrier: every child gets it at once
    child ──▶ {"kind": …}                 whatever it has to tell, a line each
    child ──▶ {"kind": "done", …}         its last word; then it exits 0

FUNCTION is ``async def work(child: Child, **arguments)``.  A child whose stdin ends has lost
its parent, and ends at once: nothing of a broken-off bench stays behind.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import threading
from typing import Any

__all__ = ["Child"]


class Child:
    """This process, towards its parent.  Belongs to the loop it was made on."""

    def __init__(self) -> None:
        # What a library prints must not end up between our lines.
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._heard: dict[str, asyncio.Event] = {}
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, name="lab-orders", daemon=True).start()

    def say(self, kind: str, /, **facts: Any) -> None:
        """One line to the parent."""
        self._out.write(json.dumps({"kind": kind, **facts}) + "\n")
        self._out.flush()

    async def ready(self, **facts: Any) -> None:
        """Say so, and wait for the barrier."""
        self.say("ready", **facts)
        await self.order("go")

    async def order(self, word: str) -> None:
        """Wait until the parent has said *word*."""
        await self._event(word).wait()

    def _listen(self) -> None:
        for line in sys.stdin:
            self._loop.call_soon_threadsafe(self._hear, line.strip())
        os._exit(1)

    def _hear(self, word: str) -> None:
        self._event(word).set()

    def _event(self, word: str) -> asyncio.Event:
        return self._heard.setdefault(word, asyncio.Event())


async def _work(where: str, arguments: dict[str, Any]) -> None:
    module, _, name = where.partition(":")
    work = getattr(importlib.import_module(module), name)
    child = Child()
    done = await work(child, **arguments)
    child.say("done", **(done or {}))


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1], json.loads(sys.argv[2])))
