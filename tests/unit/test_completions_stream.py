"""From a turn's events to the chunks of a stream: one attempt, whole, or an error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import DrainingError, HoldfastError, NotFoundError, QueueFullError
from holdfast.gateway import completions
from holdfast.gateway._completions_answer import (
    SupersededError,
    openai_error,
    unanswered,
    usage,
)
from holdfast.gateway._completions_request import UnsupportedParameterError
from holdfast.gateway._completions_stream import Telling, chunks
from holdfast.gateway.problems import BadFieldError, UnauthorizedError
from holdfast.types import TurnEvent

HEAD = {"id": "chatcmpl-t", "object": "chat.completion.chunk", "created": 1, "model": "m"}
ACCEPTED = TurnEvent("accepted", {"position": 0, "waiting_for": None})
STARTED = TurnEvent("started", {"attempt": 1}, "1.1")


def text(delta: str) -> TurnEvent:
    return TurnEvent("text", {"text": delta})


def tool(state: str = "started") -> TurnEvent:
    return TurnEvent("tool", {"name": "add", "call_id": "c", "state": state})


def outcome(kind: str = "replied", reply: str | None = None, **more: Any) -> TurnEvent:
    data = {"turn_id": "t", "outcome": kind, "text": reply, "reason": None, "hint": None}
    return TurnEvent("outcome", {**data, "attempts": 1, **more})


def waits(position: int, kind: str = "position", why: str | None = "queue") -> TurnEvent:
    return TurnEvent(kind, {"position": position, "waiting_for": why})


async def told(*events: TurnEvent | HoldfastError, usage_of: Any = None) -> list[Any]:
    """What goes out: decoded chunks, comments, and DONE."""
    closed = []

    async def happening() -> AsyncGenerator[TurnEvent, None]:
        try:
            for event in events:
                if isinstance(event, HoldfastError):
                    raise event
                yield event
        finally:
            closed.append(True)

    async def used() -> Any:
        return usage_of

    ask = None if usage_of is None else used
    telling = Telling("t")
    found: list[Any] = []
    async for raw in chunks(happening(), telling, HEAD, usage=ask):
        assert raw.endswith(b"\n\n")
        line = raw.decode().strip()
        data = line.removeprefix("data: ")
        found.append(line if line.startswith(":") or data == "[DONE]" else json.loads(data))
    assert closed == [True]
    assert telling.over
    return found


def contents(found: list[Any]) -> list[str]:
    choices = [
        each["choices"][0] for each in found if isinstance(each, dict) and "choices" in each
    ]
    return [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]


async def test_a_reply_in_the_form_that_clients_know() -> None:
    role, one, two, final, done = await told(
        ACCEPTED, STARTED, text("he"), text("llo"), outcome(reply="hello")
    )
    assert role == {**HEAD, "choices": [{
        "index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None,
        "finish_reason": None,
    }]}  # fmt: skip
    assert contents([one, two]) == ["he", "llo"]
    assert (final["choices"][0]["delta"], final["choices"][0]["finish_reason"]) == ({}, "stop")
    assert done == "data: [DONE]"


async def test_usage_comes_last_and_only_if_it_was_asked_for() -> None:
    found = await told(ACCEPTED, STARTED, outcome(reply="hi"), usage_of={"total_tokens": 3})
    assert [each["usage"] for each in found[:-1]] == [None, None, None, {"total_tokens": 3}]
    assert found[-2]["choices"] == []
    plain = await told(ACCEPTED, STARTED, outcome(reply="hi"))
    assert not [each for each in plain[:-1] if "usage" in each]


async def test_a_turn_that_waits_says_where_it_stands_at_once() -> None:
    found = await told(
        waits(3, "accepted"), waits(2), waits(1), STARTED, text("x"), outcome(reply="x")
    )
    assert [each for each in found if isinstance(each, str)] == [
        ": waiting position=3", "data: [DONE]",
    ]  # fmt: skip


async def test_the_head_of_the_queue_without_a_runner_waits_too() -> None:
    found = await told(waits(0, "accepted", "no_runner"), STARTED, outcome(reply="x"))
    assert ": waiting position=0" in found


def test_a_comment_in_a_silence_tells_the_latest_place() -> None:
    telling = Telling("t")
    assert telling.standing() == "running"
    for position in (3, 2):
        telling.take(waits(position))
    assert telling.standing() == "waiting position=2"
    telling.take(STARTED)
    assert telling.standing() == "running"


# ------------------------------------------------------------------- what was not streamed


@given(st.lists(st.text(alphabet="ab", min_size=1, max_size=3)), st.data())
async def test_what_the_live_log_lacks_comes_from_the_outcome(
    deltas: list[str], data: st.DataObject
) -> None:
    """The log may end early, or be gone: the text that was sent is the reply all the same."""
    kept = data.draw(st.integers(0, len(deltas)))
    reply = "".join(deltas)
    events = [text(delta) for delta in deltas[:kept]]
    found = await told(ACCEPTED, STARTED, *events, outcome(reply=reply))
    assert "".join(contents(found)) == reply


async def test_an_earlier_turn_found_by_its_key_is_told_from_its_outcome_alone() -> None:
    assert contents(await told(outcome(reply="as before"))) == ["as before"]


async def test_text_around_a_tool_is_kept_apart() -> None:
    found = await told(
        STARTED, text("Let me see."), tool(), tool("done"), text("Five"), text("."),
        outcome(reply="Five."),
    )  # fmt: skip
    assert "".join(contents(found)) == "Let me see.\n\nFive."
    silent = await told(STARTED, tool(), tool("done"), text("Five."), outcome(reply="Five."))
    assert "".join(contents(silent)) == "Five."


async def test_a_reply_that_was_never_text_comes_after_what_was() -> None:
    found = await told(STARTED, text("Thinking."), outcome(reply='{"a":1}'))
    assert "".join(contents(found)) == 'Thinking.\n\n{"a":1}'


async def test_a_silence_is_an_answer_without_text() -> None:
    found = await told(STARTED, outcome("silent", reason="no_reply"))
    assert contents(found) == []
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    assert found[-1] == "data: [DONE]"


# ---------------------------------------------------------------------- what cannot go on


@pytest.mark.parametrize(
    "again",
    [
        TurnEvent("attempt", {"n": 2, "reason": "server_error"}, "1.3"),
        TurnEvent("started", {"attempt": 2}, "2.1"),
    ],
)
async def test_an_attempt_that_is_superseded_after_its_first_text_ends_the_stream(
    again: TurnEvent,
) -> None:
    *before, last = await told(STARTED, text("one"), again, text("two"), outcome(reply="two"))
    assert contents(before) == ["one"]
    assert last["error"]["code"] == "attempt_superseded"
    assert last["error"]["turn_id"] == "t"
    assert last["error"]["message"]


async def test_an_attempt_that_said_nothing_is_followed_by_the_next() -> None:
    again = TurnEvent("attempt", {"n": 2, "reason": "timeout"}, "1.2")
    found = await told(STARTED, again, text("two"), outcome(reply="two"))
    assert contents(found) == ["two"]
    assert found[-1] == "data: [DONE]"


@pytest.mark.parametrize(
    ("kind", "code"),
    [("failed", "turn_failed"), ("cancelled", "turn_cancelled"), ("refused", "turn_refused")],
)
async def test_a_turn_without_an_answer_ends_the_stream_with_an_error(
    kind: str, code: str
) -> None:
    *_, last = await told(STARTED, text("x"), outcome(kind, reason="auth", hint="mend it"))
    assert (last["error"]["code"], last["error"]["turn_id"]) == (code, "t")
    assert "auth" in last["error"]["message"]
    assert "mend it" in last["error"]["message"]


async def test_a_process_that_closes_says_so_in_the_stream() -> None:
    *_, last = await told(STARTED, text("x"), DrainingError())
    assert last["error"]["code"] == "draining"


# ------------------------------------------------------------------------ forms of errors


def test_statuses_of_turns_without_an_answer() -> None:
    def status(kind: str) -> int | None:
        error = unanswered(dict(outcome(kind).data))
        return None if error is None else error.status

    assert {kind: status(kind) for kind in ("replied", "silent", "merged", "failed")} == {
        "replied": None, "silent": None, "merged": None, "failed": 502,
    }  # fmt: skip
    assert (status("cancelled"), status("refused")) == (409, 409)


@pytest.mark.parametrize(
    ("error", "kind", "param"),
    [
        (
            UnsupportedParameterError(param="tools", detail="x"),
            "invalid_request_error",
            "tools",
        ),
        (BadFieldError(name="stream", detail="x"), "invalid_request_error", "stream"),
        (UnauthorizedError(), "authentication_error", None),
        (NotFoundError(what="turn", name="t"), "not_found_error", None),
        (QueueFullError(session="s", limit=1), "rate_limit_error", None),
        (DrainingError(), "server_error", None),
        (SupersededError(turn_id="t"), "server_error", None),
    ],
)
def test_errors_in_the_form_that_clients_know(
    error: HoldfastError, kind: str, param: str | None
) -> None:
    told = openai_error(error)
    assert (told["type"], told["param"], told["code"]) == (kind, param, error.code)
    assert str(error) in told["message"]


def test_usage_counts_what_the_cache_served_into_the_prompt() -> None:
    used = {"input": 5, "output": 7, "cacheRead": 11, "cacheWrite": 13, "totalTokens": 36}
    assert usage(used) == {
        "prompt_tokens": 29, "completion_tokens": 7, "total_tokens": 36,
        "prompt_tokens_details": {"cached_tokens": 11},
    }  # fmt: skip
    assert usage(None)["total_tokens"] == 0


async def test_a_stream_is_closed_when_its_client_leaves_in_the_middle_of_a_chunk() -> None:
    """Whoever follows a turn is listed until it is closed: a leak for every slow client."""
    closed, sending = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"data: {}\n\n"
        finally:
            closed.set()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            sending.set()
            await asyncio.Event().wait()

    async def receive() -> Any:
        await sending.wait()
        return {"type": "http.disconnect"}

    settings = SimpleNamespace(cancel_on_disconnect=False)
    gateway: Any = SimpleNamespace(settings=settings)
    answer = completions._Stream(body(), Telling("t"), gateway)
    await answer({"type": "http"}, receive, send)
    assert closed.is_set()
