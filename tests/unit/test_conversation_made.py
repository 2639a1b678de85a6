"""
A run's talk with its agent, as far as it is durable: what was made is kept before the agent
goes on, and every attempt goes on after all of it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from holdfast._core.settings import Settings
from holdfast._runtime import entries
from holdfast._runtime.conversation import Conversation, Ended, Said
from holdfast._runtime.live import Live
from holdfast._runtime.tools import Tools
from holdfast.agents import _transcript
from holdfast.backends.memory import MemoryStore, World
from holdfast.errors import ProviderError, UnavailableError
from holdfast.testing import ScriptedModel
from holdfast.testing._conform import admit, leased_now
from holdfast.testing.scripted import Call, Fail, Quiet, Say
from holdfast.types import (
    AgentEvent,
    Final,
    Leased,
    Made,
    MadeEntry,
    Prompt,
    Steered,
    Text,
    ToolCall,
)

PASSES = ProviderError(reason="timeout", detail="x", retry_after_s=0.0)


class Case:
    def __init__(self, store: MemoryStore, leased: Leased) -> None:
        self.store, self.leased = store, leased
        self.ran: list[str] = []

    def talk(self, agent: Any, **more: Any) -> Conversation:
        turn, token = self.leased.turn, self.leased.token
        live = Live(self.store.live, turn.turn_id, token)
        tools = self.tools = Tools(
            self.store.control, turn.turn_id, token, lambda: None, live, **more
        )  # fmt: skip

        async def count() -> int:
            return await self.store.control.count_attempt(turn.turn_id, token)

        return Conversation(agent, tools, live, count, Settings())

    def prompt(self) -> Prompt:
        turn = self.leased.turn
        return Prompt(
            turn_id=turn.turn_id, session_id=turn.session_id, session_key=turn.session_key,
            agent_id="main", lane="user", source="test", text="q", history=(), attempt=1,
        )  # fmt: skip

    async def rows(self) -> list[MadeEntry]:
        return await self.store.control.made(self.leased.turn.turn_id)

    def call(self, call_id: str = "c1", result: Any = "paid") -> Call:
        async def run() -> Any:
            self.ran.append(call_id)
            if isinstance(result, BaseException):
                raise result
            return result

        return Call("pay", run, call_id=call_id)


@pytest.fixture
async def case() -> AsyncIterator[Case]:
    store = MemoryStore(World(), Settings())
    await store.control.register(store.owner)
    await store.control.register_runner(store.owner.owner_id, ["main"], permanent=True)
    await admit(store)
    yield Case(store, await leased_now(store))
    await store.close()


async def test_what_was_made_is_durable_when_the_agent_is_asked_to_go_on(case: Case) -> None:
    seen: list[int] = []

    class Looking(ScriptedModel):
        async def respond(self, prompt: Prompt, hook: Any) -> AsyncGenerator[AgentEvent, None]:
            async for event in super().respond(prompt, hook):
                yield event
                if isinstance(event, Made):
                    seen.append(len(await case.rows()))

    await case.talk(Looking([case.call(), Say(("done",))])).answer(case.prompt())
    assert seen == [1, 2]


async def test_a_reply_carries_the_ids_that_are_durable(case: Case) -> None:
    said = await case.talk(ScriptedModel([case.call(), Say(("done",))])).answer(case.prompt())
    assert isinstance(said, Said)
    rows = await case.rows()
    assert said.ids == tuple(row.entry_id for row in rows)
    assert said.messages[:2] == tuple(row.message for row in rows)
    [tool] = await case.store.control.tool_calls(case.leased.turn.turn_id)
    assert said.ids[1] == tool.result_id
    stamp = entries.Stamp(case.leased.turn.turn_id, 1, case.leased.token)
    chain = entries.reply(said.messages, stamp, "question", said.ids)
    assert [entry["id"] for entry in chain[:2]] == list(said.ids)
    assert [entry["parentId"] for entry in chain] == ["question", *said.ids]
    assert chain[-1]["holdfast"]["final"] is True


async def test_another_attempt_of_the_run_goes_on_after_it(case: Case) -> None:
    model = ScriptedModel(
        [case.call("c1"), Fail(PASSES)], [case.call("c1"), case.call("c2"), Say(("done",))]
    )
    said = await case.talk(model).answer(case.prompt())
    assert isinstance(said, Said)
    assert (said.attempt, case.ran) == (2, ["c1", "c2"])
    assert [m["role"] for m in model.prompts[1].made] == ["assistant", "toolResult"]
    assert len(said.messages) == 5


class Batch:
    """Makes its calls one after the other; the second one's provider fails, once."""

    def __init__(self, case: Case) -> None:
        self.prompts: list[Prompt] = []
        self._case = case

    async def respond(self, prompt: Prompt, hook: Any) -> AsyncGenerator[AgentEvent, None]:
        self.prompts.append(prompt)
        calls = [_transcript.tool_call(each, "pay", {}) for each in ("c1", "c2")]
        if not prompt.made:
            yield Made({"role": "assistant", "content": calls})
        for each in ("c1", "c2"):
            result = await hook(ToolCall(each, "pay", {}), self._case.call(each).run)
            yield Made(_transcript.tool_result(each, "pay", str(result), failed=False))
            if len(self.prompts) == 1:
                raise PASSES
        yield Final({"role": "assistant", "content": "done"}, "done")


