"""What a message does to a busy session, on both stores, with the whole runtime."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast._runtime.receipts import Receipt
from holdfast._runtime.runtime import Holdfast
from holdfast.cli import main
from holdfast.cli import turns as cli_turns
from holdfast.errors import BadRequestError, DeadlockError, RejectedError
from holdfast.ports import ToolHook
from holdfast.types import AgentEvent, Final, Made, Prompt, Text, ToolCall, Turn, TurnId

KEY = "agent:main:main"
WITHIN_S = 30.0
SECRET = {"channels__webhook__secret": "whsec_" + "c2VjcmV0" * 4}


class Slow:
    """
    An agent whose turns wait to be let on.  It echoes what it was asked, in order.

    `steps`: at each it may call a tool, then asks what was steered.
    """

    def __init__(self, *, steps: int = 0, replay: str = "safe") -> None:
        self.asked: list[Prompt] = []
        self.began = asyncio.Semaphore(0)
        self.go = asyncio.Semaphore(0)
        self.steps, self.replay = steps, replay
        self.steered: list[str] = []
        self.tools = 0

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        self.asked.append(prompt)
        said = [prompt.text]
        said += [_text(m) for m in prompt.made if m.get("role") == "user"]
        self.began.release()
        await self.go.acquire()
        for number in range(self.steps):
            async for event in self._tool(hook, f"call_{number}"):
                yield event
            for each in await hook.steered():
                said.append(each.text)
                self.steered.append(each.text)
            self.began.release()
            await self.go.acquire()
        reply = " + ".join(said)
        yield Text(delta=reply)
        message = {"role": "assistant", "content": [{"type": "text", "text": reply}]}
        yield Final(message=message, text=reply)

    async def _tool(self, hook: ToolHook, call_id: str) -> AsyncGenerator[AgentEvent, None]:
        called = {"type": "toolCall", "id": call_id, "name": "count", "arguments": {}}
        yield Made({"role": "assistant", "content": [called], "stopReason": "toolUse"})
        call = ToolCall(call_id, "count", {}, self.replay)  # type: ignore[arg-type]
        result = await hook(call, self._count)
        told = [{"type": "text", "text": str(result)}]
        yield Made({"role": "toolResult", "toolCallId": call_id, "content": told})

    async def _count(self) -> int:
        self.tools += 1
        return self.tools

    async def has_begun(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            await self.began.acquire()


def _text(message: Any) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(p["text"] for p in content)


Open = Callable[..., Any]


@pytest.fixture(params=["files", "memory"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    where = str(tmp_path / "state") if request.param == "files" else f"memory:{tmp_path.name}"

    @asynccontextmanager
    async def opened(agent: Any = None, **settings: Any) -> AsyncIterator[Holdfast]:
        given = {name.replace("__", "."): value for name, value in settings.items()}
        async with holdfast.open(where, agent=agent, settings=given) as hf:
            yield hf

    return opened


async def ended(receipt: Receipt) -> tuple[str, str | None]:
    outcome = await receipt.outcome(WITHIN_S)
    return outcome.kind, outcome.text


async def row(hf: Holdfast, receipt: Receipt) -> Turn:
    return await hf.store.control.turn(TurnId(receipt.turn_id))


async def entries(hf: Holdfast) -> list[dict[str, Any]]:
    session = await hf.session(KEY)
    page = hf.store.transcripts.page(session, None, limit=500)
    return [dict(entry) for _, entry in page.entries]


def questions(found: list[dict[str, Any]]) -> list[str]:
    return [
        _text(entry["message"])
        for entry in found
        if entry.get("type") == "message" and entry["message"]["role"] == "user"
    ]


async def history(hf: Holdfast) -> list[str]:
    """What the next turn's model would be told."""
    async with hf.turn(KEY, "and now?") as turn:
        return [_text(message) for message in turn.history()]


# ------------------------------------------------------------------------------- collect


