"""
What a `ModelServer` says in each provider's words, read frame by frame: the SDKs forgive much
that the real ones do not send.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from holdfast.testing.model_server import ModelServer, Step

STREAM = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages?beta=true",
    "google": "/v1beta/models/m:streamGenerateContent?alt=sse",
}
WHOLE = {**STREAM, "google": "/v1beta/models/m:generateContent"}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@dataclass
class Answer:
    status: int
    headers: Any
    text: str
    whole: bool  #: False: the connection was lost inside it.

    def frames(self) -> list[tuple[str | None, Any]]:
        """(event, data) of each; an event's name stands only in Anthropic's."""
        found = []
        for block in self.text.replace("\r\n", "\n").split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines())
            if lines and lines["data"] != "[DONE]":
                found.append((lines.get("event"), json.loads(lines["data"])))
        return found


def body(api: str, text: str, *, stream: bool) -> dict[str, Any]:
    if api == "google":
        return {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    messages = [{"role": "user", "content": text}]
    return {"model": "m", "stream": stream, "messages": messages}


def post(
    server: ModelServer, api: str, text: str = "hello there", *, stream: bool = True
) -> Answer:
    connection = http.client.HTTPConnection(*server.url.removeprefix("http://").split(":"))
    try:
        path = (STREAM if stream else WHOLE)[api]
        connection.request("POST", path, json.dumps(body(api, text, stream=stream)))
        response = connection.getresponse()
        try:
            content, whole = response.read(), True
        except http.client.IncompleteRead as error:
            content, whole = error.partial, False
        return Answer(response.status, response.headers, content.decode(), whole)
    finally:
        connection.close()


every_api = pytest.mark.parametrize("api", STREAM)


def test_its_addresses_are_what_the_sdks_expect(server: ModelServer) -> None:
    assert server.environment == {
        "OPENAI_BASE_URL": f"{server.url}/v1",
        "OPENAI_API_KEY": "any",
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": "any",
        "GOOGLE_GEMINI_BASE_URL": server.url,
        "GOOGLE_API_KEY": "any",
    }
    assert (server.anthropic_url, server.google_url) == (server.url, server.url)


@every_api
def test_who_asked_and_for_which_model_is_noted(server: ModelServer, api: str) -> None:
    post(server, api)
    (received,) = server.requests
    assert (received.api, received.model, received.text) == (api, "m", "hello there")
    assert received.to_json()["api"] == api


@every_api
def test_the_newest_text_is_not_a_tools(server: ModelServer, api: str) -> None:
    """Two of them put results of tools, and what a user said in a row, in one message."""
    told: dict[str, Any] = {
        "openai": {"messages": [
            {"role": "user", "content": "first"}, {"role": "user", "content": "newest"},
            {"role": "assistant", "tool_calls": []}, {"role": "tool", "content": "a result"},
        ]},
        "anthropic": {"messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "first"}, {"type": "text", "text": "newest"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "calling"}]},
            {"role": "user", "content": [{"type": "tool_result", "content": "a result"}]},
        ]},
        "google": {"contents": [
            {"role": "user", "parts": [{"text": "first"}, {"text": "newest"}]},
            {"role": "model", "parts": [{"text": "calling"}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "x"}}]},
        ]},
    }  # fmt: skip
    connection = http.client.HTTPConnection(*server.url.removeprefix("http://").split(":"))
    connection.request("POST", STREAM[api], json.dumps(told[api]))
    connection.getresponse().read()
    connection.close()
    assert server.requests[0].text == "newest"


# --------------------------------------------------------------------------- Anthropic


def test_anthropics_stream_is_a_message_of_blocks(server: ModelServer) -> None:
    server.add(Step(tokens=("let", " me"), tool="add", arguments={"a": 2}, fragments=2))
    answer = post(server, "anthropic")
    assert answer.headers["content-type"] == "text/event-stream"
    frames = answer.frames()
    assert all(event == data["type"] for event, data in frames)
    seen = [
        (event, data.get("index"), data.get("delta", {}).get("type")) for event, data in frames
    ]
    assert seen == [
        ("message_start", None, None),
        ("ping", None, None),
        ("content_block_start", 0, None),
        ("content_block_delta", 0, "text_delta"),
        ("content_block_delta", 0, "text_delta"),
        ("content_block_stop", 0, None),
        ("content_block_start", 1, None),
        ("content_block_delta", 1, "input_json_delta"),
        ("content_block_delta", 1, "input_json_delta"),
        ("content_block_stop", 1, None),
        ("message_delta", None, None),
        ("message_stop", None, None),
    ]
    start, used = frames[0][1]["message"], frames[6][1]["content_block"]
    assert (start["role"], start["content"], start["stop_reason"]) == ("assistant", [], None)
    assert used == {"type": "tool_use", "id": "call_1", "name": "add", "input": {}}
    pieces = [data["delta"]["partial_json"] for _, data in frames[7:9]]
    assert json.loads("".join(pieces)) == {"a": 2}
    assert frames[-2][1]["delta"]["stop_reason"] == "tool_use"
    assert frames[-2][1]["usage"] == {"output_tokens": 2}


def test_anthropics_calls_of_one_message_are_blocks_one_after_the_other(
    server: ModelServer,
) -> None:
    server.add(Step.calls(("add", {"a": 1}), ("now", {})))
    frames = post(server, "anthropic").frames()
    blocks = [
        (data["index"], data["content_block"]["id"], data["content_block"]["name"])
        for event, data in frames
        if event == "content_block_start"
    ]
    assert blocks == [(0, "call_1", "add"), (1, "call_2", "now")]


def test_anthropics_body(server: ModelServer) -> None:
    server.add(Step(tokens=("a", "b"), tool="add", arguments={"a": 1}))
    message = json.loads(post(server, "anthropic", stream=False).text)
    assert message["content"] == [
        {"type": "text", "text": "ab"},
        {"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 1}},
    ]
    assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("tool_use", 2)


# ------------------------------------------------------------------------------ Google


def test_googles_stream_is_one_response_after_the_other(server: ModelServer) -> None:
    server.add(Step.calls(("add", {"a": 1}), ("now", {})), Step.reply("a", " b"))
    responses = [data for _, data in post(server, "google").frames()]
    parts = [response["candidates"][0]["content"]["parts"] for response in responses]
    assert parts == [
        [
            {"functionCall": {"id": "call_1", "name": "add", "args": {"a": 1}}},
            {"functionCall": {"id": "call_2", "name": "now", "args": {}}},
        ],
        [{"text": ""}],
    ]
    responses = [data for _, data in post(server, "google").frames()]
    texts = [r["candidates"][0]["content"]["parts"][0]["text"] for r in responses]
    assert texts == ["a", " b", ""]
    finishes = [r["candidates"][0].get("finishReason") for r in responses]
    assert finishes == [None, None, "STOP"]
    assert responses[-1]["usageMetadata"]["candidatesTokenCount"] == 2
    assert "usageMetadata" not in responses[0]


def test_googles_body(server: ModelServer) -> None:
    server.add(Step(tokens=("a", "b"), tool="add", arguments={"a": 1}))
    response = json.loads(post(server, "google", stream=False).text)
    (candidate,) = response["candidates"]
    assert candidate["content"]["parts"] == [
        {"text": "ab"},
        {"functionCall": {"id": "call_1", "name": "add", "args": {"a": 1}}},
    ]
    assert candidate["finishReason"] == "STOP"


# ------------------------------------------------------------------------------ OpenAI


def test_openais_calls_of_one_message_are_told_apart_by_index(server: ModelServer) -> None:
    server.add(Step.calls(("add", {"a": 1}), ("now", {}), fragments=2))
    frames = [data for _, data in post(server, "openai").frames() if data["choices"]]
    deltas = [
        call for frame in frames for call in frame["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert [d["index"] for d in deltas] == [0, 0, 0, 1, 1, 1]
    assert [d["id"] for d in deltas if "id" in d] == ["call_1", "call_2"]
    arguments = ["", ""]
    for delta in deltas:
        arguments[delta["index"]] += delta["function"]["arguments"]
    assert [json.loads(each) for each in arguments] == [{"a": 1}, {}]
    assert frames[-1]["choices"][0]["finish_reason"] == "tool_calls"


# ------------------------------------------------------------------------------ errors

ERRORS: dict[str, dict[str, tuple[int, Any]]] = {
    "anthropic": {
        "unauthorized": (401, "authentication_error"),
        "rate_limit": (429, "rate_limit_error"),
        "quota": (402, "billing_error"),
        "server_error": (500, "api_error"),
        "unavailable": (503, "api_error"),
        "overloaded": (529, "overloaded_error"),
        "context_length": (400, "invalid_request_error"),
        "bad_request": (400, "invalid_request_error"),
    },
    "google": {
        "unauthorized": (400, "INVALID_ARGUMENT"),
        "rate_limit": (429, "RESOURCE_EXHAUSTED"),
        "quota": (429, "RESOURCE_EXHAUSTED"),
        "server_error": (500, "INTERNAL"),
        "unavailable": (503, "UNAVAILABLE"),
        "overloaded": (503, "UNAVAILABLE"),
        "context_length": (400, "INVALID_ARGUMENT"),
        "bad_request": (400, "INVALID_ARGUMENT"),
    },
}


@pytest.mark.parametrize("name", Step.errors())
@pytest.mark.parametrize("api", ERRORS)
def test_an_error_before_and_inside_a_stream(server: ModelServer, api: str, name: str) -> None:
    status, word = ERRORS[api][name]
    server.add(Step.fail(name), Step.fail(name, after=1), Step.fail(name, after=1))
    before = post(server, api)
    refused = json.loads(before.text)
    assert before.status == status
    assert refused["error"]["type" if api == "anthropic" else "status"] == word
    inside = post(server, api)
    assert (inside.status, inside.whole) == (200, True)
    assert inside.frames()[-1] == ("error" if api == "anthropic" else None, refused)
    assert "reply" in inside.text
    # What is not streamed has no middle.
    assert post(server, api, stream=False).status == status


def test_when_to_come_back_is_said_where_the_provider_says_it(server: ModelServer) -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    for api, after, header in [
        ("openai", "7", "7"),
        ("anthropic", "7", "7"),
        ("google", "7", None),
        ("google", date, date),
    ]:
        server.add(Step.fail("rate_limit", retry_after=after))
        answer = post(server, api)
        assert answer.headers["retry-after"] == header
        if header is None:
            details = json.loads(answer.text)["error"]["details"]
            assert details[-1]["retryDelay"] == "7s"


# -------------------------------------------------------------------------------- ends


@every_api
@pytest.mark.parametrize("finish", ["stop", "length", "content_filter", "own_word"])
def test_finish_reasons_are_translated(server: ModelServer, api: str, finish: str) -> None:
    words = {
        "openai": {},
        "anthropic": {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"},
        "google": {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"},
    }
    server.add(Step.reply("x", finish=finish))
    assert f'"{words[api].get(finish, finish)}"' in post(server, api).text


@every_api
def test_a_clean_end_without_a_finish(server: ModelServer, api: str) -> None:
    server.add(Step.cut("eof", after=2), Step.cut("eof", after=2))
    answer = post(server, api)
    assert answer.whole
    assert "reply" in answer.text
    for word in ("stop_reason", "finishReason", '"finish_reason"'):
        assert word not in answer.text.replace('"stop_reason": null', "").replace(
            '"finish_reason": null', ""
        )
    assert server.requests[0].tokens_sent == 2
    unfinished = post(server, api, stream=False).text
    for word in ("STOP", "end_turn", '"stop"'):
        assert word not in unfinished


@every_api
def test_a_lost_connection_in_mid_stream(server: ModelServer, api: str) -> None:
    server.add(Step.cut("drop", after=2))
    assert not post(server, api).whole


@every_api
def test_a_lost_connection_before_the_first_byte(server: ModelServer, api: str) -> None:
    server.add(Step.cut("drop", headers=False))
    with pytest.raises(ConnectionError):
        post(server, api)
    assert [(r.end, r.tokens_sent) for r in server.requests] == [("done", 0)]


@every_api
@pytest.mark.parametrize("stream", [True, False])
def test_a_hang_before_the_first_byte(server: ModelServer, api: str, stream: bool) -> None:
    server.add(Step.cut("hang", headers=False))
    address = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(*address, timeout=0.2)
    path = (STREAM if stream else WHOLE)[api]
    connection.request("POST", path, json.dumps(body(api, "hello", stream=stream)))
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()
    assert server.wait_ended()
    assert server.requests[0].end == "aborted"


@every_api
def test_an_answer_cut_before_its_calls_makes_none(server: ModelServer, api: str) -> None:
    server.add(Step(tokens=("a", "b"), tool="add", end="eof", after=1), Step(end="eof"))
    assert "add" not in post(server, api).text


@every_api
def test_an_error_may_be_held(server: ModelServer, api: str) -> None:
    step = Step.fail("rate_limit").held()
    assert step.gate is not None
    assert step.reached is not None
    step.gate.set()
    server.add(step)
    assert post(server, api).status == 429
    assert step.reached.is_set()


@every_api
def test_a_frame_of_ones_own(server: ModelServer, api: str) -> None:
    server.add(Step(end="garbage", after=1, frame='{"type": "ping"}'), Step.cut("garbage"))
    named = "ping" if api == "anthropic" else None
    assert post(server, api).frames()[-1] == (named, {"type": "ping"})
    assert post(server, api).text.endswith("data: {not json\n\n")


@every_api
def test_a_body_that_is_no_request_is_refused_in_its_words(
    server: ModelServer, api: str
) -> None:
    connection = http.client.HTTPConnection(*server.url.removeprefix("http://").split(":"))
    connection.request("POST", STREAM[api], "[]")
    response = connection.getresponse()
    refused = json.loads(response.read())
    connection.close()
    assert response.status == 400
    assert refused["error"]["message"]
    assert server.requests == []
