"""
What a turn does not wait for: a transaction of its own for its lease, one for `why`, looks
that find nothing.  No timings: what is asked of the store, and in which order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest

import holdfast
from holdfast._core.settings import Settings
from holdfast._runtime import beginning, pump
from holdfast._runtime.pump import Pump
from holdfast.backends.memory import MemoryStore, World
from holdfast.errors import RejectedError, UnavailableError, UnknownAgentError
from holdfast.testing import ScriptedModel

KEY = "agent:main:main"
SOON_S = 10.0  #: A bound for what would never come.


@asynccontextmanager
async def running(agent: Any, world: World | None = None) -> AsyncIterator[holdfast.Holdfast]:
    store = MemoryStore(world or World(), Settings())
    async with holdfast.Holdfast(store, Settings(), {"main": agent}) as hf:
        yield hf


class Held:
    """Calls of one method of a store, held up until they may go on."""

    def __init__(self, control: Any, name: str) -> None:
        self.asked, self.go, self.calls = asyncio.Event(), asyncio.Event(), 0
        self._real = getattr(control, name)
        setattr(control, name, self)

    async def __call__(self, *args: Any, **more: Any) -> Any:
        self.calls += 1
        self.asked.set()
        await self.go.wait()
        return await self._real(*args, **more)


def counted(control: Any, name: str) -> list[Any]:
    """What calls of *name* return from now on."""
    real, results = getattr(control, name), list[Any]()

    async def call(*args: Any, **more: Any) -> Any:
        results.append(await real(*args, **more))
        return results[-1]

    setattr(control, name, call)
    return results


# ------------------------------------------------------------- the lease behind its admission


async def test_the_lease_is_asked_for_behind_the_admission_not_after_its_answer() -> None:
    async with running(ScriptedModel()) as hf:
        admit, pick = Held(hf.store.control, "admit"), Held(hf.store.control, "pick")
        sending = asyncio.create_task(hf.submit(KEY, "hello"))
        async with asyncio.timeout(SOON_S):
            await admit.asked.wait()
            await pick.asked.wait()  # The admission is not answered yet.
            admit.go.set()
            receipt = await sending
            pick.go.set()
            assert (await receipt.outcome()).kind == "replied"


async def test_a_session_that_runs_here_is_not_picked_for_in_vain() -> None:
    gate = asyncio.Event()
    async with running(Slow(gate)) as hf:
        first = await hf.submit(KEY, "one")
        async with asyncio.timeout(SOON_S):
            while not hf._runner.runs(first.turn_id):  # type: ignore[arg-type]
                await hf.change()
        picks = counted(hf.store.control, "pick")
        await hf.submit(KEY, "two")
        assert picks == []
        gate.set()


class Slow(ScriptedModel):
    """Answers when it may."""

    def __init__(self, gate: asyncio.Event) -> None:
        super().__init__()
        self._may = gate

    async def respond(self, prompt: Any, hook: Any) -> Any:
        await self._may.wait()
        async for event in super().respond(prompt, hook):
            yield event


async def test_a_refused_message_costs_nobody_anything() -> None:
    """The admission is refused, and the pick behind it finds nothing, or somebody else's."""
    gate = asyncio.Event()
    async with running(Slow(gate)) as hf:
        first = await hf.submit(KEY, "one")
        with pytest.raises(UnknownAgentError):
            await hf.submit("agent:nobody:main", "two")
        with pytest.raises(RejectedError):
            await hf.submit(KEY, "three", policy="reject")
        gate.set()
        assert (await first.outcome(timeout_s=SOON_S)).kind == "replied"


async def test_a_pick_that_fails_is_made_again_by_a_look() -> None:
    async with running(ScriptedModel()) as hf:
        control: Any = hf.store.control
        real, failures = control.pick, iter([True])

        async def pick(*args: Any, **more: Any) -> Any:
            if next(failures, False):
                raise UnavailableError(path="memory:", detail="broken")
            return await real(*args, **more)

        control.pick = pick
        async with asyncio.timeout(SOON_S):
            receipt = await hf.submit(KEY, "hello")
            assert (await receipt.outcome()).kind == "replied"


