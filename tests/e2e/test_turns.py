"""
What a turn does to its session: the write lock is free while a model talks, order is kept,
failures are answered, and nothing that was accepted is lost.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.errors import (
    DrainingError,
    NotFoundError,
    ProviderError,
)
from holdfast.testing import ModelServer, ScriptedModel, Step
from holdfast.testing.scripted import Call, Fail, Quiet, Say
from holdfast.types import Prompt
from support import oracle
from support.crowd import Member

KEY = "agent:main:main"
QUICK = {"turn.lease_ms": 900, "abort.settle_ms": 300}


class Gate:
    """Lets a scripted model say its first token, then waits to be opened."""

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, prompt: Prompt, position: int) -> None:
        if position == 1:
            self.reached.set()
            await self.opened.wait()


async def ask(hf: holdfast.Holdfast, text: str, **more: Any) -> holdfast.Outcome:
    return await (await hf.submit(KEY, text, **more)).outcome(30)


# ------------------------------------------------------------------ the write lock is free


APPEND = """
import sys, json
from holdfast import WriteLock
with WriteLock(sys.argv[1], timeout_s=5) as claim:
    claim.append((json.dumps(json.loads(sys.argv[2])) + "\\n").encode(), sync=False)
"""


async def append_from_another_process(path: Path, entry: dict[str, Any]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", APPEND, str(path), json.dumps(entry)
    )
    assert await process.wait() == 0


async def test_another_process_appends_between_two_tokens_of_one_stream(tmp_path: Path) -> None:
    """
    The founding system held the lock while tokens streamed; here a stranger to the stream
    gets it at once, and the reply goes after what was appended instead of being dropped.
    """
    gate = Gate()
    model = ScriptedModel([Say(("one ", "two"))], gate=gate)
    async with holdfast.open(tmp_path, agent=model) as hf:
        receipt = await hf.submit(KEY, "count")
        await gate.reached.wait()
        path = oracle.only_transcript(tmp_path)
        [question] = oracle.read(path)
        note = {"type": "custom", "id": "note-1", "parentId": question["id"], "customType": "x"}
        await append_from_another_process(path, note)
        assert not gate.opened.is_set(), "appended while the stream was open"
        gate.opened.set()
        assert (await receipt.outcome(10)).text == "one two"
    entries = oracle.read(path)
    assert [entry["id"] for entry in entries[:2]] == [question["id"], "note-1"]
    assert entries[2]["parentId"] == "note-1", "the reply was not put after what came between"
    assert entries[2]["holdfast"]["final"] is True


async def test_the_write_lock_is_free_while_a_tool_runs(tmp_path: Path) -> None:
    async def tool() -> str:
        path = oracle.only_transcript(tmp_path)
        entry = {"type": "label", "id": "l1", "parentId": None, "targetId": "x", "label": "y"}
        await append_from_another_process(path, entry)
        return "done"

    model = ScriptedModel([Call("slow_tool", tool), Say(("ok",))])
    async with holdfast.open(tmp_path, agent=model) as hf:
        assert (await ask(hf, "use it")).kind == "replied"
    kinds = [entry["type"] for entry in oracle.read(oracle.only_transcript(tmp_path))]
    assert kinds == ["message", "label", "message", "message", "message"]


def test_two_concurrent_turns_are_written_one_after_the_other(tmp_path: Path) -> None:
    """Two processes, one session, both at once: question, reply, question, reply."""
    with ModelServer(token_delay_s=0.01) as server:
        plan = {"state": str(tmp_path), "base_url": server.base_url}
        with Member(name="a", **plan) as a, Member(name="b", **plan) as b:
            for member in (a, b):
                member.until("ready")
            for member in (a, b):
                member.go()
            for member in (a, b):
                member.until("done")
                assert member.end() == 0
    entries = oracle.read(oracle.only_transcript(tmp_path))
    turns = [entry["holdfast"]["turn"] for entry in entries]
    roles = [entry["message"]["role"] for entry in entries]
    assert roles == ["user", "assistant", "user", "assistant"]
    assert turns[0] == turns[1] != turns[2] == turns[3]
    assert [entry["parentId"] for entry in entries[1:]] == [
        entry["id"] for entry in entries[:3]
    ]


# ------------------------------------------------------------------------- what is on disk


async def test_the_question_is_on_disk_before_the_model_is_called(tmp_path: Path) -> None:
    found: list[str] = []

    async def look(prompt: Prompt, position: int) -> None:
        if position == 0:
            [question] = oracle.read(oracle.only_transcript(tmp_path))
            found.append(oracle.text_of(question))

    async with holdfast.open(tmp_path, agent=ScriptedModel(gate=look)) as hf:
        await ask(hf, "remember me")
    assert found == ["remember me"]


async def test_the_history_reaches_the_model(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model) as hf:
        await ask(hf, "first")
        await ask(hf, "second")
    told = [m["content"][0]["text"] for m in model.prompts[1].history]
    assert told == ["first", "reply to: first"]
    assert model.prompts[1].text == "second"


async def test_a_torn_last_line_stays_and_costs_nothing(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with holdfast.open(tmp_path, agent=model) as hf:
        await ask(hf, "first")
        path = oracle.only_transcript(tmp_path)
        before = path.read_bytes() + b'{"type":"message","id":"torn'
        path.write_bytes(before)
        assert (await ask(hf, "second")).kind == "replied"
        tree = await hf.transcript(KEY)
    assert path.read_bytes().startswith(before + b"\n"), "the file did not only grow"
    assert [why for _, why in tree.skipped] == ["unparsable"]
    assert len(tree.history()) == 4


async def test_live_output_is_written_while_it_streams(tmp_path: Path) -> None:
    gate = Gate()
    async with holdfast.open(
        tmp_path, agent=ScriptedModel([Say(("one ", "two"))], gate=gate)
    ) as hf:
        receipt = await hf.submit(KEY, "count")
        await gate.reached.wait()
        [log] = (tmp_path / "live").glob("*.ndjson")
        events = [json.loads(line) for line in log.read_text().splitlines()]
        gate.opened.set()
        await receipt.outcome(10)
    assert log.name == f"{receipt.turn_id}.1.ndjson"
    assert [(e["id"], e["event"]) for e in events] == [("1.1", "started"), ("1.2", "text")]
    assert events[1]["data"] == {"text": "one "}


# ------------------------------------------------------------------------------- failures


def provider(reason: str, **more: Any) -> Fail:
    return Fail(ProviderError(reason=reason, detail="scripted", **more), tokens=("void ",))


@pytest.mark.parametrize("reason", ["rate_limit", "server_error", "connection", "truncated"])
async def test_a_passing_failure_is_tried_again_in_the_same_run(
    tmp_path: Path, reason: str
) -> None:
    model = ScriptedModel([provider(reason, retry_after_s=0.0)], [Say(("at ", "last"))])
    async with holdfast.open(tmp_path, agent=model) as hf:
        outcome = await ask(hf, "try")
    assert (outcome.kind, outcome.text, outcome.attempts) == ("replied", "at last", 2)
    [log] = (tmp_path / "live").glob("*.ndjson")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"n": 2, "reason": reason} in [e["data"] for e in events if e["event"] == "attempt"]
    assert {e["id"].split(".")[0] for e in events} == {"1"}, "the lease was not kept"
    [_question, final] = oracle.read(oracle.only_transcript(tmp_path))
    assert final["holdfast"]["attempt"] == 2
    assert "void" not in oracle.text_of(final)


async def test_a_failure_that_stays_ends_the_turn_after_its_attempts(tmp_path: Path) -> None:
    model = ScriptedModel(*[[provider("server_error", retry_after_s=0.0)]] * 5)
    async with holdfast.open(tmp_path, agent=model) as hf:
        outcome = await ask(hf, "try")
        assert (outcome.kind, outcome.reason, outcome.attempts) == ("failed", "server_error", 3)
        assert outcome.hint
        after = await ask(hf, "are you there")
        assert after.kind == "replied", "a failed turn blocks its session"
    entries = oracle.read(oracle.only_transcript(tmp_path))
    ended = entries[1]
    assert (ended["customType"], ended["data"]["reason"]) == (
        "holdfast:turn-ended",
        "server_error",
    )


@pytest.mark.parametrize("reason", ["auth", "bad_request", "context_overflow", "quota"])
async def test_a_lasting_failure_is_not_tried_again(tmp_path: Path, reason: str) -> None:
    model = ScriptedModel([provider(reason)])
    async with holdfast.open(tmp_path, agent=model) as hf:
        outcome = await ask(hf, "try")
    assert (outcome.kind, outcome.reason, outcome.attempts) == ("failed", reason, 1)
    assert outcome.hint
    assert len(model.prompts) == 1


async def test_a_reason_that_nobody_knows_is_the_agents_own_failure(tmp_path: Path) -> None:
    """An agent of somebody else's may say what it likes; its turn ends, and says why."""
    model = ScriptedModel([provider("weather")])
    async with holdfast.open(tmp_path, agent=model) as hf:
        outcome = await ask(hf, "try")
    assert (outcome.kind, outcome.reason, outcome.attempts) == ("failed", "agent_error", 1)
    assert "weather" in (outcome.hint or "")
    assert len(model.prompts) == 1


