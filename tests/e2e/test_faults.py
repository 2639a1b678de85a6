"""
Whatever a provider does, the turn that met it ends as it should, within its attempts; the
next message of the session is answered; and no other session notices.

Over real HTTP, in the protocols of all three providers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final

import pytest

import holdfast
from holdfast._core import failover
from holdfast._core.failover import REASONS
from holdfast.testing import ModelServer, Step
from support import oracle
from support.providers import MODELS, Make, making
from support.wire import told

KEY = "agent:main:main"
ATTEMPTS = 2
SETTINGS: Final = {"turn.max_attempts": ATTEMPTS, "abort.settle_ms": 500}
#: Nothing here takes it; what has no end runs into it.
WITHIN_S = 20


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with ModelServer() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture(autouse=True)
def _quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "BACKOFF_FIRST_S", 0.01)


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:
        yield making(stack)


async def ask(hf: holdfast.Holdfast, text: str, key: str = KEY) -> holdfast.Outcome:
    return await (await hf.submit(key, text)).outcome(WITHIN_S)


def asked_of(server: ModelServer, text: str) -> int:
    return sum(received.text == text for received in server.requests)


def answers(state: Path, agent: str = "main") -> dict[str, str]:
    (path,) = state.glob(f"agents/{agent}/sessions/*.jsonl")
    entries = oracle.read(path)
    oracle.check_whole(entries)
    return oracle.check_answers(entries)


# ------------------------------------------------------------------------- one by one


@dataclass(frozen=True)
class Fault:
    step: Step
    reason: str
    #: What other providers call it, where they differ.
    elsewhere: dict[str, str] | None = None

    def reason_at(self, provider: str) -> str:
        return (self.elsewhere or {}).get(provider, self.reason)


PASSING: Final = {
    "rate_limit": Fault(Step.fail("rate_limit"), "rate_limit"),
    "rate_limit_in_stream": Fault(Step.fail("rate_limit", after=1), "rate_limit"),
    "server_error": Fault(Step.fail("server_error"), "server_error"),
    "server_error_in_stream": Fault(Step.fail("server_error", after=1), "server_error"),
    "unavailable_retry_after": Fault(Step.fail("unavailable", retry_after="0"), "server_error"),
    "overloaded": Fault(Step.fail("overloaded"), "server_error"),
    "overloaded_as_first_frame": Fault(Step.fail("overloaded", after=0), "server_error"),
    "drop_without_headers": Fault(Step.cut("drop", headers=False), "connection"),
    "drop_before_first_token": Fault(Step.cut("drop", after=0), "connection"),
    "drop_in_stream": Fault(Step.cut("drop", after=2), "connection"),
    # Without a single frame, Google's adapter calls it an answer without content.
    "eof_before_first_token": Fault(
        Step.cut("eof", after=0), "truncated", {"google": "bad_reply"}
    ),
    "eof_in_stream": Fault(Step.cut("eof", after=2), "truncated"),
    "eof_after_last_token": Fault(Step(end="eof"), "truncated"),
    "eof_after_call": Fault(Step(tokens=(), tool="never", end="eof"), "truncated"),
    "garbage": Fault(Step.cut("garbage", after=1), "bad_reply"),
}

LASTING: Final = {
    "unauthorized": Fault(Step.fail("unauthorized"), "auth"),
    "quota": Fault(Step.fail("quota"), "quota"),
    "quota_in_stream": Fault(Step.fail("quota", after=1), "quota"),
    "context_length": Fault(Step.fail("context_length"), "context_overflow"),
    "context_length_in_stream": Fault(Step.fail("context_length", after=1), "context_overflow"),
    "bad_request": Fault(Step.fail("bad_request"), "bad_request"),
    "bad_request_in_stream": Fault(Step.fail("bad_request", after=1), "bad_request"),
    "content_filter": Fault(Step.reply("half", finish="content_filter"), "content_filter"),
    "nothing_but_length": Fault(Step(tokens=(), finish="length"), "output_limit"),
    "retry_after_too_long": Fault(Step.fail("rate_limit", retry_after="61"), "rate_limit"),
}


async def never() -> None:
    raise AssertionError("a call out of a broken answer was made")


@pytest.mark.parametrize("name", PASSING)
async def test_what_may_pass_is_tried_again_within_the_limit(
    tmp_path: Path, server: ModelServer, make: Make, name: str
) -> None:
    fault = PASSING[name]

    async def at(provider: str) -> dict[str, Any]:
        words = {word: f"{word} {provider}" for word in ("doomed", "mended", "plain")}
        server.add(fault.step.keyed(words["doomed"]).always())
        server.add(fault.step.keyed(words["mended"]))
        return {w: await ask(hf, text, f"agent:{provider}:main") for w, text in words.items()}

    agents = {provider: make(provider, tools=[never]) for provider in MODELS}
    async with holdfast.open(tmp_path, agents=agents, settings=SETTINGS) as hf:
        found = dict(zip(MODELS, await asyncio.gather(*map(at, MODELS)), strict=True))
    for provider, turns in found.items():
        reason = fault.reason_at(provider)
        doomed = turns["doomed"]
        assert (doomed.kind, doomed.reason) == ("failed", reason), provider
        assert REASONS[reason].hint in doomed.hint
        assert (turns["mended"].kind, turns["plain"].kind) == ("replied", "replied"), provider
        # One request an attempt: no layer below ours tries again.
        attempts = {f"{word} {provider}": turn.attempts for word, turn in turns.items()}
        assert list(attempts.values()) == [ATTEMPTS, 2, 1], provider
        assert {text: asked_of(server, text) for text in attempts} == attempts
        # Nothing of an attempt that failed is in a reply.
        assert answers(tmp_path, provider) == {
            f"{word} {provider}": f"reply to: {word} {provider}" for word in ("mended", "plain")
        }


@pytest.mark.parametrize("name", LASTING)
async def test_what_does_not_pass_ends_the_turn_at_once(
    tmp_path: Path, server: ModelServer, make: Make, name: str
) -> None:
    fault = LASTING[name]
    server.add(fault.step.keyed("doomed").always())

    async def at(provider: str) -> tuple[holdfast.Outcome, holdfast.Outcome]:
        key = f"agent:{provider}:main"
        return await ask(hf, f"doomed {provider}", key), await ask(hf, f"plain {provider}", key)

    agents = {provider: make(provider) for provider in MODELS}
    async with holdfast.open(tmp_path, agents=agents, settings=SETTINGS) as hf:
        found = dict(zip(MODELS, await asyncio.gather(*map(at, MODELS)), strict=True))
    for provider, (doomed, plain) in found.items():
        reason = fault.reason_at(provider)
        assert (doomed.kind, doomed.reason, doomed.attempts) == ("failed", reason, 1), provider
        hint = doomed.hint or ""
        assert REASONS[reason].hint in hint
        assert "{" not in hint, "the provider's JSON, and not what it says in it"
        assert (plain.kind, plain.attempts) == ("replied", 1), provider
        texts = [f"doomed {provider}", f"plain {provider}"]
        assert [asked_of(server, text) for text in texts] == [1, 1], provider
        assert answers(tmp_path, provider) == {texts[1]: f"reply to: {texts[1]}"}


@pytest.mark.parametrize("attempts", [1, 4])
async def test_the_limit_is_a_setting(
    tmp_path: Path, server: ModelServer, make: Make, attempts: int
) -> None:
    server.add(Step.fail("unavailable").always())
    settings = {**SETTINGS, "turn.max_attempts": attempts}
    async with holdfast.open(tmp_path, agent=make("openai"), settings=settings) as hf:
        outcome = await ask(hf, "doomed")
    assert (outcome.kind, outcome.attempts) == ("failed", attempts)
    assert len(server.requests) == attempts


def test_every_error_of_the_server_is_one_of_these() -> None:
    faults = [*PASSING.values(), *LASTING.values()]
    assert {fault.step.error for fault in faults} - {None} == set(Step.errors())


@pytest.mark.parametrize("provider", MODELS)
async def test_a_reply_that_was_too_long_is_a_reply(
    tmp_path: Path, server: ModelServer, make: Make, provider: str
) -> None:
    server.add(Step.reply("so", " far", finish="length"))
    async with holdfast.open(tmp_path, agent=make(provider), settings=SETTINGS) as hf:
        outcome = await ask(hf, "tell all")
    assert (outcome.kind, outcome.text, outcome.attempts) == ("replied", "so far", 1)
    (entry,) = oracle.finals(oracle.read(oracle.only_transcript(tmp_path)))
    assert entry["message"]["stopReason"] == "length"


@pytest.mark.parametrize(
    ("provider", "frame"),
    [
        ("openai", '{"choices": [null]}'),
        ("anthropic", '{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}'),
        ("google", '{"candidates": [{"content": {"parts": [{}]}, "finishReason": "STOP"}]}'),
    ],
)
@pytest.mark.parametrize("after", [0, 1])
async def test_a_frame_that_is_json_and_no_answer_is_tried_again(
    tmp_path: Path, server: ModelServer, make: Make, provider: str, frame: str, after: int
) -> None:
    server.add(replace(Step.cut("garbage", after=after), frame=frame))
    async with holdfast.open(tmp_path, agent=make(provider), settings=SETTINGS) as hf:
        outcome = await ask(hf, "hello")
    assert (outcome.kind, outcome.attempts, len(server.requests)) == ("replied", 2, 2)


# -------------------------------------------------------------- by the clock, all at once

HANGS: Final = {
    "without_headers": Step.cut("hang", headers=False),
    "before_first_token": Step.cut("hang", after=0),
    "in_stream": Step.cut("hang", after=2),
}
IDLE_S = 1.5


async def warm_up(state: Path, agents: dict[str, Any]) -> None:
    """The first turn of an agent loads its SDK, which may take longer than the idle bound."""
    async with holdfast.open(state, agents=agents) as hf:
        for agent in agents:
            await ask(hf, "warm up", f"agent:{agent}:main")


async def test_a_provider_that_goes_quiet_is_left_at_the_idle_bound(
    tmp_path: Path, server: ModelServer, make: Make
) -> None:
    agents = {provider: make(provider) for provider in MODELS}
    await warm_up(tmp_path / "warm", agents)
    cases = [f"{provider}:{how}" for provider in MODELS for how in HANGS]
    for case in cases:
        step = HANGS[case.partition(":")[2]]
        server.add(step.keyed(f"doomed {case}").always(), step.keyed(f"mended {case}"))
    settings = {**SETTINGS, "models.idle_timeout_ms": int(IDLE_S * 1000)}

    async with holdfast.open(tmp_path / "state", agents=agents, settings=settings) as hf:

        async def doomed(case: str) -> tuple[Any, ...]:
            first = await ask(hf, f"doomed {case}", f"agent:{case}:doomed")
            then = await ask(hf, f"plain {case}", f"agent:{case}:doomed")
            return first.kind, first.reason, first.attempts, then.kind, then.attempts

        async def mended(case: str) -> tuple[Any, ...]:
            outcome = await ask(hf, f"mended {case}", f"agent:{case}:mended")
            return outcome.kind, outcome.text, outcome.attempts

        found = await asyncio.gather(*map(doomed, cases), *map(mended, cases))
    left_at_the_bound = ("failed", "timeout", ATTEMPTS, "replied", 1)
    assert dict(zip(cases, found, strict=False)) == dict.fromkeys(cases, left_at_the_bound)
    assert dict(zip(cases, found[len(cases) :], strict=True)) == {
        case: ("replied", f"reply to: mended {case}", 2) for case in cases
    }
    # Every connection that hung was closed by us.
    assert await asyncio.to_thread(server.wait_ended, len(server.requests))
    hung = [r for r in server.requests if r.end == "aborted"]
    assert len(hung) == len(cases) * (ATTEMPTS + 1)


async def test_retry_after_is_waited_out(
    tmp_path: Path, server: ModelServer, make: Make
) -> None:
    """As seconds and as a date, which has whole ones; Google's stands in the body."""
    at_s = int(time.time()) + 2
    forms = {"seconds": "1", "date": format_datetime(datetime.fromtimestamp(at_s, UTC), True)}
    cases = {
        f"{provider}:{error}:{form}": Step.fail(error, retry_after=after)
        for provider in MODELS
        for error in ("rate_limit", "unavailable")
        for form, after in forms.items()
    }
    server.add(*(step.keyed(case) for case, step in cases.items()))
    agents = {provider: make(provider) for provider in MODELS}
    async with holdfast.open(tmp_path, agents=agents, settings=SETTINGS) as hf:
        outcomes = await asyncio.gather(*(ask(hf, case, f"agent:{case}") for case in cases))
    assert [(o.kind, o.attempts) for o in outcomes] == [("replied", 2)] * len(cases)
    for case in cases:
        first, second = (r.started_s for r in server.requests if r.text == case)
        if case.endswith("seconds"):
            assert second - first >= 1
        else:
            assert second >= at_s - time.time() + time.monotonic() - CLOCKS_APART_S


