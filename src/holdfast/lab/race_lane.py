"""
One lane of the race, in a process of its own.

`unguarded` does what programs do that have no coordination: read, append, call the model,
append.  Each step is right by itself; nothing holds them together.  `fenced` does what the
founding system did: a lock around each write, given back for the model call, and a
fingerprint that tells afterwards whether anybody else has written.  `through_turns` hands the
same messages to Holdfast.  All ask the same model over HTTP with the same client.
"""

from __future__ import annotations

import os
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from holdfast import _assemble
from holdfast._core import jsonl
from holdfast._stamps import now_iso, now_ms, uuid7
from holdfast.agents.pydantic_ai import PydanticAgent
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.backends.files.transcript.transcripts import read_tree
from holdfast.lab.unhooked import Unhooked
from holdfast.types import Final as FinalEvent
from holdfast.types import Prompt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.lab.child import Child
    from holdfast.types import Entry

__all__ = ["MODEL", "fenced", "question", "through_turns", "unguarded"]

MODEL: Final = "openai-chat:race"
OUTCOME_S: Final = 60.0  #: Far beyond any race; a turn that takes longer is a failure.


def question(label: str, n: int) -> str:
    """The text of a lane's *n*th message.  Its first words say whose it is."""
    return f"{label} {n}: is there any news?"


async def unguarded(child: Child, *, path: str, label: str, turns: int) -> None:
    """Nobody holds anything."""
    agent = PydanticAgent(MODEL)
    await _answer(agent, _prompt("warm-up", ()))
    await child.ready()
    for n in range(1, turns + 1):
        mark = {"lane": label, "n": n}
        tree = read_tree(path)
        text = question(label, n)
        asked = _entry(tree.leaf, mark, _user(text))
        _append(path, asked)
        message = await _answer(agent, _prompt(text, tree.history()))
        _append(path, _entry(asked["id"], mark, message))
    await agent.aclose()


async def fenced(child: Child, *, path: str, label: str, turns: int) -> dict[str, int]:
    """
    A lock and a fingerprint: the takeover behaviour of the time.

    Whoever finds the file changed after its model call has lost: the reply, finished and
    paid for, is dropped ("session file changed while embedded prompt lock was released").
    """
    agent, takeovers = PydanticAgent(MODEL), 0
    await _answer(agent, _prompt("warm-up", ()))
    await child.ready()
    for n in range(1, turns + 1):
        mark = {"lane": label, "n": n}
        text = question(label, n)
        async with WriteLock(path, lane=label):
            tree = read_tree(path)
            asked = _entry(tree.leaf, mark, _user(text))
            _append(path, asked)
            left = _fingerprint(path)
        message = await _answer(agent, _prompt(text, tree.history()))
        async with WriteLock(path, lane=label):
            if _fingerprint(path) == left:
                _append(path, _entry(asked["id"], mark, message))
            else:
                takeovers += 1
    await agent.aclose()
    return {"takeovers": takeovers}


async def through_turns(
    child: Child, *, directory: str, key: str, label: str, lane: str, source: str, turns: int
) -> dict[str, str]:
    """The same messages, each submitted; this process runs turns, its own and orphans."""
    agent = PydanticAgent(MODEL)
    await _answer(agent, _prompt("warm-up", ()))
    everybody_is_heard = {"turn.heartbeats_yield": False}
    async with _assemble.open(directory, agent=agent, settings=everybody_is_heard) as hf:
        await child.ready()
        for n in range(1, turns + 1):
            receipt = await hf.submit(key, question(label, n), lane=lane, source=source)
            await receipt.outcome(OUTCOME_S)
        path = hf.store.transcripts.path(await hf.session(key))
    await agent.aclose()
    return {"path": path}


# ------------------------------------------------------------------- what anybody would do


def _append(path: str, entry: Entry) -> None:
    with open(path, "ab") as file:
        file.write(jsonl.encode([entry]))


def _fingerprint(path: str) -> tuple[int, ...]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _entry(parent: str | None, mark: Mapping[str, Any], message: Mapping[str, Any]) -> Entry:
    return {
        "type": "message",
        "id": uuid7(),
        "parentId": parent,
        "timestamp": now_iso(),
        "message": dict(message),
        "race": dict(mark),
    }


def _user(text: str) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"role": "user", "content": content, "timestamp": now_ms()}


async def _answer(agent: PydanticAgent, prompt: Prompt) -> Mapping[str, Any]:
    async with aclosing(agent.respond(prompt, Unhooked())) as events:
        async for event in events:
            if isinstance(event, FinalEvent):
                return event.message
    raise RuntimeError(f"no answer to {prompt.text!r} (pid {os.getpid()})")


def _prompt(text: str, history: tuple[Mapping[str, Any], ...]) -> Prompt:
    return Prompt(
        turn_id="race",
        session_id="race",
        session_key="agent:main:race",
        agent_id="main",
        lane="user",
        source="race",
        text=text,
        history=history,
        attempt=1,
    )