async def test_a_long_retry_after_is_not_waited_out(tmp_path: Path) -> None:
    model = ScriptedModel([provider("rate_limit", retry_after_s=61.0)])
    async with holdfast.open(tmp_path, agent=model) as hf:
        assert (await ask(hf, "try")).reason == "rate_limit"


async def test_a_model_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    async def for_ever(prompt: Prompt, position: int) -> None:
        await asyncio.Event().wait()

    settings = {"models.idle_timeout_ms": 50, "turn.max_attempts": 1}
    model = ScriptedModel(gate=for_ever)
    async with holdfast.open(tmp_path, agent=model, settings=settings) as hf:
        outcome = await ask(hf, "try")
    assert (outcome.kind, outcome.reason) == ("failed", "timeout")
    assert model.abandoned == 1, "its stream was left open"


async def test_a_running_tool_is_not_an_idle_model(tmp_path: Path) -> None:
    settings = {"models.idle_timeout_ms": 50}
    ticks = 0

    async def longer_than_the_idle_bound() -> int:
        nonlocal ticks
        loop = asyncio.get_running_loop()
        until = loop.time() + 0.2
        while loop.time() < until:
            await asyncio.sleep(0)
            ticks += 1
        return ticks

    model = ScriptedModel([Call("work", longer_than_the_idle_bound), Say(("ok",))])
    async with holdfast.open(tmp_path, agent=model, settings=settings) as hf:
        assert (await ask(hf, "work")).text == "ok"