async def test_a_burst_is_answered_as_one_turn_and_nothing_of_it_is_dropped(
    opening: Open,
) -> None:
    agent = Slow()
    agent.go.release()
    async with opening(agent, turn__collect_quiet_ms=200) as hf:
        said = [await hf.submit(KEY, f"m{n}", policy="collect") for n in range(4)]
        assert said[0].waiting_for == "quiet"
        outcomes = [await ended(receipt) for receipt in said]
        assert len(agent.asked) == 1
        assert agent.asked[0].text == "m0\n\nm1\n\nm2\n\nm3"
        assert [kind for kind, _ in outcomes] == ["replied", "merged", "merged", "merged"]
        assert {text for _, text in outcomes} == {"m0\n\nm1\n\nm2\n\nm3"}
        assert {(await row(hf, r)).merged_into for r in said[1:]} == {said[0].turn_id}
        assert questions(await entries(hf)) == ["m0", "m1", "m2", "m3"]


@pytest.mark.parametrize("by", ["sender", "target", "lane", "max"])
async def test_only_one_senders_messages_to_one_target_in_one_lane_become_one_turn(
    opening: Open, by: str
) -> None:
    agent = Slow()
    for _ in range(2):
        agent.go.release()
    more: dict[str, Any] = {"lanes__other__concurrency": 4}
    if by == "max":
        more["turn__collect_max"] = 2
    if by == "target":
        more |= {"channels__webhook__url": "http://127.0.0.1:9/", **SECRET}
    async with opening(agent, turn__collect_quiet_ms=100, **more) as hf:
        said = []
        for n in range(3):
            own: dict[str, Any] = {"policy": "collect"}
            if n == 2 and by in {"sender", "target"}:
                own[by] = "webhook:x" if by == "target" else "ann"
            if n == 2 and by == "lane":
                own["lane"] = "other"
            said.append(await hf.submit(KEY, f"m{n}", **own))
        assert [(await ended(r))[0] for r in said] == ["replied", "merged", "replied"]
        assert [prompt.text for prompt in agent.asked] == ["m0\n\nm1", "m2"]


async def test_a_burst_does_not_overtake_what_another_person_said_in_between(
    opening: Open,
) -> None:
    agent = Slow()
    for _ in range(3):
        agent.go.release()
    async with opening(agent, turn__collect_quiet_ms=100) as hf:
        said = [
            await hf.submit(KEY, "a1", policy="collect", sender="a"),
            await hf.submit(KEY, "b1", sender="b"),
            await hf.submit(KEY, "a2", policy="collect", sender="a"),
        ]
        assert [(await ended(r))[0] for r in said] == ["replied"] * 3
        assert [prompt.text for prompt in agent.asked] == ["a1", "b1", "a2"]


async def test_the_policy_may_be_the_lanes_or_the_settings(opening: Open) -> None:
    agent = Slow()
    async with opening(agent, turn__policy="reject", lanes__cron__policy="enqueue") as hf:
        first = await hf.submit(KEY, "first")
        await agent.has_begun()
        with pytest.raises(RejectedError):
            await hf.submit(KEY, "no")
        second = await hf.submit(KEY, "yes", lane="cron")
        for _ in range(2):
            agent.go.release()
        assert await ended(first) == ("replied", "first")
        assert await ended(second) == ("replied", "yes")


# --------------------------------------------------------------------------------- steer


async def test_a_steered_message_is_answered_by_the_turn_that_runs(opening: Open) -> None:
    agent = Slow(steps=1)
    async with opening(agent) as hf:
        host = await hf.submit(KEY, "first")
        await agent.has_begun()
        steered = await hf.submit(KEY, "and this", policy="steer")
        assert steered.waiting_for == "merge"
        agent.go.release()
        await agent.has_begun()
        assert (await row(hf, steered)).asked_entry is not None
        agent.go.release()
        assert await ended(host) == ("replied", "first + and this")
        assert await ended(steered) == ("merged", "first + and this")
        found = await entries(hf)
        stamps = [e["holdfast"] for e in found]
        assert [s["turn"] for s in stamps if "host" in s] == [steered.turn_id]
        roles = [e["message"]["role"] for e in found]
        assert roles == ["user", "assistant", "toolResult", "user", "assistant"]
        parents = [e["parentId"] for e in found]
        assert parents == [None, *(e["id"] for e in found[:-1])]
        assert [s.get("final") for s in stamps] == [None] * 4 + [True]


