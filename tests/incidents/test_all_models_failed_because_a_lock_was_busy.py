"""
"All models failed", because a lock was busy (issues #85913, #83510, #13744; PR #88658).

What happened there: contention between two runs of the same machine came back through the
path of provider failures.  The next model was asked, met the same lock and waited again, up
to N times 300 s; then the user read "All models failed" and the reply was gone.  What was not
typed was told apart by its text.

What happens here: contention is a closed set of types.  None is a provider's failure: it asks
no other model, is retried by nobody, spends no attempt, and a finished reply waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import holdfast
from holdfast import errors
from holdfast._core import failover
from holdfast.errors import CoordinationError, LockTimeoutError, ProviderError
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Say
from holdfast.types import Prompt
from support import oracle
from support.incident import KEY, Gate

#: One attempt, no more: who spends one on contention has failed the turn.
ONE = {"turn.max_attempts": 1, "abort.settle_ms": 50}


def test_contention_is_a_closed_set_of_types_and_none_is_a_providers() -> None:
    found = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, CoordinationError)
    ]
    assert {"LockTimeoutError", "LockStaleError", "OwnerWaitError", "TakeoverError"} <= {
        each.__name__ for each in found
    }
    for each in found:
        assert not issubclass(each, ProviderError), each
        assert getattr(each, "code", None) not in failover.REASONS, each


async def test_a_busy_lock_before_the_model_is_asked_spends_no_attempt(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model, settings=ONE) as hf:
        await (await hf.submit(KEY, "first")).outcome(20)
        other = holdfast.WriteLock(oracle.only_transcript(tmp_path))
        hold = await other.acquire()
        receipt = await hf.submit(KEY, "second")
        put_back = False
        async with asyncio.timeout(20):
            while not put_back:  # Met the lock, and went back to its place.
                turn = await hf.store.control.turn(receipt.turn_id)
                assert turn.outcome is None, f"it ended by {turn.reason}"
                put_back = turn.state == "accepted" and turn.started_at is not None
                await asyncio.sleep(0.001)
        assert len(model.prompts) == 1, "a model was asked about a lock"
        hold.release()
        outcome = await receipt.outcome(20)
    assert (outcome.kind, outcome.attempts) == ("replied", 1)
    assert len(model.prompts) == 2


async def test_a_busy_lock_after_the_model_has_answered_costs_no_second_answer(
    tmp_path: Path,
) -> None:
    gate = Gate()
    model = ScriptedModel([Say(("the ", "reply"))], gate=gate)
    async with holdfast.open(tmp_path, agent=model, settings=ONE) as hf:
        receipt = await hf.submit(KEY, "long")
        await gate.reached.wait()
        hold = await holdfast.WriteLock(oracle.only_transcript(tmp_path)).acquire()
        gate.opened.set()
        async with asyncio.timeout(20):
            while (await hf.store.control.turn(receipt.turn_id)).finished is None:
                await asyncio.sleep(0.001)
        hold.release()
        outcome = await receipt.outcome(20)
    assert (outcome.kind, outcome.text, outcome.attempts) == ("replied", "the reply", 1)
    assert len(model.prompts) == 1


class Mirroring:
    """An agent whose own mirror meets a busy lock, once, in the middle of its answer."""

    def __init__(self) -> None:
        self.asked = 0
        self._inner = ScriptedModel()

    async def respond(self, prompt: Prompt, hook: Any) -> AsyncGenerator[Any, None]:
        self.asked += 1
        if self.asked == 1:
            raise LockTimeoutError(path="mirror.jsonl", timeout_s=60, holder="pid 1")
        async for event in self._inner.respond(prompt, hook):
            yield event


async def test_contention_that_comes_through_the_agent_is_not_the_models_fault(
    tmp_path: Path,
) -> None:
    agent = Mirroring()
    async with holdfast.open(tmp_path, agent=agent, settings=ONE) as hf:
        outcome = await (await hf.submit(KEY, "hello")).outcome(20)
    assert (outcome.kind, outcome.attempts) == ("replied", 1)
    assert agent.asked == 2