async def test_tools_are_not_run_again_by_a_retry(tmp_path: Path) -> None:
    runs = 0

    async def tool() -> str:
        nonlocal runs
        runs += 1
        return "effect"

    again = [Call("pay", tool), Say(("paid",))]
    model = ScriptedModel([Call("pay", tool), provider("connection", retry_after_s=0.0)], again)
    async with holdfast.open(tmp_path, agent=model) as hf:
        assert (await ask(hf, "pay")).text == "paid"
    assert runs == 1
    assert [m["role"] for m in model.prompts[1].made] == ["assistant", "toolResult"]


async def test_an_agents_bug_is_an_outcome_not_a_hang(tmp_path: Path) -> None:
    model = ScriptedModel([Fail(KeyError("oops"))])
    async with holdfast.open(tmp_path, agent=model) as hf:
        outcome = await ask(hf, "try")
    assert (outcome.kind, outcome.reason) == ("failed", "agent_error")
    assert "KeyError" in (outcome.hint or "")


async def test_a_deliberate_silence_is_an_outcome(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path, agent=ScriptedModel([Quiet("nothing_new")])) as hf:
        outcome = await ask(hf, "anything?", lane="heartbeat")
    assert (outcome.kind, outcome.reason, outcome.text) == ("silent", "nothing_new", None)