async def test_a_message_that_nobody_took_becomes_a_turn_of_its_own(opening: Open) -> None:
    agent = Slow()
    async with opening(agent) as hf:
        host = await hf.submit(KEY, "first")
        await agent.has_begun()
        late = await hf.submit(KEY, "late", policy="steer")
        agent.go.release()
        assert await ended(host) == ("replied", "first")
        agent.go.release()
        assert await ended(late) == ("replied", "late")
        assert questions(await entries(hf)) == ["first", "late"]


async def test_a_taken_message_of_a_cancelled_host_is_asked_once_and_answered(
    opening: Open,
) -> None:
    agent = Slow(steps=1)
    async with opening(agent) as hf:
        host = await hf.submit(KEY, "first")
        await agent.has_begun()
        steered = await hf.submit(KEY, "taken", policy="steer")
        agent.go.release()
        await agent.has_begun()
        await hf.cancel(host.turn_id)
        assert (await ended(host))[0] == "cancelled"
        agent.steps = 0
        agent.go.release()
        assert await ended(steered) == ("replied", "taken")
        assert questions(await entries(hf)) == ["first", "taken"]


async def test_an_own_turn_is_steered_too(opening: Open) -> None:
    async with opening() as hf:
        async with hf.turn(KEY, "mine") as turn:
            steered = await hf.submit(KEY, "yours", policy="steer")
            (taken,) = await turn.steered()
            assert taken.text == "yours"
            assert await turn.steered() == ()
            await turn.reply("both")
        assert await ended(steered) == ("merged", "both")
        with pytest.raises(BadRequestError):
            async with hf.turn(KEY, "no", policy="steer"):
                pass


async def test_a_steered_message_can_be_withdrawn_until_it_is_taken(opening: Open) -> None:
    agent = Slow(steps=1)
    async with opening(agent) as hf:
        host = await hf.submit(KEY, "first")
        await agent.has_begun()
        gone = await hf.submit(KEY, "forget it", policy="steer")
        await hf.cancel(gone.turn_id)
        assert (await ended(gone))[0] == "cancelled"
        for _ in range(2):
            agent.go.release()
        assert await ended(host) == ("replied", "first")
        assert questions(await entries(hf)) == ["first"]


async def test_who_cancels_what_was_taken_is_told_with_whom_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_turns, "CANCEL_WAIT_S", 0.0)
    agent = Slow(steps=1)
    async with holdfast.open(tmp_path, agent=agent) as hf:
        host = await hf.submit(KEY, "first")
        await agent.has_begun()
        taken = await hf.submit(KEY, "and this", policy="steer")
        agent.go.release()
        await agent.has_begun()
        words = ["turns", "cancel", taken.turn_id, "--store", str(tmp_path)]
        assert await asyncio.to_thread(main, words) == 0
        said = f"{taken.turn_id}: it was taken into turn {host.turn_id}, and ends with that\n"
        assert capsys.readouterr().out == said
        agent.go.release()
        assert await ended(taken) == ("merged", "first + and this")


# -------------------------------------------------------------------- interrupt, rollback


async def test_an_interrupt_ends_the_turn_that_runs_and_overtakes_nobody(opening: Open) -> None:
    agent = Slow()
    async with opening(agent) as hf:
        running = await hf.submit(KEY, "one")
        await agent.has_begun()
        waiting = await hf.submit(KEY, "two")
        newest = await hf.submit(KEY, "three", policy="interrupt")
        outcome = await running.outcome(WITHIN_S)
        assert (outcome.kind, outcome.reason) == ("cancelled", "interrupted")
        for _ in range(2):
            agent.go.release()
        assert [(await ended(r))[0] for r in (waiting, newest)] == ["replied"] * 2
        assert [prompt.text for prompt in agent.asked] == ["one", "two", "three"]
        assert "one" in await history(hf)