#: Two clocks are read one after the other.
CLOCKS_APART_S = 0.05


# ------------------------------------------------------------------------------- tools


@pytest.mark.parametrize("provider", MODELS)
async def test_calls_in_one_message_run_together_and_each_once(
    tmp_path: Path, server: ModelServer, make: Make, provider: str
) -> None:
    """Also when the request that brings their results has to be made three times."""
    ran: list[str] = []
    second_done = asyncio.Event()

    async def first(n: int) -> str:
        ran.append(f"first {n}")
        await second_done.wait()  # One after the other, they would never end.
        return f"first {n} done"

    async def second(n: int) -> str:
        ran.append(f"second {n}")
        second_done.set()
        return f"second {n} done"

    server.add(
        Step.calls(("first", {"n": 1}), ("second", {"n": 2}), ("second", {"n": 3})),
        Step.fail("unavailable"),
        Step.cut("eof"),
        Step.reply("all done"),
    )
    agent = make(provider, tools=[first, second])
    settings = {**SETTINGS, "turn.max_attempts": 3}
    async with holdfast.open(tmp_path, agent=agent, settings=settings) as hf:
        outcome = await ask(hf, "go")
        await ask(hf, "and then?")
    assert (outcome.kind, outcome.text, outcome.attempts) == ("replied", "all done", 3)
    assert sorted(ran) == ["first 1", "second 2", "second 3"]
    conversation = [
        [("user", "go")],
        [
            ("call", "call_1", "first", {"n": 1}),
            ("call", "call_2", "second", {"n": 2}),
            ("call", "call_3", "second", {"n": 3}),
        ],
        # In the order of the calls, whichever was done first; together, in one message.
        [
            ("result", "call_1", "first 1 done"),
            ("result", "call_2", "second 2 done"),
            ("result", "call_3", "second 3 done"),
        ],
    ]
    assert [told(received) for received in server.requests[1:4]] == [conversation] * 3
    later = [*conversation, [("assistant", "all done")], [("user", "and then?")]]
    assert told(server.requests[4]) == later
    assert answers(tmp_path) == {"go": "all done", "and then?": "reply to: and then?"}


