"""
One simulated process of the third layer: it opens Holdfast, sends, runs, and leaves.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

from holdfast._runtime.runtime import Holdfast
from holdfast.errors import HoldfastError
from holdfast.testing._sim_agents import SimAgent
from holdfast.testing._sim_channels import SimChannel
from holdfast.testing._sim_loop import run_loop
from holdfast.testing._sim_senders import KEYS, Sender
from holdfast.testing._sim_store import SteppedStore

if TYPE_CHECKING:
    from holdfast.testing._sim_senders import Message
    from holdfast.testing._sim_whole import Whole
    from holdfast.types import Prompt, ToolCall

__all__ = ["Program"]


class Program:
    """What one process does; the body of its main thread."""

    def __init__(self, whole: Whole, messages: list[Message], *, runs: bool = True) -> None:
        self._whole, self.messages, self.runs = whole, messages, runs
        self.leaves_s: float | None = None  #: It is stopped, in good order, after so long.
        self.owner_id: Any = None
        self.done = False  #: Nothing is left that it would send.
        self._told: Any = None

    def __call__(self) -> None:
        run_loop(self._whole.world, self._main)

    def told(self) -> None:
        """Everything is over: it may go.  From any process."""
        if self._told is not None:
            loop, end = self._told
            loop.call_soon_threadsafe(lambda: end.done() or end.set_result(None))

    async def _main(self) -> None:
        whole, process = self._whole, self._whole.world.process
        while not whole.over:
            try:
                await self._live()
                break
            except HoldfastError as error:  # Whoever looks after it starts it again.
                whole.world.note(f"{process.name} does not start: {error!r}")
                self.owner_id = None
                await asyncio.sleep(0.2)
        if not whole.over:
            whole.after(process, self)

    async def _live(self) -> None:
        whole = self._whole
        store = SteppedStore(
            whole.control, whole.settings, whole.world, whole.changed, whole.promises.by_token
        )
        self.owner_id = store.owner.owner_id
        agent = SimAgent(whole.world, _Watch(whole, self.owner_id))
        channel = SimChannel(
            whole.world, whole.receiver, self.owner_id,
            ambiguous=whole.ambiguous, reconciles=whole.reconciles,
        )  # fmt: skip
        agent.door = hf = Holdfast(
            store, whole.settings, {"main": agent} if self.runs else {},
            [channel] if self.runs else (),
        )  # fmt: skip
        async with hf:
            loop = asyncio.get_running_loop()
            end = loop.create_future()
            self._told = (loop, end)
            sending = asyncio.create_task(self._send(hf))
            left, _ = await asyncio.wait({end}, timeout=self.leaves_s)
            if not left:
                await whole.letting.drain(hf)
            sending.cancel()
            await asyncio.wait({sending})
        self._told = None
        whole.letting.left(self.owner_id)

    async def _send(self, hf: Holdfast) -> None:
        sender = Sender(hf, self._whole.now_s, self._whole.letting)
        left = [each for each in self.messages if not each.over]
        tasks = [asyncio.create_task(sender.send(each)) for each in left]
        try:
            if tasks:
                await asyncio.wait(tasks)
            self.done = all(each.over for each in left)  # Else somebody else goes on.
            self._whole.look()
        finally:
            for task in tasks:
                task.cancel()
            for each in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(each, Exception) and not isinstance(each, HoldfastError):
                    raise each


class _Watch:
    """Whose model is called, for the promises."""

    def __init__(self, whole: Whole, owner_id: str) -> None:
        self._promises, self._owner_id = whole.promises, owner_id
        self._lots = whole.world.lots

    def asked(self, prompt: Prompt) -> None:
        self._promises.asked(prompt, self._owner_id)

    def effect(self, prompt: Prompt, call: ToolCall) -> None:
        self._promises.effect(prompt, call)

    def failed(self, prompt: Prompt, reason: str) -> None:
        self._promises.failed(prompt, reason)

    def child(self, prompt: Prompt) -> str | None:
        if "/" in prompt.text or Random(prompt.turn_id + "?").random() < 0.5:  # noqa: S311
            return None  # A child asks nobody.
        return self._lots.choice(KEYS)