async def test_an_interrupt_ends_a_turn_that_went_back_to_its_place(opening: Open) -> None:
    """Its process was stopped meanwhile; without the interrupt it would run again first."""
    before, after = Slow(), Slow()
    async with opening() as asker:
        async with opening(before) as hf:
            long = await hf.submit(KEY, "long")
            await before.has_begun()
            await hf.close(finish_s=0)
        assert (await row(asker, long)).state == "accepted"
        late = await asker.submit(KEY, "instead", policy="interrupt")
        after.go.release()
        async with opening(after):
            outcome = await (await asker.receipt(long.turn_id)).outcome(WITHIN_S)
            assert (outcome.kind, outcome.reason) == ("cancelled", "interrupted")
            assert outcome.hint, "its sender is told what to do about it"
            assert await ended(late) == ("replied", "instead")
        assert [prompt.text for prompt in after.asked] == ["instead"]


@pytest.mark.parametrize("before", [0, 1])
async def test_a_rolled_back_turn_leaves_the_conversation_and_stays_in_the_file(
    opening: Open, before: int
) -> None:
    agent = Slow()
    async with opening(agent) as hf:
        for n in range(before):
            agent.go.release()
            await ended(await hf.submit(KEY, f"before {n}"))
            await agent.has_begun()
        running = await hf.submit(KEY, "mistake")
        await agent.has_begun()
        newest = await hf.submit(KEY, "instead", policy="rollback")
        outcome = await running.outcome(WITHIN_S)
        assert (outcome.kind, outcome.reason) == ("cancelled", "rolled_back")
        agent.go.release()
        assert await ended(newest) == ("replied", "instead")
        told = await history(hf)
        assert "mistake" not in told
        assert told[-2:] == ["instead", "instead"]
        assert len(told) == 2 * before + 2
        assert "mistake" in questions(await entries(hf))


async def test_a_committed_turn_is_not_rolled_back(opening: Open) -> None:
    agent = Slow()
    agent.go.release()
    async with opening(agent) as hf:
        receipt = await hf.submit(KEY, "done")
        await ended(receipt)
        with pytest.raises(RejectedError):
            await hf.cancel(receipt.turn_id, rollback=True)
        assert (await row(hf, receipt)).outcome == "replied"


async def test_what_was_taken_into_a_rolled_back_turn_is_asked_on_the_branch_again(
    opening: Open,
) -> None:
    agent = Slow(steps=1)
    async with opening(agent) as hf:
        host = await hf.submit(KEY, "mistake")
        await agent.has_begun()
        steered = await hf.submit(KEY, "taken", policy="steer")
        agent.go.release()
        await agent.has_begun()
        await hf.cancel(host.turn_id, rollback=True)
        assert (await ended(host))[0] == "cancelled"
        agent.steps = 0
        agent.go.release()
        assert await ended(steered) == ("replied", "taken")
        assert await history(hf) == ["taken", "taken"]


# ---------------------------------------------------------------------------- heartbeats


async def test_a_persons_message_ends_a_heartbeat_twice_in_a_row_at_most(opening: Open) -> None:
    agent = Slow()
    async with opening(agent) as hf:
        for n in range(2):
            beat = await hf.submit(KEY, f"beat {n}", lane="heartbeat")
            await agent.has_begun()
            person = await hf.submit(KEY, f"person {n}")
            outcome = await beat.outcome(WITHIN_S)
            assert (outcome.kind, outcome.reason) == ("cancelled", "preempted")
            await agent.has_begun()
            agent.go.release()
            assert (await ended(person))[0] == "replied"
        beat = await hf.submit(KEY, "beat 2", lane="heartbeat")
        await agent.has_begun()
        person = await hf.submit(KEY, "person 2")
        for _ in range(2):
            agent.go.release()
        assert await ended(beat) == ("replied", "beat 2")
        assert await ended(person) == ("replied", "person 2")