@pytest.mark.parametrize("provider", MODELS)
async def test_a_call_among_others_may_fail_alone(
    tmp_path: Path, server: ModelServer, make: Make, provider: str
) -> None:
    @holdfast.tool(timeout_s=0.05)
    async def slow() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    async def quick() -> str:
        return "quick done"

    server.add(Step.calls(("slow", {}), ("quick", {})), Step.reply("half done"))
    agent = make(provider, tools=[slow, quick])
    async with holdfast.open(tmp_path, agent=agent, settings=SETTINGS) as hf:
        outcome = await ask(hf, "both")
    assert (outcome.kind, outcome.text) == ("replied", "half done")
    slow_result, quick_result = told(server.requests[1])[2]
    assert slow_result[:2] == ("result", "call_1")
    assert "within 0.05 s" in slow_result[2]
    assert quick_result == ("result", "call_2", "quick done")


# ---------------------------------------------------------------------- other sessions


HELD: Final[dict[str, Callable[[], Step]]] = {
    "hangs_without_headers": lambda: Step.cut("hang", headers=False).held(),
    "hangs_before_first_token": lambda: Step.cut("hang").held(after=0),
    "hangs_in_stream": lambda: Step.cut("hang").held(after=1),
    "is_slow_to_refuse": lambda: Step.fail("rate_limit").held(),
    "is_limited": lambda: Step.fail("rate_limit", retry_after="55"),
    "is_unavailable": lambda: Step.fail("unavailable", retry_after="55"),
}