async def test_a_real_server_that_truncates_is_asked_again(tmp_path: Path) -> None:
    with ModelServer(
        [Step(tokens=("cut ", "off"), end="eof"), Step(tokens=("whole",))]
    ) as server:
        agent = pydantic_agent(server)
        async with holdfast.open(tmp_path, agent=agent) as hf:
            outcome = await ask(hf, "go")
    assert (outcome.text, outcome.attempts) == ("whole", 2)


def pydantic_agent(server: ModelServer) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return Agent(
        OpenAIChatModel("m", provider=OpenAIProvider(base_url=server.base_url, api_key="x"))
    )


# --------------------------------------------------------------------- cancel, close, order


async def test_cancelling_a_running_turn_ends_it_and_frees_the_session(tmp_path: Path) -> None:
    gate = Gate()
    model = ScriptedModel([Say(("one ", "two"))], gate=gate)
    async with holdfast.open(tmp_path, agent=model) as hf:
        receipt = await hf.submit(KEY, "long")
        await gate.reached.wait()
        await hf.cancel(receipt.turn_id)
        outcome = await receipt.outcome(10)
        assert (outcome.kind, outcome.reason) == ("cancelled", "cancelled")
        gate.opened.set()
        assert (await ask(hf, "next")).kind == "replied"
    assert model.abandoned == 1


async def test_cancelling_a_waiting_turn_takes_it_out_of_the_queue(tmp_path: Path) -> None:
    gate = Gate()
    model = ScriptedModel([Say(("one ", "two"))], gate=gate)
    async with holdfast.open(tmp_path, agent=model) as hf:
        running = await hf.submit(KEY, "long")
        await gate.reached.wait()
        waiting = await hf.submit(KEY, "never")
        assert (waiting.position, waiting.waiting_for) == (1, "turn")
        await hf.cancel(waiting.turn_id)
        assert (await waiting.outcome(5)).kind == "cancelled"
        gate.opened.set()
        assert (await running.outcome(5)).kind == "replied"
    assert "never" not in oracle.only_transcript(tmp_path).read_text()


async def test_closing_puts_a_running_turn_back_and_the_next_start_answers_it(
    tmp_path: Path,
) -> None:
    gate = Gate()
    async with holdfast.open(tmp_path, agent=ScriptedModel([Say(("a", "b"))], gate=gate)) as hf:
        receipt = await hf.submit(KEY, "survive")
        await gate.reached.wait()
        waiting = asyncio.create_task(receipt.outcome())
        await asyncio.sleep(0)
        await hf.close(finish_s=0)
        with pytest.raises(DrainingError):
            await waiting
        with pytest.raises(DrainingError):
            await hf.submit(KEY, "too late")
    async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
        outcome = await (await hf.receipt(receipt.turn_id)).outcome(10)
        assert (outcome.kind, outcome.attempts) == ("replied", 1), "draining cost an attempt"
    entries = oracle.read(oracle.only_transcript(tmp_path))
    assert oracle.check_answers(entries) == {"survive": "reply to: survive"}
    assert len(entries) == 2, "the question was asked twice"


async def test_a_person_is_answered_before_a_heartbeat(tmp_path: Path) -> None:
    gate = Gate()
    model = ScriptedModel([Say(("a", "b"))], gate=gate)
    async with holdfast.open(tmp_path, agent=model) as hf:
        first = await hf.submit(KEY, "running")
        await gate.reached.wait()
        later = [
            await hf.submit(KEY, text, lane=lane)
            for text, lane in (("beat", "heartbeat"), ("job", "cron"), ("hello", "user"))
        ]
        gate.opened.set()
        for receipt in (first, *later):
            await receipt.outcome(10)
    assert [prompt.text for prompt in model.prompts] == ["running", "hello", "job", "beat"]