async def test_heartbeats_need_not_yield(opening: Open) -> None:
    agent = Slow()
    async with opening(agent, turn__heartbeats_yield=False) as hf:
        beat = await hf.submit(KEY, "beat", lane="heartbeat")
        await agent.has_begun()
        person = await hf.submit(KEY, "person")
        for _ in range(2):
            agent.go.release()
        assert [(await ended(r))[0] for r in (beat, person)] == ["replied"] * 2


@pytest.mark.parametrize(("replay", "outcome"), [("never", "replied"), ("safe", "cancelled")])
async def test_a_heartbeat_that_has_run_a_tool_without_replay_finishes(
    opening: Open, replay: str, outcome: str
) -> None:
    agent = Slow(steps=1, replay=replay)
    async with opening(agent) as hf:
        beat = await hf.submit(KEY, "beat", lane="heartbeat")
        await agent.has_begun()
        agent.go.release()
        await agent.has_begun()  # The tool has run.
        person = await hf.submit(KEY, "person")
        for _ in range(3):
            agent.go.release()
        assert (await ended(beat))[0] == outcome
        assert (await ended(person))[0] == "replied"


# ------------------------------------------------------------------------------ children


async def test_a_turn_that_waits_for_a_child_gives_its_slot_back(opening: Open) -> None:
    one: dict[str, Any] = {"lanes__user__concurrency": 1}
    async with opening(Slow(), **one) as hf:
        agent = hf._runner.agents["main"]
        assert isinstance(agent, Slow)
        agent.go.release()
        async with hf.turn(KEY, "parent") as turn:
            outcome = await hf.ask("agent:main:child", "child", lane="user")
            assert (outcome.kind, outcome.text) == ("replied", "child")
            await turn.reply("done")
        assert (await hf.store.control.turn(TurnId(turn.turn_id))).outcome == "replied"


async def test_several_children_at_once_share_the_one_slot_of_their_parent(
    opening: Open,
) -> None:
    agent = Slow()
    for _ in range(5):
        agent.go.release()
    async with opening(agent, lanes__user__concurrency=1) as hf:
        async with hf.turn(KEY, "parent") as turn:
            asks = [hf.ask(f"agent:main:c{n}", f"child {n}", lane="user") for n in range(5)]
            async with asyncio.timeout(WITHIN_S):
                told = await asyncio.gather(*asks)
            assert [each.text for each in told] == [f"child {n}" for n in range(5)]
            row = await hf.store.control.turn(TurnId(turn.turn_id))
            assert (row.waits_for, row.slot_wanted) == (None, False)
            await turn.reply("done")
        after = await hf.submit("agent:main:c0", "after")
        agent.go.release()
        assert await ended(after) == ("replied", "after"), "the slot is free again"


async def test_a_child_that_would_wait_for_its_ancestor_is_refused_with_the_cycle(
    opening: Open,
) -> None:
    class Asking(Slow):
        hf: Holdfast
        error: DeadlockError | None = None

        async def respond(
            self, prompt: Prompt, hook: ToolHook
        ) -> AsyncGenerator[AgentEvent, None]:
            try:
                await self.hf.ask(KEY, "let me in", lane="user")
            except DeadlockError as error:
                self.error = error
            async for event in super().respond(prompt, hook):
                yield event

    agent = Asking()
    agent.go.release()
    async with opening(agent) as hf:
        agent.hf = hf
        async with hf.turn(KEY, "parent") as turn:
            outcome = await hf.ask("agent:main:child", "child")
            assert outcome.kind == "replied"
            await turn.reply("done")
        assert agent.error is not None
        assert len(agent.error.cycle) == 3  # The message that was refused is between them.
        assert turn.turn_id in agent.error.cycle
        assert outcome.turn_id in agent.error.cycle
        assert json.dumps(agent.error.to_json())
        assert len(await hf.store.control.turns(session_id=None)) == 2


