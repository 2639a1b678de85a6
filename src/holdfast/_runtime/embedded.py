"""
Sending from a process that serves nobody: `send` and `chat`.

If a permanent runner of the agent is there, the message is its to answer, and we only wait.
If none is, this process becomes an *embedded* runner of that one session: it answers what
stands there before its own message, then its own message, and leaves.  While it waits it
looks again every second, because the permanent runner may be gone by then.

An embedded runner is never a reason for another not to run, and hands back what it holds:
closing it puts a running turn back in its place (`Holdfast.close`).
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from holdfast._core import keys
from holdfast.errors import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from holdfast._runtime.receipts import Outcome, Receipt
    from holdfast._runtime.runtime import Holdfast
    from holdfast.ports import Agent, ToolHook
    from holdfast.types import AgentEvent, Place, Prompt

__all__ = ["LOOK_S", "Message", "ModelSwitch", "Told", "answer", "stand_in"]

#: The first look comes sooner: a runner that has just died is found dead within a second.
FIRST_LOOK_S: Final = 0.5
LOOK_S: Final = 1.0

_log = logging.getLogger("holdfast")


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be sent; the fields are those of `Holdfast.submit`."""

    key: str
    text: str
    lane: str = "user"
    source: str = "cli"
    policy: str | None = None
    idempotency_key: str | None = None
    model: str | None = None

    async def submit(self, hf: Holdfast) -> Receipt:
        return await hf.submit(
            self.key, self.text, lane=self.lane, source=self.source, policy=self.policy,
            idempotency_key=self.idempotency_key, model=self.model,
        )  # fmt: skip


class Told(Protocol):
    """Who wants to know how the sending goes."""

    def embedded(self) -> None:
        """This process answers now."""
        ...

    def accepted(self, receipt: Receipt) -> None:
        """The message is durable."""
        ...

    def waiting(self, place: Place) -> None:
        """Another look, no outcome yet."""
        ...


class ModelSwitch:
    """
    An `Agent` without a model of its own, that honours the model which a turn asks for.

    Args:
        default: answers turns that name no model.
        named: makes the agent for a model's name; called once a name.
    """

    def __init__(self, default: Agent, named: Callable[[str], Agent]) -> None:
        self._default, self._make = default, named
        self._named: dict[str, Agent] = {}

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        agent = self._default
        if prompt.model is not None:
            if prompt.model not in self._named:
                self._named[prompt.model] = self._make(prompt.model)
            agent = self._named[prompt.model]
        async with aclosing(agent.respond(prompt, hook)) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        """Close what the agents of named models keep open."""
        for agent in self._named.values():
            close: Any = getattr(agent, "aclose", None)
            if close is not None:
                await close()


async def answer(hf: Holdfast, message: Message, agent: Agent, told: Told) -> Outcome:
    """
    Send *message* and wait for its outcome, running it here if nobody else does.

    Raises:
        InputError, QueueFullError, RejectedError: it was not accepted.
        StoreError: before `Told.accepted`: not accepted, unless ``landed`` is None.

    Cancellation:
        Once accepted, the message stays in the queue.  Close *hf* to hand back what runs.
    """
    # Before the message is sent, so that it is ours to run.  A session that does not exist
    # yet cannot be embedded in; its first message belongs to nobody, and we come right after.
    embedded = await _embed(hf, message.key, agent, told)
    receipt = await message.submit(hf)
    told.accepted(receipt)
    wait_s = 0.0
    while True:
        try:
            if not embedded:
                embedded = await _embed(hf, message.key, agent, told)
            if wait_s:
                told.waiting(await hf.store.control.place(receipt.turn_id, hf.settings.lanes))
        except UnavailableError as error:
            _log.warning("the store did not serve this look: %s", error)
        wait_s = LOOK_S if wait_s else FIRST_LOOK_S
        try:
            return await receipt.outcome(timeout_s=wait_s)
        except TimeoutError:
            continue
        except UnavailableError as error:  # The first question; from now on we are told.
            _log.warning("the store did not serve this look: %s", error)


async def stand_in(hf: Holdfast, key: str, agent: Agent) -> bool:
    """
    Become the session's embedded runner, unless a permanent one is there.

    Returns:
        Whether this process runs the session's turns now.  False also if the session does
        not exist yet: its first message makes it.
    """
    agent_id = keys.agent_of(keys.canonical(key))
    if await hf.has_permanent_runner(agent_id):
        return False
    try:
        await hf.embed({agent_id: agent}, key=key)
    except NotFoundError:
        return False
    return True


async def _embed(hf: Holdfast, key: str, agent: Agent, told: Told) -> bool:
    embedded = await stand_in(hf, key, agent)
    if embedded:
        told.embedded()
    return embedded