async def test_a_turn_without_a_runner_waits_and_says_so(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path) as sender:
        receipt = await sender.submit(KEY, "anybody?")
        assert receipt.waiting_for == "no_runner"
        async with holdfast.open(tmp_path, agent=ScriptedModel()):
            assert (await receipt.outcome(10)).text == "reply to: anybody?"


async def test_two_keys_of_one_conversation_share_its_session(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
        await ask(hf, "one")
        await hf.add_alias("agent:main:telegram:direct:ann", KEY)
        receipt = await hf.submit("agent:main:telegram:direct:ann", "two")
        await receipt.outcome(10)
        assert receipt.session_id == (await hf.session(KEY)).session_id
    assert len(oracle.finals(oracle.read(oracle.only_transcript(tmp_path)))) == 2


# ------------------------------------------------------------------- bring your own loop


async def test_a_turn_of_ones_own_queues_leases_and_commits(tmp_path: Path) -> None:
    gate = Gate()
    model = ScriptedModel([Say(("a", "b"))], gate=gate)
    async with holdfast.open(tmp_path, agent=model) as hf:
        first = await hf.submit(KEY, "first")
        await gate.reached.wait()

        async def own() -> list[str]:
            async with hf.turn(KEY, "mine") as turn:
                told = [m["content"][0]["text"] for m in turn.history()]
                await turn.reply(f"to {turn.text}")
                return told

        mine = asyncio.create_task(own())
        await asyncio.sleep(0)
        gate.opened.set()
        assert await mine == ["first", "ab"]
        await first.outcome(5)
    answers = oracle.check_answers(oracle.read(oracle.only_transcript(tmp_path)))
    assert answers == {"first": "ab", "mine": "to mine"}


async def test_giving_up_the_wait_for_ones_own_turn_takes_it_out_of_the_queue(
    tmp_path: Path,
) -> None:
    gate = Gate()
    model = ScriptedModel([Say(("a", "b"))], gate=gate)
    async with holdfast.open(tmp_path, agent=model) as hf:
        first = await hf.submit(KEY, "first")
        await gate.reached.wait()

        async def own() -> None:
            async with hf.turn(KEY, "impatient"):
                raise AssertionError("it was never its turn")

        waiting = asyncio.create_task(own())
        while len(await hf.store.control.turns()) < 2:
            await hf.change()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert [turn.outcome for turn in await hf.store.control.turns()] == [None, "cancelled"]
        gate.opened.set()
        assert (await first.outcome(5)).kind == "replied"
    assert "impatient" not in oracle.only_transcript(tmp_path).read_text()


async def test_leaving_ones_own_turn_by_an_exception_ends_it(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path) as hf:
        with pytest.raises(ZeroDivisionError):
            async with hf.turn(KEY, "mine") as turn:
                turn_id = turn.turn_id
                raise ZeroDivisionError
        ended = await (await hf.receipt(turn_id)).outcome(5)
        assert (ended.kind, ended.reason) == ("failed", "agent_error")


async def test_a_reply_that_was_torn_off_is_booked_from_the_transcript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled between its entry and its row: the entry stands, so the turn is answered."""
    async with holdfast.open(tmp_path, settings=QUICK) as hf:
        control, real = hf.store.control, hf.store.control.commit

        async def never(*_: Any) -> Any:
            monkeypatch.setattr(control, "commit", real)
            await asyncio.Event().wait()

        monkeypatch.setattr(control, "commit", never)
        with pytest.raises(TimeoutError):
            async with hf.turn(KEY, "mine") as turn:
                turn_id = turn.turn_id
                async with asyncio.timeout(0.1):
                    await turn.reply("written")
        outcome = await (await hf.receipt(turn_id)).outcome(10)
        assert (outcome.kind, outcome.text) == ("replied", "written")
    assert len(oracle.read(oracle.only_transcript(tmp_path))) == 2


async def test_accepted_is_said_even_if_the_place_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:

        async def fails(*_: Any) -> Any:
            raise holdfast.errors.UnavailableError(path="db", detail="scripted")

        monkeypatch.setattr(hf.store.control, "place", fails)
        receipt = await hf.submit(KEY, "hello")
        assert receipt.waiting_for == "unknown"
        assert (await receipt.outcome(10)).kind == "replied"


async def test_closing_gives_running_turns_back_even_if_the_store_refuses_to_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    async with holdfast.open(tmp_path, agent=ScriptedModel([Say(("a", "b"))], gate=gate)) as hf:
        receipt = await hf.submit(KEY, "survive")
        await gate.reached.wait()

        async def fails(*_: Any) -> Any:
            raise holdfast.errors.UnavailableError(path="db", detail="scripted")

        monkeypatch.setattr(hf.store.control, "set_draining", fails)
        await hf.close(finish_s=0)
    async with holdfast.open(tmp_path) as hf:
        turn = await hf.store.control.turn(receipt.turn_id)
        assert (turn.state, turn.attempts) == ("accepted", 0)


async def test_a_second_reply_is_refused(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path) as hf, hf.turn(KEY, "mine") as turn:
        await turn.reply("once")
        with pytest.raises(holdfast.errors.BadRequestError):
            await turn.reply("twice")


# --------------------------------------------------------------------- silent owners


async def test_a_fenced_agent_may_not_act(tmp_path: Path) -> None:
    """The token moves on while a model talks: no tool runs, no byte is written, no text shown."""
    gate = Gate()
    ran = False

    async def tool() -> None:
        nonlocal ran
        ran = True

    acts = [Say(("one ", "two"))]
    model = ScriptedModel(acts, gate=gate)

    class ThenCallsATool:
        async def respond(self, prompt: Prompt, hook: Any) -> Any:
            async with aclosing(model.respond(prompt, hook)) as events:
                async for event in events:
                    if isinstance(event, holdfast.types.Final):
                        await hook(holdfast.types.ToolCall("c", "pay", {}), tool)
                    yield event

    async with holdfast.open(tmp_path, agent=ThenCallsATool(), settings=QUICK) as hf:
        receipt = await hf.submit(KEY, "act")
        await gate.reached.wait()
        newest = hf.store.control.newest_token(receipt.session_id)
        assert newest is not None
        fenced = await hf.store.control.take_over(
            receipt.session_id, holdfast.types.FencingToken(newest[0]), "a-reaper"
        )
        before = oracle.only_transcript(tmp_path).read_bytes()
        gate.opened.set()
        await hf.store.control.put_back(
            receipt.turn_id, fenced, what=put_back_event(), reason="owner_silent"
        )
        outcome = await receipt.outcome(10)
    assert outcome.kind == "replied"
    assert not ran or len(model.prompts) > 1
    entries = oracle.read(oracle.only_transcript(tmp_path))
    assert oracle.only_transcript(tmp_path).read_bytes().startswith(before)
    assert {e["holdfast"]["token"] for e in oracle.finals(entries)} == {3}


def put_back_event() -> Any:
    from holdfast._core.turns import Event

    return Event.REQUEUE


def test_a_dead_senders_own_turn_ends_as_owner_died(tmp_path: Path) -> None:
    script = (
        "import asyncio, os, signal, sys, holdfast\n"
        "async def main():\n"
        "    async with holdfast.open(sys.argv[1]) as hf:\n"
        "        async with hf.turn('main', 'mine') as turn:\n"
        "            print(turn.turn_id, flush=True)\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    dead = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert dead.returncode == -9

    async def look() -> holdfast.Outcome:
        async with holdfast.open(tmp_path) as hf:
            return await (await hf.receipt(dead.stdout.strip())).outcome(15)

    outcome = asyncio.run(look())
    assert (outcome.kind, outcome.reason) == ("failed", "owner_died")
    ended = oracle.read(oracle.only_transcript(tmp_path))[-1]
    assert ended["data"]["reason"] == "owner_died"


async def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path) as hf:
        for call in (hf.receipt("nope"), hf.cancel("nope"), hf.session("agent:main:nobody")):
            with pytest.raises(NotFoundError):
                await call