async def test_one_of_several_children_that_comes_back_is_refused_too(opening: Open) -> None:
    class Family(Slow):
        hf: Holdfast
        quick: asyncio.Event
        refused = 0

        async def respond(
            self, prompt: Prompt, hook: ToolHook
        ) -> AsyncGenerator[AgentEvent, None]:
            if prompt.text == "comes back":
                await self.quick.wait()  # A sibling has ended meanwhile.
                try:
                    await self.hf.ask(KEY, "let me in", lane="user")
                except DeadlockError:
                    self.refused += 1
            async for event in super().respond(prompt, hook):
                yield event

    agent = Family()
    agent.quick = asyncio.Event()
    for _ in range(2):
        agent.go.release()
    async with opening(agent) as hf:
        agent.hf = hf

        async def brother() -> None:
            await hf.ask("agent:main:b", "quick")
            agent.quick.set()

        async with hf.turn(KEY, "parent") as turn, asyncio.timeout(WITHIN_S):
            await asyncio.gather(hf.ask("agent:main:a", "comes back"), brother())
            await turn.reply("done")
        assert agent.refused == 1


@pytest.mark.parametrize("inside", ["block", "agent", "tool"])
async def test_an_own_turn_inside_a_turn_is_a_child_that_is_waited_for(
    opening: Open, inside: str
) -> None:
    """It would wait for ever: for its ancestor's session, or for its only slot."""

    class Asking(Slow):
        hf: Holdfast
        error: DeadlockError | None = None

        async def respond(
            self, prompt: Prompt, hook: ToolHook
        ) -> AsyncGenerator[AgentEvent, None]:
            if inside == "agent":
                await self.ask()
            async for event in super().respond(prompt, hook):
                yield event

        async def _count(self) -> int:
            await self.ask()
            return 1

        async def ask(self) -> None:
            async with self.hf.turn("agent:main:child", "child") as child:
                with pytest.raises(DeadlockError) as refused:
                    async with self.hf.turn(KEY, "comes back"):
                        pass
                self.error = refused.value
                await child.reply("done")

    agent = Asking(steps=inside == "tool")
    async with opening(agent, lanes__user__concurrency=1) as hf:
        agent.hf = hf
        async with asyncio.timeout(WITHIN_S):
            if inside == "block":
                async with hf.turn(KEY, "parent") as turn:
                    await agent.ask()
                    await turn.reply("done")
                parent = turn.turn_id
            else:
                for _ in range(2):
                    agent.go.release()
                receipt = await hf.submit(KEY, "parent")
                assert (await ended(receipt))[0] == "replied"
                parent = receipt.turn_id
        assert agent.error is not None
        assert len(agent.error.cycle) == 3  # The message that was refused is between them.
        rows = {row.turn_id: row for row in await hf.store.control.turns(session_id=None)}
        [child] = rows.keys() - {parent}
        assert (rows[child].parent, rows[child].outcome) == (parent, "replied")
        assert {parent, child} < set(agent.error.cycle)
        async with hf.turn("agent:main:after", "after") as turn:
            await turn.reply("the slot is free again")


async def test_a_task_that_only_was_begun_inside_a_turn_waits_for_its_end(
    opening: Open,
) -> None:
    """Nobody waits for it, so that is no cycle."""
    async with opening() as hf:

        async def later() -> str:
            async with hf.turn(KEY, "later") as turn:
                await turn.reply("then")
            return turn.turn_id

        async with asyncio.timeout(WITHIN_S):
            async with hf.turn(KEY, "first") as turn:
                task = asyncio.create_task(later())
                await turn.reply("now")
            row = await hf.store.control.turn(TurnId(await task))
        assert (row.outcome, row.parent) == ("replied", None)


async def test_a_tool_whose_own_message_is_refused_fails_its_turn_and_not_the_runner(
    opening: Open,
) -> None:
    class Refused(Slow):
        hf: Holdfast

        async def respond(
            self, prompt: Prompt, hook: ToolHook
        ) -> AsyncGenerator[AgentEvent, None]:
            await self.hf.submit(KEY, "no", policy="reject")
            async for event in super().respond(prompt, hook):
                yield event

    agent = Refused()
    async with opening(agent) as hf:
        agent.hf = hf
        outcome = await (await hf.submit(KEY, "first")).outcome(WITHIN_S)
        assert (outcome.kind, outcome.reason, outcome.attempts) == ("failed", "agent_error", 1)