async def test_half_a_batch_is_made_again_through_the_hook(case: Case) -> None:
    agent = Batch(case)
    said = await case.talk(agent).answer(case.prompt())
    assert isinstance(said, Said)
    assert [m["role"] for m in agent.prompts[1].made] == ["assistant"]
    assert case.ran == ["c1", "c2"]
    assert [m["role"] for m in said.messages] == [
        "assistant", "toolResult", "toolResult", "assistant",
    ]  # fmt: skip
    assert said.ids == tuple(row.entry_id for row in await case.rows())


async def test_an_end_without_a_reply_says_what_was_made(case: Case) -> None:
    ended = await case.talk(ScriptedModel([case.call(), Quiet()])).answer(case.prompt())
    assert isinstance(ended, Ended)
    assert ended.made == tuple(row.message for row in await case.rows())
    assert len(ended.made) == 2


async def test_a_turn_that_is_to_end_is_aborted_where_a_tool_would_begin(case: Case) -> None:
    await case.store.control.cancel(case.leased.turn.turn_id)
    ended = await case.talk(ScriptedModel([case.call(), Say(("done",))])).answer(case.prompt())
    assert isinstance(ended, Ended)
    assert (ended.outcome, ended.reason) == ("aborted", "cancelled")
    assert case.ran == []


async def test_a_message_that_cannot_be_kept_stops_the_run(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the store's failure, not the agent's, and no tool runs behind it."""

    async def fail(*_: Any) -> None:
        raise UnavailableError(path="memory:", detail="the disk is gone")

    monkeypatch.setattr(case.store.control, "add_made", fail)
    with pytest.raises(UnavailableError):
        await case.talk(ScriptedModel([case.call(), Say(("done",))])).answer(case.prompt())
    assert case.ran == []


async def test_steered_messages_stand_where_they_were_taken(case: Case) -> None:
    user = MadeEntry("s1", {"role": "user", "content": "and hurry"})

    async def steered() -> list[Steered]:
        made = case.tools.made
        if len(made.entries) != 2:
            return []
        assert case.tools.running == 1, "taking it in is not the model's time"
        made.note([user])
        return [Steered("t2", "and hurry")]

    model = ScriptedModel(
        [case.call("c1"), case.call("c2"), Fail(PASSES)],
        [case.call("c1"), case.call("c2"), Say(("done",))],
    )
    said = await case.talk(model, steered=steered).answer(case.prompt())
    assert isinstance(said, Said)
    assert said.ids[2] == "s1"
    assert [m["role"] for m in model.prompts[1].made] == [
        "assistant", "toolResult", "user", "assistant", "toolResult",
    ]  # fmt: skip
    assert model.steered == [Steered("t2", "and hurry")]


async def test_text_alone_writes_nothing_down(case: Case) -> None:
    class Plain:
        async def respond(self, prompt: Prompt, hook: Any) -> AsyncGenerator[AgentEvent, None]:
            yield Text("do")
            yield Final({"role": "assistant", "content": "done"}, "done")

    said = await case.talk(Plain()).answer(case.prompt())
    assert isinstance(said, Said)
    assert (said.ids, await case.rows()) == ((), [])
