"""
Processes of a soak that use Holdfast: runners, which are killed, and a sender, which is not.

Each notes what it is going to send before it sends it, and what it was told after: one write
to a file that its death does not take away.  A message that was begun and has no answer is
sent again by the next life of its sender, under the same idempotency key.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import zlib
from typing import TYPE_CHECKING, Any, Final

from holdfast import _assemble
from holdfast._core import delivery
from holdfast.agents.pydantic_ai import PydanticAgent
from holdfast.agents.tools import tool
from holdfast.errors import (
    CoordinationError,
    DrainingError,
    HoldfastError,
    NotFoundError,
    UnavailableError,
)
from holdfast.lab.soak_plan import OUTSIDE, read_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast._runtime.receipts import Outcome, Receipt
    from holdfast._runtime.runtime import Holdfast
    from holdfast.lab.child import Child
    from holdfast.lab.soak_plan import Act

__all__ = ["EFFECTS", "Notes", "runner", "sender"]

MODEL: Final = "openai-chat:soak"
EFFECTS: Final = "effects"
#: A soak is short: what takes minutes in life takes a second here.
BACKOFF_MS: Final = (300, 800, 1_500, 3_000)
TOOL_MOST_S: Final = 0.2
ASK_MOST_S: Final = 30.0
TRIES: Final = 40  #: To hand a message in while the store is blocked.
AGAIN_S: Final = 0.25
FINISH_S: Final = 5.0


class Notes:
    """What one sender did and was told, a line each; read again by its next life."""

    def __init__(self, path: str) -> None:
        self.begun: set[str] = set()
        self.answered: dict[str, str] = {}  #: Message → turn; "": refused.
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                for line in file:
                    self._learn(json.loads(line))
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(self, n: str, what: str, **facts: Any) -> None:
        told = {"n": n, "what": what, **facts}
        os.write(self._fd, json.dumps(told).encode() + b"\n")
        self._learn(told)

    def _learn(self, told: dict[str, Any]) -> None:
        self.begun.add(told["n"])
        if told["what"] in {"accepted", "refused"}:
            self.answered[told["n"]] = told.get("turn", "")


class Sender:
    """Does the acts of one number, each in its time; what is late is done at once."""

    def __init__(
        self, hf: Holdfast, acts: Sequence[Act], notes: Notes, now_s: Callable[[], float]
    ) -> None:
        self._hf, self._notes, self._now_s = hf, notes, now_s
        self._acts = acts
        self._sent = {act.n: act for act in acts if act.what == "send"}
        self._tasks: set[asyncio.Task[None]] = set()
        self.handing_in = 0  #: Acts under way that may still be accepted.

    async def run(self) -> None:
        for act in self._acts:
            if str(act.n) in self._notes.answered:
                continue
            await asyncio.sleep(max(0.0, act.at_s - self._now_s()))
            self.handing_in += 1
            task = asyncio.create_task(self._do(act))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Nobody here waits for an outcome any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _do(self, act: Act) -> None:
        try:
            try:
                receipt = await self._handed_in(act)
            finally:
                self.handing_in -= 1
            if receipt is not None:
                _told(self._notes, str(act.n), await receipt.outcome())
        except DrainingError:
            return  # This process leaves; the row knows.
        except Exception as error:  # noqa: BLE001  Told: it makes the soak unclean.
            self._notes.tell(str(act.n), "broke", error=repr(error))

    async def _handed_in(self, act: Act) -> Receipt | None:
        if act.what == "send":
            return await self._submit(act, act)
        if act.what == "again":
            return await self._submit(act, self._sent[act.of])
        turn_id = self._notes.answered.get(str(act.of))
        try:
            if act.what == "reset":
                await self._hf.reset(act.key)
            elif turn_id:
                await self._hf.cancel(turn_id, rollback=act.what == "take_back")
        except HoldfastError as error:
            self._notes.tell(str(act.n), "refused", code=error.code)
        else:
            self._notes.tell(str(act.n), "done")
        return None

    async def _submit(self, act: Act, message: Act) -> Receipt | None:
        self._notes.tell(str(act.n), "begun", of=message.n)
        for _ in range(TRIES):
            try:
                receipt = await self._hf.submit(
                    message.key, message.text, lane=message.lane, policy=message.policy,
                    source="soak", sender=message.sender, target=message.target,
                    idempotency_key=f"soak-{message.n}",
                )  # fmt: skip
            except DrainingError:
                return None
            except UnavailableError:  # Accepted or not: the same key finds out.
                await asyncio.sleep(AGAIN_S)
            except CoordinationError as error:
                self._notes.tell(str(act.n), "refused", of=message.n, code=error.code)
                return None
            else:
                self._notes.tell(str(act.n), "accepted", of=message.n, turn=receipt.turn_id)
                return receipt
        return None


def _told(notes: Notes, n: str, outcome: Outcome) -> None:
    notes.tell(n, "told", turn=outcome.turn_id, kind=outcome.kind, text=outcome.text)


# ----------------------------------------------------------------------------------- tools


class Tools:
    """What the model may call.  Effects are counted in a file, where death leaves them."""

    def __init__(self, work: str, notes: Notes) -> None:
        where = os.path.join(work, EFFECTS)
        self._fd = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._notes = notes
        self.hf: Holdfast | None = None

    def all(self) -> list[Callable[..., Any]]:
        @tool(replay="safe", timeout_s=5)
        async def safe(tag: str) -> str:
            """Count, and do it again if need be."""
            return await self._count("safe", tag)

        @tool(replay="never", timeout_s=5)
        async def never(tag: str) -> str:
            """Count, at most once."""
            return await self._count("never", tag)

        @tool(replay="safe", timeout_s=ASK_MOST_S)
        async def ask(tag: str, key: str, text: str) -> str:
            """Ask another session; the idempotency key makes it safe."""
            return await self._ask(tag, key, text)

        return [safe, never, ask]

    async def _count(self, kind: str, tag: str) -> str:
        chance = zlib.crc32(tag.encode()) / 2**32
        await asyncio.sleep(chance * TOOL_MOST_S)
        os.write(self._fd, f"{kind} {tag}\n".encode())
        await asyncio.sleep((1 - chance) * TOOL_MOST_S)
        return f"counted {tag}"

    async def _ask(self, tag: str, key: str, text: str) -> str:
        assert self.hf is not None
        self._notes.tell(tag, "begun", of=tag)
        try:
            outcome = await self.hf.ask(key, text, idempotency_key=f"soak-{tag}")
        except (UnavailableError, DrainingError) as error:
            return f"not known: {error.code}"
        except NotFoundError as error:
            return f"gone: {error.code}"
        except CoordinationError as error:
            self._notes.tell(tag, "refused", of=tag, code=error.code)
            return f"refused: {error.code}"
        self._notes.tell(tag, "accepted", of=tag, turn=outcome.turn_id)
        _told(self._notes, tag, outcome)
        return f"{outcome.kind}: {outcome.text}"


# -------------------------------------------------------------------------------- processes


async def runner(
    child: Child, *, work: str, state: str, number: int, life: int, hook_url: str
) -> None:
    """A runner that also sends, until the parent says stop."""
    delivery.BACKOFF_MS = BACKOFF_MS  # type: ignore[misc]
    plan, notes = _begin(work, f"runner-{number}", life)
    tools = Tools(work, Notes(os.path.join(work, f"asks-{number}.notes")))
    agent = PydanticAgent(MODEL, tools=tools.all())
    async with _assemble.open(state, agent=agent, settings=plan.settings(hook_url)) as hf:
        tools.hf = hf
        acts = [act for act in plan.acts if act.by == number]
        await _send(child, hf, acts, notes, work)
    await agent.aclose()


async def sender(child: Child, *, work: str, state: str, hook_url: str) -> None:
    """A process without an agent: what it sends is anybody's to run."""
    plan, notes = _begin(work, "sender", 0)
    async with _assemble.open(state, channels=(), settings=plan.settings(hook_url)) as hf:
        acts = [act for act in plan.acts if act.by == OUTSIDE]
        await _send(child, hf, acts, notes, work)


