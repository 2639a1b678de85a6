"""
One process of a crowd: a runner that also sends, told what to do on its command line.

Prints one JSON object a line: `ready`; `streaming` at the first text of each model call;
`outcome` for each of its messages; `done`; with `stop_at`, `error` for what its runs met.
Waits for a line on stdin after `ready`, and for the end of stdin after `done`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import holdfast
from holdfast import _points


def say(event: str, **data: Any) -> None:
    # One write a line: the reader on the other end must never see half of one.
    os.write(1, (json.dumps({"event": event, **data}) + "\n").encode())


async def line_from_stdin() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


class Recent:
    """
    Only the latest messages go to the model.

    The provider's SDK spends 0.3 ms a message on every call; a crowd of 320 in one session
    would measure that, and not what it is about.
    """

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    async def respond(self, prompt: Any, hook: Any) -> AsyncGenerator[Any, None]:
        async with aclosing(
            self._agent.respond(replace(prompt, history=prompt.history[-8:]), hook)
        ) as events:
            async for event in events:
                yield event


def make_agent(plan: dict[str, Any]) -> Any:
    if "base_url" in plan:
        os.environ["OPENAI_BASE_URL"] = plan["base_url"]
        os.environ["OPENAI_API_KEY"] = "test"
        from holdfast.agents.pydantic_ai import PydanticAgent

        return Recent(PydanticAgent("openai-chat:test"))
    from holdfast.agents.demo import DemoAgent

    return DemoAgent(delay_s=plan.get("delay_s", 0.002))


async def send_one(hf: holdfast.Holdfast, plan: dict[str, Any], lane: str, text: str) -> None:
    try:
        receipt = await hf.submit(plan["key"], text, lane=lane, source=plan["name"])
    except holdfast.errors.HoldfastError as error:
        say("refused", text=text, code=error.code)
        return
    outcome = await receipt.outcome()
    say("outcome", text=text, kind=outcome.kind, reply=outcome.text, turn=outcome.turn_id)


def signal_at(point: str, hit: int, number: int, *, after: str | None = None) -> None:
    """
    Send *number* to ourselves when *point* is reached for the *hit*-th time.

    *after*: counted only from the time that this point is reached.
    """
    hits = 0

    def reached() -> None:
        nonlocal hits
        hits += 1
        if hits == hit:
            # To this very thread: otherwise another one takes it, and we go on meanwhile.
            signal.pthread_kill(threading.get_ident(), number)

    if after is None:
        _points.install(point, reached)
    else:
        _points.install(after, lambda: _points.install(point, reached))


class Telling(logging.Handler):
    """Says what a turn's run ended with, by its type."""

    def emit(self, record: logging.LogRecord) -> None:
        for argument in record.args or ():
            if isinstance(argument, holdfast.errors.HoldfastError):
                say("error", name=type(argument).__name__)


async def main() -> None:
    plan = json.loads(sys.argv[1])
    if plan.get("loads_history_outside_the_lock"):
        from support import mutants

        mutants.load_history_outside_the_lock(lambda: say("waiting"))
    if "stop_at_append" in plan:  # The first append is the question.
        signal_at("append.checked", plan["stop_at_append"], signal.SIGSTOP)
    if "stop_at" in plan:
        point, hit, after = plan["stop_at"]
        signal_at(point, hit, signal.SIGSTOP, after=after)
        runs = logging.getLogger("holdfast.turn")
        runs.addHandler(Telling())
        runs.setLevel(logging.DEBUG)
    if "kill_at" in plan:
        signal_at(*plan["kill_at"], signal.SIGKILL)
    seen: set[int] = set()
    kills_in_stream = plan.get("kill_at", [""])[0] == "stream.first_text"

    def streaming() -> None:
        task = id(asyncio.current_task())
        if task not in seen:
            seen.add(task)
            say("streaming")

    if not kills_in_stream:
        _points.install("stream.first_text", streaming)
    async with holdfast.open(
        plan["state"], agent=make_agent(plan), settings=plan.get("settings", {})
    ) as hf:
        say("ready")
        await line_from_stdin()
        sending = [
            send_one(hf, plan, lane, f"{plan['name']} {lane} {n}")
            for lane in plan["lanes"]
            for n in range(plan["per_lane"])
        ]
        await asyncio.gather(*sending)
        say("done")
        await line_from_stdin()


if __name__ == "__main__":
    asyncio.run(main())
