"""
More processes of the incidents: they count, call tools, sit on a session, stop, come and go.

Started by `_cast.Hands`, never by hand.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final

from holdfast import _points
from holdfast.agents import _transcript
from holdfast.errors import HoldfastError, ProviderError
from holdfast.lab.scenarios._cast import Echo, open_, reply
from holdfast.lab.scenarios._players import dies_at
from holdfast.types import Made, Text, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from holdfast.lab.child import Child
    from holdfast.ports import ToolHook
    from holdfast.types import AgentEvent, Prompt

__all__ = [
    "PEERS",
    "Counter",
    "Effect",
    "counts",
    "delivers",
    "occupies",
    "sits",
    "tries",
    "visits",
]

PEERS: Final = "holdfast.lab.scenarios._peers"
_DATABASE: Final = "control.db"


def stops_at(child: Child, point: str, hit: int, *, whole: bool) -> None:
    """
    This process stands still when *point* is reached for the *hit*-th time from now on.

    Args:
        whole: all of it, by SIGSTOP, wherever its other threads are: in a transaction, too.
            Else its event loop alone, until SIGUSR1.
    """
    hits, woken = 0, threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: woken.set())

    def reached() -> None:
        nonlocal hits
        hits += 1
        if hits != hit:
            return
        child.say("stopping")
        if whole:  # To this very thread: otherwise another one takes it, and we go on.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        else:
            woken.wait()

    _points.install(point, reached)


async def looked() -> str:
    return "seen"


class Counter:
    """
    Looks something up with a tool, then says how many of its replies the conversation has.

    A reply that it did not see, or a place that was given twice, makes the count too low.
    """

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        counted = sum(_is_count(message) for message in prompt.history)
        async for made in _called(prompt, hook, ToolCall("c1", "look", {}, "safe"), looked):
            yield made
        yield reply(str(counted + 1))


class Effect:
    """
    Does something that must not be done twice, and then has a provider that fails.

    Args:
        path: a line for each time that it was really done.
        failures: how many of its model calls fail after that.
    """

    def __init__(self, path: str, *, failures: int = 0) -> None:
        self._path, self._failures = path, failures
        self.asked = 0

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        self.asked += 1
        call = ToolCall("pay", "pay", {"amount": 10}, "never")
        async for made in _called(prompt, hook, call, self._pay):
            yield made
        yield Text("It is ")
        if self._failures:
            self._failures -= 1
            raise ProviderError(reason="server_error", detail="overloaded", http_status=503)
        yield Text("paid")
        yield reply("It is paid")

    async def _pay(self) -> str:
        self._note()
        return "paid"

    def _note(self) -> None:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write("paid\n")

    def done(self) -> int:
        """How often it was really done."""
        with open(self._path, encoding="utf-8") as file:
            return len(file.readlines())


async def _called(
    prompt: Prompt, hook: ToolHook, call: ToolCall, run: Any
) -> AsyncGenerator[AgentEvent, None]:
    """One tool call and its result, unless an earlier attempt has made them."""
    roles = [message.get("role") for message in prompt.made]
    if "toolResult" in roles:
        return
    if "assistant" not in roles:
        block = _transcript.tool_call(call.call_id, call.name, call.arguments)
        used = _transcript.usage(fresh=1, output=1)
        yield Made(
            _transcript.assistant(
                [block], provider="lab", model="echo", used=used, stop="toolUse"
            )
        )
    told = str(await hook(call, run))
    yield Made(_transcript.tool_result(call.call_id, call.name, told, failed=False))


def _is_count(message: Mapping[str, Any]) -> bool:
    text = _transcript.text_of(message.get("content"))
    return message.get("role") == "assistant" and text.isdigit()


# ----------------------------------------------------------------------------- processes


async def counts(
    child: Child,
    *,
    state: str,
    key: str,
    texts: Sequence[str],
    settings: dict[str, Any],
    stop: tuple[str, int] | None = None,
    hang: tuple[str, int] | None = None,
) -> None:
    """
    A gateway that asks its `Counter` all of *texts* at once.

    Args:
        stop, hang: where it stands still; see `stops_at`.
    """
    async with open_(state, agent=Counter(), settings=settings) as hf:
        await child.ready()
        if (at := stop or hang) is not None:
            stops_at(child, *at, whole=stop is not None)
        asked = [_ask(hf, child, key, text) for text in texts]
        found = await asyncio.gather(*asked)
        child.say("counted", outcomes=found)
        await child.order("end")


async def _ask(hf: Any, child: Child, key: str, text: str) -> str:
    """How it ended; the code of the error, if it was refused."""
    try:
        receipt = await hf.submit(key, text)
    except HoldfastError as error:
        return error.code
    child.say("accepted", turn=receipt.turn_id)
    return str((await receipt.outcome()).kind)


async def sits(child: Child, *, state: str, key: str) -> None:
    """Leases a session for a program of its own, and does nothing with it."""
    async with open_(state) as hf, hf.turn(key, "mine") as turn:
        child.say("sitting", turn=turn.turn_id)
        await child.order("end")


async def delivers(
    child: Child, *, state: str, text: str, target: str, settings: dict[str, Any]
) -> None:
    """A gateway that is asked *text*, and later to end in good order."""
    async with open_(state, agent=Echo(), settings=settings) as hf:
        await child.ready()
        receipt = await hf.submit("main", text, target=target)
        child.say("accepted", turn=receipt.turn_id)
        await child.order("close")
        closing = asyncio.create_task(hf.close(finish_s=30))
        await asyncio.sleep(0)
        assert hf.draining
        child.say("draining")
        await closing


async def tries(
    child: Child, *, state: str, effects: str, message: dict[str, Any], settings: dict[str, Any]
) -> None:
    """A gateway whose provider fails once behind a tool; it dies in the second answer."""
    agent = Effect(effects, failures=1)
    async with open_(state, agent=agent, settings=settings) as hf:
        await child.ready()
        dies_at("stream.first_text", 2)
        receipt = await hf.submit(**message)
        child.say("accepted", turn=receipt.turn_id)
        await child.order("end")


async def occupies(child: Child, *, state: str) -> None:
    """A program that knows nothing of us has a write transaction open."""
    database = sqlite3.connect(os.path.join(state, _DATABASE), isolation_level=None)
    await child.ready()
    database.execute("BEGIN IMMEDIATE")
    child.say("inside")
    await child.order("release")
    database.execute("ROLLBACK")
    database.close()


async def visits(child: Child, *, state: str, times: int) -> None:
    """Programs that look into the store for a moment, one after the other."""
    await child.ready()
    for _ in range(times):
        database = sqlite3.connect(os.path.join(state, _DATABASE))
        database.execute("SELECT count(*) FROM turns").fetchone()
        database.close()
        await asyncio.sleep(0)