def _begin(work: str, name: str, life: int) -> tuple[Any, Notes]:
    logging.basicConfig(
        filename=os.path.join(work, f"{name}.{life}.log"), level=logging.WARNING,
        format="%(asctime)s %(name)s %(levelname)s %(message)s",
    )  # fmt: skip
    logging.getLogger("holdfast").setLevel(logging.INFO)
    notes = Notes(os.path.join(work, f"{name}.notes"))
    return read_plan(os.path.join(work, "plan.json")), notes


def _start_s(work: str) -> float:
    """By CLOCK_MONOTONIC, which is one for all processes of a machine."""
    with open(os.path.join(work, "start"), encoding="utf-8") as file:
        return float(file.read())


async def _send(
    child: Child, hf: Holdfast, acts: Sequence[Act], notes: Notes, work: str
) -> None:
    await child.ready()
    start_s = _start_s(work)
    sending = Sender(hf, acts, notes, lambda: time.monotonic() - start_s)
    task = asyncio.create_task(sending.run())
    calm = asyncio.create_task(child.order("calm"))
    await asyncio.wait({task, calm}, return_when=asyncio.FIRST_COMPLETED)
    await calm
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    while sending.handing_in:  # noqa: ASYNC110  Bounded by TRIES.
        await asyncio.sleep(AGAIN_S)
    child.say("hushed")
    await child.order("stop")
    await sending.stop()
    await hf.drain(finish_s=FINISH_S)
