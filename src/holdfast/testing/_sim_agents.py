"""
Agents of simulated processes: what they say, what they do, and how they fail.

They stream, call tools with and without replay, are steered, end in silence, fail with every
reason a provider has, break off, raise, hang, and take no notice of being cancelled.  What a
tool does is counted outside of all processes, as the world would remember it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol

from holdfast._core.failover import PROVIDER_REASONS
from holdfast._core.tree import text_of
from holdfast.errors import DeadlockError, ProviderError, QueueFullError, ToolError
from holdfast.types import Final as Reply
from holdfast.types import Made, Silent, Text, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from holdfast._runtime.runtime import Holdfast
    from holdfast.ports import ToolHook
    from holdfast.testing._sim_world import World
    from holdfast.types import AgentEvent, Prompt

__all__ = ["Remembered", "SimAgent", "call_id_of"]

#: What an agent does when it is asked → how often.
MOODS: Final[Mapping[str, int]] = {
    "answers": 70, "silent": 4, "fails": 8, "raises": 2, "breaks_off": 3, "hangs": 3,
    "deaf": 2,
}  # fmt: skip
DEAF_S: Final = 4.0  #: So long it takes no notice of being cancelled.
#: Lane → how long until the first word; a heartbeat is there to be pre-empted.
FIRST_S: Final[Mapping[str, tuple[float, ...]]] = {"heartbeat": (0.0, 0.3, 0.5)}
TOOL_S: Final = (0.0, 0.0, 0.02, 0.3)


class Remembered(Protocol):
    """Who looks at what agents and their tools do."""

    def asked(self, prompt: Prompt) -> None:
        """A model is called."""
        ...

    def effect(self, prompt: Prompt, call: ToolCall) -> None:
        """A tool has done what it does."""
        ...

    def failed(self, prompt: Prompt, reason: str) -> None:
        """The model failed so."""
        ...

    def child(self, prompt: Prompt) -> str | None:
        """The key of the session that a tool asks; None: it asks nobody."""
        ...


class SimAgent:
    """One process's.  Its moods are drawn from the world's lots."""

    def __init__(self, world: World, watched: Remembered) -> None:
        self._world, self._watched = world, watched
        self.door: Holdfast | None = None  #: By which it asks for other turns.

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        self._watched.asked(prompt)
        lots = self._world.lots
        mood = lots.choices(list(MOODS), list(MOODS.values()))[0]
        self._world.note(f"{self._world.process.name} asks for {prompt.text!r}: {mood}")
        await asyncio.sleep(lots.choice(FIRST_S.get(prompt.lane, (0.0, 0.01, 0.2))))
        said = [f"reply to {each}" for each in prompt.text.split("\n\n")]
        said += [f"heard {text_of(each)}" for each in prompt.made if each.get("role") == "user"]
        async for event in self._tools(prompt, hook, said):
            yield event
        yield Text(" & ".join(said))
        if mood != "answers":
            await self._in_a_mood(mood, prompt)
        if mood == "silent":
            yield Silent("no_reply")
            return
        if mood == "breaks_off":
            return
        await asyncio.sleep(lots.choice((0.0, 0.0, 0.01, 0.1)))
        text = " & ".join(said)
        yield Reply(_assistant([{"type": "text", "text": text}], "stop"), text)

    async def _in_a_mood(self, mood: str, prompt: Prompt) -> None:
        match mood:
            case "fails":
                reason = self._world.lots.choice(sorted(PROVIDER_REASONS))
                self._watched.failed(prompt, reason)
                raise ProviderError(reason=reason, detail="simulated")
            case "raises":
                self._watched.failed(prompt, "agent_error")
                raise ValueError("simulated")
            case "breaks_off":
                self._watched.failed(prompt, "truncated")
            case "hangs":
                self._watched.failed(prompt, "timeout")
                await asyncio.sleep(1e6)
            case "deaf":
                self._watched.failed(prompt, "timeout")
                await _deaf(DEAF_S)

    async def _tools(
        self, prompt: Prompt, hook: ToolHook, said: list[str]
    ) -> AsyncGenerator[AgentEvent, None]:
        """Call what this turn's question asks for, unless it was called before."""
        asked, done = _called(prompt.made)
        for number, (replay, takes_s) in enumerate(_calls(prompt)):
            said.extend(f"heard {each.text}" for each in await hook.steered())
            call = ToolCall(call_id_of(prompt, number), "count", {"n": number}, replay, 2.0)
            if call.call_id in done:
                continue
            block = {"type": "toolCall", "id": call.call_id, "name": "count", "arguments": {}}
            if call.call_id not in asked:  # Else an earlier attempt broke off behind it.
                yield Made(_assistant([block], "toolUse"))
            try:
                result = await hook(call, partial(self._run, prompt, call, takes_s))
                failed = False
            except TimeoutError:
                result, failed = "it took too long", True
            except ToolError as error:
                result, failed = str(error), True
            yield Made(
                {
                    "role": "toolResult", "toolCallId": call.call_id, "toolName": "count",
                    "content": [{"type": "text", "text": str(result)}], "isError": failed,
                }
            )  # fmt: skip
        said.extend(f"heard {each.text}" for each in await hook.steered())

    async def _run(self, prompt: Prompt, call: ToolCall, takes_s: float) -> str:
        await asyncio.sleep(takes_s)
        key = self._watched.child(prompt)
        if key is not None and call.replay == "safe":
            return await self._ask(key, prompt, call)
        self._world.step("effect.tool", ())
        self._watched.effect(prompt, call)
        self._world.step("effect.made", ())
        await asyncio.sleep(takes_s)
        return "counted"

    async def _ask(self, key: str, prompt: Prompt, call: ToolCall) -> str:
        """Ask for another turn, and wait for it."""
        assert self.door is not None
        try:
            outcome = await self.door.ask(
                key, f"{prompt.text.split()[0]}/{call.arguments['n']}",
                idempotency_key=call.call_id,
            )  # fmt: skip
        except (QueueFullError, DeadlockError) as error:
            return error.code
        return f"{outcome.kind}: {outcome.text}"


def call_id_of(prompt: Prompt, number: int) -> str:
    return f"{prompt.turn_id}-call-{number}"


def _calls(prompt: Prompt) -> list[tuple[Any, float]]:
    """(replay, seconds) of each tool that the question asks for: the same at every attempt."""
    lots = Random(prompt.turn_id)  # noqa: S311
    if lots.random() < 0.6:
        return []
    return [
        (lots.choice(("never", "safe")), lots.choice(TOOL_S)) for _ in range(lots.randint(1, 3))
    ]


def _called(made: tuple[Mapping[str, Any], ...]) -> tuple[set[str], set[str]]:
    """The ids of calls that stand in what was made before, and of those that have a result."""
    asked = {
        block["id"]
        for each in made if each.get("role") == "assistant"
        for block in each["content"] if block["type"] == "toolCall"
    }  # fmt: skip
    return asked, {each["toolCallId"] for each in made if each.get("role") == "toolResult"}


def _assistant(content: list[dict[str, Any]], stop: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "stopReason": stop}


async def _deaf(seconds: float) -> None:
    """Sleep, whatever is asked meanwhile."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + seconds
    while (left_s := until_s - loop.time()) > 0:
        try:
            await asyncio.sleep(left_s)
        except asyncio.CancelledError:
            continue