@pytest.mark.parametrize(
    ("how", "provider"),
    [(how, "openai") for how in HELD]
    + [(how, other) for how in list(HELD)[:3] for other in ("anthropic", "google")],
)
async def test_another_session_is_answered_meanwhile(
    tmp_path: Path, server: ModelServer, make: Make, how: str, provider: str
) -> None:
    """Not by a stopwatch: five turns of one begin and end inside the one turn of the other."""
    server.add(HELD[how]().keyed("faulty"))
    async with holdfast.open(tmp_path, agent=make(provider), settings=SETTINGS) as hf:
        faulty = await hf.submit("agent:main:faulty", "faulty")
        assert await asyncio.to_thread(server.wait, lambda: asked_of(server, "faulty") == 1)
        before = len(server.requests)
        for number in range(5):
            outcome = await ask(hf, f"sound {number}", "agent:main:sound")
            assert (outcome.kind, outcome.attempts) == ("replied", 1)
        with pytest.raises(TimeoutError):
            await faulty.outcome(0)
        # It is let go of at a word, and its session goes on as well.
        await hf.cancel(faulty.turn_id)
        assert (await faulty.outcome(WITHIN_S)).kind == "cancelled"
        assert (await ask(hf, "next", "agent:main:faulty")).kind == "replied"
    assert await asyncio.to_thread(server.wait_ended, len(server.requests))
    assert [received.text for received in server.requests[before:]] == [
        *(f"sound {number}" for number in range(5)),
        "next",
    ]


async def test_many_sessions_that_hang_leave_room_for_one_that_does_not(
    tmp_path: Path, server: ModelServer, make: Make
) -> None:
    """As many as the lane takes, all but one of them on a provider that says nothing."""
    server.add(Step.cut("hang", headers=False).keyed("faulty").always())
    settings = {**SETTINGS, "lanes.user.concurrency": 6}
    async with holdfast.open(tmp_path, agent=make("openai"), settings=settings) as hf:
        faulty = [await hf.submit(f"agent:main:{n}", "faulty") for n in range(5)]
        assert await asyncio.to_thread(server.wait, lambda: asked_of(server, "faulty") == 5)
        for number in range(5):
            outcome = await ask(hf, f"sound {number}", "agent:main:sound")
            assert (outcome.kind, outcome.attempts) == ("replied", 1)
        for receipt in faulty:
            await hf.cancel(receipt.turn_id)
        ends = [(await receipt.outcome(WITHIN_S)).kind for receipt in faulty]
    assert ends == ["cancelled"] * 5
