"""What the incidents share: a conversation, other hands on it, and its judge."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import holdfast
from holdfast.backends.files.lock import line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from holdfast.types import Prompt

__all__ = [
    "APPEND",
    "KEY",
    "Gate",
    "appends",
    "entries",
    "in_another_process",
    "nobody_is_blocked",
    "said",
    "texts",
    "until",
]

KEY = "agent:main:main"
WITHIN_S = 30.0

#: A program with our lock: appends its second argument to its first, at once or not at all.
APPEND = """
import sys
from holdfast import WriteLock
with WriteLock(sys.argv[1], timeout_s=10) as hold:
    hold.append(sys.argv[2].encode() + b"\\n", sync=False)
"""


class Gate:
    """Lets a scripted model say its first token, then holds it until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, prompt: Prompt, position: int) -> None:
        if position == 1 and not self.opened.is_set():
            self.reached.set()
            await self.opened.wait()


def said(text: str, role: str = "assistant") -> dict[str, Any]:
    return {"role": role, "content": text}


def entries(path: Path) -> list[dict[str, Any]]:
    """Read without any code of ours.  Each line parses, or something was torn."""
    return [json.loads(each) for each in path.read_bytes().splitlines()][1:]


def texts(path: Path) -> list[str]:
    found = [e["message"]["content"] for e in entries(path) if e["type"] == "message"]
    return [each if isinstance(each, str) else each[0]["text"] for each in found]


def appends(path: Path, **fields: Any) -> dict[str, Any]:
    """Somebody who knows no lock and no window of ours appends an entry."""
    before = entries(path)
    entry = {
        "type": "custom",
        "id": os.urandom(4).hex(),
        "parentId": before[-1]["id"] if before else None,
        "customType": "other",
        **fields,
    }
    with path.open("ab") as file:
        file.write(json.dumps(entry).encode() + b"\n")
    return entry


async def in_another_process(script: str, *arguments: object) -> None:
    """Run *script*, from its beginning to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *map(str, arguments)
    )
    assert await asyncio.wait_for(process.wait(), WITHIN_S) == 0


async def nobody_is_blocked(path: Path) -> None:
    """Whoever comes next has the lock and a window, and nothing was left behind."""
    async with holdfast.Attempt(path, timeout_s=5, queue_timeout_s=5) as probe:
        async with probe.prompt_window():
            pass
    assert not os.path.lexists(f"{path}.lock")
    assert line.lines() == {}


async def until(condition: Callable[[], object]) -> None:
    """Until *condition* holds; bounded."""
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.001)
