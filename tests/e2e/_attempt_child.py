"""
A process with one lone attempt, told what to do line by line.  Not a test.

    python _attempt_child.py PATH TAG [QUEUE_TIMEOUT_S]

    enter      says `entered`
    ask        appends a question; says `asked`
    open       asks for a window; says `in_line` when it stands there, `open N` when it is
               open, N entries having been missed, or `refused CODE`
    close      closes the window; says `closed N`, N entries having come in, or `refused CODE`
    reply      appends a reply; says `replied`
    leave      says `left`
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from holdfast import Attempt
from holdfast.errors import HoldfastError


def say(*words: object) -> None:
    print(*words, flush=True)


async def main(path: str, tag: str, queue_timeout_s: str = "60") -> None:
    attempt = Attempt(path, queue_timeout_s=float(queue_timeout_s), timeout_s=30, run_id=tag)
    window: Any = None
    view: Any = None

    async def order(word: str) -> None:
        nonlocal window, view
        match word:
            case "enter":
                await attempt.__aenter__()
                say("entered")
            case "ask":
                await attempt.append({"role": "user", "content": f"{tag} asks"})
                say("asked")
            case "open":
                window = attempt.prompt_window()
                opening = asyncio.create_task(window.__aenter__())
                while not opening.done() and attempt.state != "in_line":
                    await asyncio.sleep(0)
                if not opening.done():
                    say("in_line")
                view = await opening
                say("open", len(view.before))
            case "close":
                await window.__aexit__(None, None, None)
                say("closed", len(view.entries))
            case "reply":
                await attempt.append({"role": "assistant", "content": f"{tag} is answered"})
                say("replied")
            case "leave":
                await attempt.dispose()
                say("left")

    while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
        try:
            await order(word)
        except HoldfastError as error:
            say("refused", error.code)
    await attempt.dispose()


asyncio.run(main(*sys.argv[1:]))