async def test_a_run_knows_nothing_of_its_senders_context() -> None:
    who: ContextVar[str] = ContextVar("who", default="nobody")
    seen: list[str] = []

    class Looks(ScriptedModel):
        async def respond(self, prompt: Any, hook: Any) -> Any:
            seen.append(who.get())
            async for event in super().respond(prompt, hook):
                yield event

    async with running(Looks()) as hf:
        who.set("the sender")
        receipt = await hf.submit(KEY, "hello")
        await receipt.outcome(timeout_s=SOON_S)
    assert seen == ["nobody"]


async def test_closing_waits_for_a_pick_under_way() -> None:
    """What it leases is run, or goes back: no lease is left that nobody runs."""
    world = World()
    async with running(ScriptedModel(), world) as hf:
        pick = Held(hf.store.control, "pick")
        await hf.submit(KEY, "hello")
        await pick.asked.wait()
        closing = asyncio.create_task(hf.close(finish_s=60))
        closed, _ = await asyncio.wait({closing}, timeout=0.5)
        assert not closed
        pick.go.set()
        await closing
        assert not world.leases


# ------------------------------------------------------------------ what is noted for `why`


async def test_no_model_waits_for_the_note_that_its_token_is_effective() -> None:
    async with running(ScriptedModel()) as hf:
        note = Held(hf.store.control, "make_effective")
        receipt = await hf.submit(KEY, "hello")
        assert (await receipt.outcome(timeout_s=SOON_S)).kind == "replied"
        assert note.calls == 0, "a turn that is over asks for nothing more"


async def test_a_run_that_lasts_is_noted_as_effective(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning, "NOTE_AFTER_S", 0.0)
    gate = asyncio.Event()
    async with running(Slow(gate)) as hf:
        note = Held(hf.store.control, "make_effective")
        receipt = await hf.submit(KEY, "hello")
        async with asyncio.timeout(SOON_S):
            await note.asked.wait()
        gate.set()  # It is answered, though the note still is not.
        assert (await receipt.outcome(timeout_s=SOON_S)).kind == "replied"
        note.go.set()


# ------------------------------------------------------------------------- looks, and waiting


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not what():
            await asyncio.sleep(0)


async def test_who_waits_from_now_on_costs_no_look_but_is_polled_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pump, "POLL_WAITING_S", 3_600.0)
    looks, waits = 0, False

    async def look() -> None:
        nonlocal looks
        looks += 1

    pumped = Pump(look, lambda: waits)
    pumped.start()
    pumped.wake()
    await until(lambda: looks == 1)
    waits = True
    pumped.attend()
    for _ in range(10):
        await asyncio.sleep(0)
    assert looks == 1
    monkeypatch.setattr(pump, "POLL_WAITING_S", 0.0)
    pumped.attend()
    await until(lambda: looks > 1)
    await pumped.stop()


async def test_everybody_who_waits_for_a_turn_is_told_and_who_gave_up_is_forgotten() -> None:
    gate = asyncio.Event()
    async with running(Slow(gate)) as hf:
        receipt = await hf.submit(KEY, "hello")
        waiting = [asyncio.create_task(receipt.outcome()) for _ in range(3)]
        await until(lambda: len(hf._receipts) == 1)
        await asyncio.sleep(0)
        waiting[0].cancel()
        gate.set()
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(told[0], asyncio.CancelledError)
        assert [each.kind for each in told[1:]] == ["replied", "replied"]  # type: ignore[union-attr]
        assert len(hf._receipts) == 0


async def test_nobody_is_waited_for_any_more_when_the_last_has_given_up() -> None:
    async with running(Slow(asyncio.Event())) as hf:
        receipt = await hf.submit(KEY, "hello")
        with pytest.raises(TimeoutError):
            await receipt.outcome(timeout_s=0)
        assert len(hf._receipts) == 0
        await hf.close(finish_s=0)
