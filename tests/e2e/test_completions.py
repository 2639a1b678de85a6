"""`/v1/chat/completions` and `/v1/models`, through the official client, unmodified."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from holdfast.errors import ProviderError
from holdfast.gateway import completions
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Act, Call, Fail, Quiet, Say
from holdfast.types import Prompt
from support import oracle
from support.door import TOKEN, Door, door, until

KEY = "agent:main:main"
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
IN_MAIN = {"X-Holdfast-Session": KEY}


class Gate:
    """Lets a scripted model say *after* tokens, then waits to be opened."""

    def __init__(self, after: int = 0) -> None:
        self._after = after
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, prompt: Prompt, position: int) -> None:
        if position == self._after:
            self.reached.set()
            await self.opened.wait()


def asking(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": text}], **more}


async def streamed(stream: Any) -> str:
    return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])


async def turn_of(here: Door, turn_id: str) -> Any:
    return await here.hf.store.control.turn(turn_id)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------- an answer


async def test_a_plain_answer(tmp_path: Path) -> None:
    async with door(tmp_path) as here, here.openai() as client:
        raw = await client.chat.completions.with_raw_response.create(**asking(user="Bob B"))
        answer = raw.parse()
        assert answer.choices[0].message.content == "reply to: hello"
        assert (answer.choices[0].finish_reason, answer.model) == ("stop", "any")
        assert answer.object == "chat.completion"
        assert raw.headers["x-holdfast-session"] == "agent:main:openai:direct:bob%20b"
        turn = await turn_of(here, raw.headers["x-holdfast-turn"])
        assert (turn.lane, turn.source, turn.policy) == ("user", "api", "enqueue")
        assert answer.id == f"chatcmpl-{turn.turn_id}"
        assert answer.usage is not None
        assert answer.usage.total_tokens == sum(
            turn.usage[name] for name in ("input", "output", "cacheRead", "cacheWrite")
        )


async def test_a_streamed_answer(tmp_path: Path) -> None:
    model = ScriptedModel([Say(("one ", "two ", "three"))])
    async with door(tmp_path, model) as here, here.openai() as client:
        raw = await client.chat.completions.with_raw_response.create(
            **asking(stream=True, stream_options={"include_usage": True}), extra_headers=IN_MAIN
        )
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.headers["x-holdfast-session"] == KEY
        chunks = [chunk async for chunk in raw.parse()]
        turn = await turn_of(here, raw.headers["x-holdfast-turn"])
    assert {(c.id, c.object, c.model) for c in chunks} == {
        (f"chatcmpl-{turn.turn_id}", "chat.completion.chunk", "any")
    }
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == turn.reply
    assert turn.reply == "one two three"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == turn.usage["output"]


async def test_the_text_arrives_while_the_model_talks(tmp_path: Path) -> None:
    gate = Gate(after=1)
    model = ScriptedModel([Say(("one ", "two"))], gate=gate)
    async with door(tmp_path, model) as here, here.openai() as client:
        stream = await client.chat.completions.create(**asking(stream=True))
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        assert chunk.choices[0].delta.content == "one "
        assert not gate.opened.is_set(), "it came after the model had ended"
        gate.opened.set()
        assert await streamed(stream) == "two"


async def test_the_stream_helper_of_the_client(tmp_path: Path) -> None:
    async with door(tmp_path) as here, here.openai() as client:
        async with client.chat.completions.stream(**asking()) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.content == "reply to: hello"


# ------------------------------------------------------------------------ which session


async def test_a_user_has_a_session_and_a_request_without_one_is_alone(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with door(tmp_path, model) as here, here.openai() as client:
        for more in ({"user": "bob"}, {"user": "BOB"}, {}, {}):
            await client.chat.completions.create(**asking(**more))
    assert [len(prompt.history) for prompt in model.prompts] == [0, 2, 0, 0]
    assert len({prompt.session_key for prompt in model.prompts}) == 3
    assert len(list(tmp_path.glob("agents/main/sessions/*.jsonl"))) == 3


async def test_earlier_messages_seed_a_new_session_and_are_ignored_afterwards(
    tmp_path: Path,
) -> None:
    model = ScriptedModel()
    talk: list[dict[str, str]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    async with door(tmp_path, model) as here, here.openai() as client:
        for more in (
            [],
            [{"role": "assistant", "content": "a lie"}, {"role": "user", "content": "four"}],
        ):
            messages: Any = [*talk, *more]
            await client.chat.completions.create(
                model="m", messages=messages, extra_headers=IN_MAIN
            )
    entries = oracle.read(oracle.only_transcript(tmp_path))
    assert [oracle.text_of(entry) for entry in entries] == [
        "one", "two", "three", "reply to: three", "four", "reply to: four",
    ]  # fmt: skip
    assert list(oracle.check_answers(entries)) == ["three", "four"]
    assert [prompt.instructions for prompt in model.prompts] == ["Be brief."] * 2


async def test_what_is_ignored_does_not_count_into_a_limit(tmp_path: Path) -> None:
    """A client that sends all it has, every time, works for as long as it likes."""
    long: Any = [
        {"role": "user", "content": "x" * 2000},
        {"role": "assistant", "content": "y"},
        *HELLO,
    ]
    limit = {"gateway.max_message_bytes": 1000}
    async with door(tmp_path, settings=limit) as here, here.openai() as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model="m", messages=long, user="bob")
        assert caught.value.status_code == 413
        await client.chat.completions.create(model="m", messages=HELLO, user="bob")
        answer = await client.chat.completions.create(model="m", messages=long, user="bob")
    assert answer.choices[0].message.content == "reply to: hello"


async def test_a_model_that_is_an_agent_answers_and_any_other_is_echoed(tmp_path: Path) -> None:
    agents = {
        name: ScriptedModel(*[[Say((f"I am {name}",))]] * 2) for name in ("main", "coder")
    }
    async with door(tmp_path, agents=agents) as here, here.openai() as client:
        listed = [model.id async for model in client.models.list()]
        answers = {
            (model, key): await client.chat.completions.create(
                model=model,
                messages=HELLO,
                extra_headers={"X-Holdfast-Session": key} if key else {},
            )
            for model, key in (("coder", ""), ("gpt-4o", ""), ("coder", KEY))
        }
    assert listed == ["coder", "main"]
    assert {told: answer.choices[0].message.content for told, answer in answers.items()} == {
        ("coder", ""): "I am coder",
        ("gpt-4o", ""): "I am main",
        ("coder", KEY): "I am main",
    }
    assert [answer.model for answer in answers.values()] == ["coder", "gpt-4o", "coder"]


async def test_a_session_may_be_called_what_it_is_called_elsewhere(tmp_path: Path) -> None:
    key = "agent:main:matrix:room:!Ünï:example"
    async with door(tmp_path) as here, here.http() as client:
        answer = await client.post(
            "/v1/chat/completions", json=asking(), headers={"X-Holdfast-Session": key.encode()}
        )
        assert answer.status_code == 200
        assert answer.headers.raw
        raw = dict(answer.headers.raw)[b"x-holdfast-session"]
        assert raw.decode() == key
        assert (await here.hf.session(key)).session_id


async def test_lane_and_policy_are_what_their_headers_say(tmp_path: Path) -> None:
    gate = Gate()
    async with door(tmp_path, ScriptedModel(gate=gate)) as here, here.openai() as client:
        headers = {**IN_MAIN, "X-Holdfast-Lane": "cron"}
        first = asyncio.create_task(
            client.chat.completions.with_raw_response.create(**asking(), extra_headers=headers)
        )
        await gate.reached.wait()
        with pytest.raises(openai.ConflictError) as caught:
            await client.chat.completions.create(
                **asking(), extra_headers={**IN_MAIN, "X-Holdfast-Policy": "reject"}
            )
        assert caught.value.code == "rejected"
        gate.opened.set()
        turn = await turn_of(here, (await first).headers["x-holdfast-turn"])
        assert turn.lane == "cron"
        for header in ("X-Holdfast-Lane", "X-Holdfast-Policy"):
            with pytest.raises(openai.UnprocessableEntityError):
                await client.chat.completions.create(
                    **asking(), extra_headers={**IN_MAIN, header: "nonsense"}
                )
        assert len(await here.hf.store.control.turns()) == 1


# -------------------------------------------------------------------------- idempotency


@pytest.mark.parametrize("where", [{"user": "bob"}, {}], ids=["user", "one-off"])
async def test_the_same_key_is_the_same_turn(tmp_path: Path, where: dict[str, str]) -> None:
    async with door(tmp_path) as here, here.openai() as client:
        ask = client.chat.completions.with_raw_response.create
        key = {"Idempotency-Key": "k-1"}
        first = await ask(**asking(**where), extra_headers=key)
        again = await ask(**asking(**where, stream=True), extra_headers=key)
        assert await streamed(again.parse()) == "reply to: hello"
        assert again.headers["x-holdfast-turn"] == first.headers["x-holdfast-turn"]
        with pytest.raises(openai.ConflictError) as caught:
            await ask(**asking("other", **where), extra_headers=key)
        assert caught.value.code == "idempotency_conflict"
        assert len(await here.hf.store.control.turns()) == 1


async def test_without_a_key_each_request_is_a_message(tmp_path: Path) -> None:
    async with door(tmp_path) as here, here.openai() as client:
        for _ in range(2):
            await client.chat.completions.create(**asking(user="bob"))
        assert len(await here.hf.store.control.turns()) == 2


async def test_a_retry_joins_a_turn_that_still_runs(tmp_path: Path) -> None:
    gate = Gate(after=1)
    model = ScriptedModel([Say(("one ", "two"))], gate=gate)
    async with door(tmp_path, model) as here, here.openai() as client:
        key = {"Idempotency-Key": "k-1"}
        streams = [
            await client.chat.completions.create(**asking(stream=True), extra_headers=key)
            for _ in range(2)
        ]
        await gate.reached.wait()
        gate.opened.set()
        assert [await streamed(stream) for stream in streams] == ["one two"] * 2
    assert len(model.prompts) == 1


# ------------------------------------------------------------------------------ refusals


async def test_what_is_not_supported_is_told_in_both_languages(tmp_path: Path) -> None:
    tools: Any = [{"type": "function", "function": {"name": "f"}}]
    async with door(tmp_path) as here, here.openai() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(**asking(tools=tools))
        error = caught.value
        assert (error.code, error.param, error.type) == (
            "unsupported_parameter", "tools", "invalid_request_error",
        )  # fmt: skip
        problem = error.response.json()
        assert error.response.headers["content-type"] == "application/problem+json"
        assert (problem["code"], problem["status"], problem["param"]) == (
            "unsupported_parameter", 400, "tools",
        )  # fmt: skip
        assert await here.hf.store.control.turns() == []


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "bad_request"),
        (b"[" * 100_000, 400, "bad_request"),
        (b'"\xff"', 400, "bad_request"),
        (b"[]", 422, "bad_field"),
        (b"{}", 422, "bad_field"),
        (b'{"messages": [], "stream": 1}', 422, "bad_field"),
        (b'{"messages": []}', 400, "bad_request"),
        (json.dumps(asking("\ud800")).encode(), 400, "bad_request"),
        (json.dumps(asking("x" * 2_000_000)).encode(), 413, "too_large"),
        (json.dumps(asking("x" * 9_000_000)).encode(), 413, "too_large"),
    ],
)
async def test_bad_bodies(tmp_path: Path, content: bytes, status: int, code: str) -> None:
    async with door(tmp_path) as here, here.http() as client:
        answer = await client.post("/v1/chat/completions", content=content)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.json()["error"]["code"] == code
        assert await here.hf.store.control.turns() == []


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"X-Holdfast-Session": "nonsense"}, 422, "bad_key"),
        ({"X-Holdfast-Session": ""}, 422, "bad_key"),
        ({"X-Holdfast-Session": "agent:nobody:x"}, 422, "unknown_agent"),
        ({"X-Holdfast-Session": b"\xff\xfe"}, 422, "bad_key"),
        ({"Idempotency-Key": ""}, 400, "bad_request"),
        ({"Idempotency-Key": "k" * 300}, 400, "bad_request"),
    ],
)
async def test_bad_headers(tmp_path: Path, headers: Any, status: int, code: str) -> None:
    async with door(tmp_path) as here, here.http() as client:
        answer = await client.post("/v1/chat/completions", json=asking(), headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_errors_of_the_door_frame_are_in_both_languages_too(tmp_path: Path) -> None:
    async with door(tmp_path) as here, here.openai(api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.models.list()
        assert (caught.value.code, caught.value.type) == (
            "unauthorized",
            "authentication_error",
        )
        assert caught.value.response.json()["hint"]
        assert TOKEN not in caught.value.response.text
        async with here.http() as http:
            wrong = await http.get("/v1/chat/completions")
            assert (wrong.status_code, wrong.json()["error"]["code"]) == (
                405,
                "method_not_allowed",
            )
            assert "error" not in (await http.get("/v1/nonsense")).json()


# ------------------------------------------------------------------------------ outcomes


async def test_a_silence_is_an_empty_answer(tmp_path: Path) -> None:
    model = ScriptedModel([Quiet()], [Quiet()])
    async with door(tmp_path, model) as here, here.openai() as client:
        answer = await client.chat.completions.create(**asking())
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (
            "", "stop",
        )  # fmt: skip
        stream = await client.chat.completions.create(**asking(stream=True))
        assert await streamed(stream) == ""


def failing() -> ProviderError:
    return ProviderError(reason="auth", detail="the key is refused")


async def test_a_failure_is_told_once_and_not_asked_for_again(tmp_path: Path) -> None:
    """The client retries what failed by itself; here that would be another message."""
    model = ScriptedModel([Fail(failing())], [Fail(failing(), ("one ",))])
    async with door(tmp_path, model) as here, here.openai(max_retries=2) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(**asking())
        [turn] = await here.hf.store.control.turns()
        error = caught.value
        assert (error.status_code, error.code) == (502, "turn_failed")
        assert error.response.headers["x-holdfast-turn"] == turn.turn_id
        problem = error.response.json()
        assert (problem["turn_id"], problem["outcome"], problem["reason"]) == (
            turn.turn_id, "failed", "auth",
        )  # fmt: skip
        stream = await client.chat.completions.create(**asking(stream=True))
        with pytest.raises(openai.APIError) as broken:
            await streamed(stream)
        turns = await here.hf.store.control.turns()
        assert len(turns) == 2
        body: Any = broken.value.body
        assert (body["code"], body["turn_id"]) == ("turn_failed", turns[-1].turn_id)


async def test_a_cancelled_turn_is_a_conflict(tmp_path: Path) -> None:
    gate = Gate()
    async with door(tmp_path, ScriptedModel(gate=gate)) as here, here.openai() as client:
        asked = asyncio.create_task(client.chat.completions.create(**asking()))
        await gate.reached.wait()
        [turn] = await here.hf.store.control.turns()
        await here.hf.cancel(turn.turn_id)
        with pytest.raises(openai.ConflictError) as caught:
            await asked
        assert caught.value.code == "turn_cancelled"
        assert caught.value.response.json()["turn_id"] == turn.turn_id


async def test_tools_of_the_agent_run_here_and_what_is_said_around_them_is_told(
    tmp_path: Path,
) -> None:
    async def add() -> int:
        return 5

    acts: list[Act] = [Call("add", add), Say(("five",))]
    model = ScriptedModel(acts)
    async with door(tmp_path, model) as here, here.openai() as client:
        stream = await client.chat.completions.create(**asking(stream=True))
        assert await streamed(stream) == "five"


async def test_a_stream_ends_when_another_attempt_begins_after_its_first_text(
    tmp_path: Path,
) -> None:
    again = ProviderError(reason="server_error", detail="x", retry_after_s=0.0)
    model = ScriptedModel([Fail(again, ("one ",))], [Say(("whole",))])
    async with door(tmp_path, model) as here, here.openai() as client:
        raw = await client.chat.completions.with_raw_response.create(**asking(stream=True))
        said: list[str] = []
        with pytest.raises(openai.APIError) as caught:
            async for chunk in raw.parse():
                said.append(chunk.choices[0].delta.content or "")
        turn_id = raw.headers["x-holdfast-turn"]
        body: Any = caught.value.body
        assert "".join(said) == "one "
        assert (body["code"], body["turn_id"]) == ("attempt_superseded", turn_id)
        outcome = await (await here.hf.receipt(turn_id)).outcome(30)
        assert (outcome.kind, outcome.text) == ("replied", "whole"), "the turn goes on"


async def test_a_stream_goes_on_if_the_first_attempt_said_nothing(tmp_path: Path) -> None:
    again = ProviderError(reason="server_error", detail="x", retry_after_s=0.0)
    model = ScriptedModel([Fail(again)], [Say(("whole",))])
    async with door(tmp_path, model) as here, here.openai() as client:
        stream = await client.chat.completions.create(**asking(stream=True))
        assert await streamed(stream) == "whole"


# ------------------------------------------------------------------------------- waiting


async def test_a_stream_says_where_it_waits_at_once_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "COMMENT_EVERY_S", 0.05)
    gate = Gate()
    async with door(tmp_path, ScriptedModel(gate=gate)) as here, here.http() as client:
        first = await here.hf.submit(KEY, "first")
        await gate.reached.wait()
        lines: list[str] = []
        async with client.stream(
            "POST", "/v1/chat/completions", json=asking(stream=True), headers=IN_MAIN
        ) as answer:
            async for line in answer.aiter_lines():
                lines += [line] if line else []
                if lines.count(": waiting position=1") == 3:
                    gate.opened.set()
        assert (await first.outcome(30)).kind == "replied"
    assert lines[0].startswith("data: "), "the role, so that a client knows that it is in"
    assert lines[1] == ": waiting position=1"
    assert lines[-1] == "data: [DONE]"
    assert gate.opened.is_set()


async def test_a_process_that_drains_says_which_turn_goes_on_elsewhere(tmp_path: Path) -> None:
    """With a key, a retry elsewhere meets the turn; without one, it would be another message."""
    gate = Gate()
    async with door(tmp_path, ScriptedModel(gate=gate)) as here, here.http() as client:
        asked = [
            asyncio.create_task(
                client.post("/v1/chat/completions", json=asking(**more), headers=headers)
            )
            for more, headers in (
                ({}, {}),
                ({}, {"Idempotency-Key": "k-1"}),
                ({"stream": True}, {}),
            )
        ]
        await until(lambda: _count(here, 3))
        await here.hf.drain(finish_s=0)
        await here.hf.dismiss()
        plain, keyed, stream = await asyncio.gather(*asked)
        late = await client.post("/v1/chat/completions", json=asking())
    assert [each.status_code for each in (plain, keyed, late)] == [503] * 3
    assert plain.headers["x-should-retry"] == "false"
    for other in (keyed, late):
        assert "x-should-retry" not in other.headers
        assert other.headers["retry-after"]
    assert "x-holdfast-turn" not in late.headers
    async with door(tmp_path) as there:
        for answer in (plain, keyed, stream):
            receipt = await there.hf.receipt(answer.headers["x-holdfast-turn"])
            assert (await receipt.outcome(30)).kind == "replied"
    error = json.loads(stream.text.strip().splitlines()[-1].removeprefix("data: "))["error"]
    assert error["code"] == "draining"
    assert error["turn_id"] == stream.headers["x-holdfast-turn"]


async def _count(here: Door, turns: int) -> bool:
    return len(await here.hf.store.control.turns(state="running")) == turns


# ------------------------------------------------------------------- clients that go away


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("cancels", [False, True])
async def test_a_client_that_goes_away(tmp_path: Path, stream: bool, cancels: bool) -> None:
    gate = Gate(after=1)
    model = ScriptedModel([Say(("one ", "two"))], gate=gate)
    settings = {"gateway.cancel_on_disconnect": cancels, "abort.settle_ms": 300}
    async with door(tmp_path, model, settings=settings) as here:
        async with here.openai() as client:
            asked = asyncio.create_task(client.chat.completions.create(**asking(stream=stream)))
            await gate.reached.wait()
            if stream:
                await (await asked).close()
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
        [turn] = await here.hf.store.control.turns()
        receipt = await here.hf.receipt(turn.turn_id)
        if not cancels:
            await until(lambda: not here.connections())  # The server knows that it is gone.
            gate.opened.set()
        outcome = await receipt.outcome(30)
        assert outcome.kind == ("cancelled" if cancels else "replied")
