"""The model server: real sockets on loopback, told by a script, stopped by events."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from typing import Any

import pytest

from holdfast.errors import BadRequestError
from holdfast.testing.model_server import ModelServer, Step, read_script


def post(
    server: ModelServer, text: str = "hello there", **extra: Any
) -> tuple[int, Any, bytes]:
    """Status, headers and body.  A broken body is what arrived of it."""
    connection = http.client.HTTPConnection(*server.url.removeprefix("http://").split(":"))
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": text}]}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps({**body, **extra}))
        response = connection.getresponse()
        try:
            content = response.read()
        except http.client.IncompleteRead as error:
            content = error.partial
        return response.status, response.headers, content
    finally:
        connection.close()


def frames(content: bytes) -> list[Any]:
    lines = [line[6:] for line in content.decode().split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def said(content: bytes) -> tuple[str, str | None]:
    """The text, and the finish reason."""
    choices = [frame["choices"][0] for frame in frames(content) if frame["choices"]]
    finish = [c["finish_reason"] for c in choices if c["finish_reason"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return text, finish[0] if finish else None


def get(url: str) -> Any:
    with urllib.request.urlopen(url) as response:
        return json.load(response)


# ----------------------------------------------------------------------------- answers


def test_the_default_is_an_echo_in_tokens() -> None:
    with ModelServer() as server:
        status, headers, content = post(server)
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        assert said(content) == ("reply to: hello there", "stop")
        assert content.endswith(b"data: [DONE]\n\n")
        usage = frames(content)[-1]["usage"]
        assert usage["completion_tokens"] == 4
        (received,) = server.requests
        assert (received.end, received.tokens_sent, received.text) == ("done", 4, "hello there")


def test_without_streaming_it_is_one_body() -> None:
    script = [Step.reply("a", "b", finish="length"), Step.call("add", {"a": 1})]
    with ModelServer(script) as server:
        _, _, content = post(server, stream=False)
        choice = json.loads(content)["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("ab", "length")
        _, _, content = post(server, stream=False)
        choice = json.loads(content)["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        (call,) = choice["message"]["tool_calls"]
        assert call["function"] == {"name": "add", "arguments": '{"a": 1}'}


def test_a_tool_call_comes_in_fragments() -> None:
    with ModelServer([Step.call("add", {"a": 2, "b": 3}, fragments=4)]) as server:
        _, _, content = post(server)
        deltas = [f["choices"][0]["delta"] for f in frames(content) if f["choices"]]
        calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
        assert len(calls) == 5
        assert (calls[0]["id"], calls[0]["function"]["name"]) == ("call_1", "add")
        arguments = "".join(call["function"]["arguments"] for call in calls)
        assert json.loads(arguments) == {"a": 2, "b": 3}
        assert said(content)[1] == "tool_calls"


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("unauthorized", 401, "invalid_api_key"),
        ("rate_limit", 429, "rate_limit_exceeded"),
        ("quota", 429, "insufficient_quota"),
        ("server_error", 500, None),
        ("unavailable", 503, None),
        ("overloaded", 503, None),
        ("context_length", 400, "context_length_exceeded"),
        ("bad_request", 400, "invalid_value"),
    ],
)
def test_errors(name: str, status: int, code: str | None) -> None:
    with ModelServer([Step.fail(name, retry_after="3")]) as server:
        found, headers, content = post(server)
        assert (found, headers["retry-after"]) == (status, "3")
        assert json.loads(content)["error"]["code"] == code
        assert server.requests[0].end == "done"


def test_every_error_is_named() -> None:
    assert Step.errors() == (
        "unauthorized",
        "rate_limit",
        "quota",
        "server_error",
        "unavailable",
        "overloaded",
        "context_length",
        "bad_request",
    )


def test_bad_ends() -> None:
    script = [Step.cut("eof", after=2), Step.cut("garbage", after=1), Step.cut("drop", after=3)]
    with ModelServer(script) as server:
        assert said(post(server)[2]) == ("reply to:", None)
        assert post(server)[2].endswith(b"data: {not json\n\n")
        assert said(post(server)[2]) == ("reply to: hello", None)
        assert [r.tokens_sent for r in server.requests] == [2, 1, 3]
        assert [r.end for r in server.requests] == ["done"] * 3


def test_a_drop_breaks_the_body_off() -> None:
    with ModelServer([Step.cut("drop")]) as server:
        connection = http.client.HTTPConnection(*server.url.removeprefix("http://").split(":"))
        connection.request("POST", "/v1/chat/completions", '{"stream": true, "messages": []}')
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            connection.getresponse().read()
        connection.close()


# --------------------------------------------------------------- which step for whom


def test_steps_are_taken_in_order_and_then_the_echo_applies() -> None:
    with ModelServer([Step.reply("one"), Step.reply("two")]) as server:
        texts = [said(post(server, "x")[2])[0] for _ in range(3)]
        assert texts == ["one", "two", "reply to: x"]


def test_a_keyed_step_waits_for_its_question() -> None:
    script = [
        Step.reply("b").keyed("beta"),
        Step.reply("next"),
        Step.fail("unavailable").keyed("gamma").always(),
    ]
    with ModelServer(script) as server:
        assert said(post(server, "alpha")[2])[0] == "next"
        assert said(post(server, "the beta one")[2])[0] == "b"
        assert said(post(server, "beta")[2])[0] == "reply to: beta"
        assert [post(server, "gamma")[0] for _ in range(3)] == [503] * 3


def test_the_last_user_text_may_be_in_parts() -> None:
    parts = [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]
    messages = [{"role": "user", "content": parts}, {"role": "tool", "content": "5"}]
    with ModelServer() as server:
        assert said(post(server, messages=messages)[2])[0] == "reply to: in parts"


def test_steps_that_look_alike_are_different_steps() -> None:
    one, two = Step.reply("x").held(), Step.reply("x").held()
    assert one == two
    with ModelServer([one, two]) as server:
        for step in (one, two):
            assert step.gate is not None
            step.gate.set()
            post(server)
            assert step.reached is not None
            assert step.reached.is_set()


# ------------------------------------------------------------------------------ gates


def test_a_held_answer_waits_for_its_gate() -> None:
    with ModelServer() as server:
        step = server.hold(after=2)
        answers: list[bytes] = []
        thread = threading.Thread(target=lambda: answers.append(post(server)[2]))
        thread.start()
        assert step.reached is not None
        assert step.gate is not None
        assert step.reached.wait(5)
        assert server.requests[0].tokens_sent == 2
        assert server.requests[0].end is None
        step.gate.set()
        thread.join(5)
        assert said(answers[0]) == ("reply to: hello there", "stop")


async def test_hundreds_of_streams_at_once() -> None:
    count = 300
    request = b'{"stream": true, "messages": [{"role": "user", "content": "hi"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"

    async def stream(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(request) + request)
        content = await reader.read()
        writer.close()
        await writer.wait_closed()
        return content

    step = Step().held(after=2).always()
    with ModelServer([step]) as server:
        port = int(server.url.rpartition(":")[2])
        tasks = [asyncio.create_task(stream(port)) for _ in range(count)]
        all_out = await asyncio.to_thread(
            server.wait,
            lambda: sum(r.tokens_sent == 2 for r in server.requests) == count,
            timeout_s=20,
        )
        assert all_out
        assert step.gate is not None
        step.gate.set()
        contents = await asyncio.gather(*tasks)
        assert all(b"[DONE]" in content for content in contents)
        assert [r.end for r in server.requests] == ["done"] * count


def test_it_sees_a_client_leave() -> None:
    with ModelServer() as server:
        server.hold(after=1)
        connection = http.client.HTTPConnection(*server.url.removeprefix("http://").split(":"))
        connection.request("POST", "/v1/chat/completions", '{"stream": true, "messages": []}')
        connection.getresponse().close()
        connection.close()
        assert server.wait_ended()
        assert server.requests[0].end == "aborted"


@pytest.mark.parametrize("step", [Step.cut("hang", after=0), Step().held()])
def test_stopping_releases_what_hangs(step: Step) -> None:
    server = ModelServer([step])
    server.start()
    thread = threading.Thread(target=post, args=(server,))
    thread.start()
    assert server.wait(lambda: len(server.requests) == 1)
    began_s = time.monotonic()
    server.stop()
    assert time.monotonic() - began_s < 1
    thread.join(5)
    assert not thread.is_alive()
    assert server.requests[0].end == "aborted"
    server.stop()  # Idempotent.


# ----------------------------------------------------------------------- other routes


def test_models_log_and_what_there_is_not() -> None:
    with ModelServer() as server:
        assert get(f"{server.base_url}/models")["data"][0]["id"] == "scripted"
        post(server, "logged")
        (entry,) = get(f"{server.url}/log")
        assert (entry["text"], entry["end"], entry["tokens_sent"]) == ("logged", "done", 3)
        assert entry["body"]["messages"][0]["content"] == "logged"
        for path, text in (("/v1/responses", "openai-chat:"), ("/nowhere", "/nowhere")):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(server.url + path)
            with caught.value as response:
                assert response.code == 404
                assert text in json.load(response)["error"]["message"]


@pytest.mark.parametrize("body", [b"{not json", b"[]"])
def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    with ModelServer() as server:
        request = urllib.request.Request(f"{server.base_url}/chat/completions", data=body)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        with caught.value as response:
            assert response.code == 400
        assert server.requests == []


def test_it_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"), ModelServer([Step.cut("drop")]) as server:
        post(server)
        post(server)
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


def test_a_taken_port_is_an_error() -> None:
    with ModelServer() as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            ModelServer(port=port).start()


# ---------------------------------------------------------------------- script files

SCRIPT = """\
# an answer, a call, an error, a break

{"tokens": ["Hel", "lo"], "delay_s": 0.1, "first_delay_s": 1, "finish": "length"}
{"tool": "add", "arguments": {"a": 2}, "fragments": 4, "call_id": "c1"}
{"error": "rate_limit", "retry_after": 5}
{"error": "overloaded", "end": "error", "after": 2}
{"end": "drop", "after": 2, "when": "weather", "repeat": true}
{"end": "hang", "after": 1, "headers": false}
{"tool": "add", "arguments": {"a": 2}, "also": [{"tool": "add", "arguments": {"a": 3}}]}
{"end": "garbage", "after": 1, "frame": "[]"}
{}
"""


def test_a_script_file_says_what_the_constructors_say() -> None:
    assert read_script(SCRIPT, name="s") == [
        Step.reply("Hel", "lo", delay_s=0.1, first_delay_s=1, finish="length"),
        Step.call("add", {"a": 2}, fragments=4, call_id="c1"),
        Step.fail("rate_limit", retry_after="5"),
        Step.fail("overloaded", after=2),
        Step.cut("drop", after=2).keyed("weather").always(),
        Step.cut("hang", headers=False),
        Step.calls(("add", {"a": 2}), ("add", {"a": 3})),
        replace(Step.cut("garbage"), frame="[]"),
        Step(),
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "Expecting property name"),
        ("[]", "JSON object"),
        ('{"token": ["x"]}', "unknown field 'token'"),
        ('{"tokens": "x"}', "of type list"),
        ('{"tokens": [1]}', "strings"),
        ('{"after": true}', "of type int"),
        ('{"error": "e503"}', "unavailable"),
        ('{"end": "crash"}', "garbage"),
        ('{"end": "error"}', "which one"),
        ('{"headers": false}', "drop or hang"),
        ('{"also": [{"tool": "x"}]}', "first of the calls"),
        ('{"tool": "x", "also": ["y"]}', "objects like"),
        ('{"tool": "x", "also": [{"tool": "y", "end": "eof"}]}', "unknown field 'end'"),
    ],
)
def test_a_bad_line_is_named(line: str, what: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read_script(f'{{"tokens": []}}\n\n{line}\n', name="my.jsonl")
    assert str(caught.value).startswith("my.jsonl:3: ")
    assert what in str(caught.value)


# ---------------------------------------------------------------------- as a process

COMMAND = [sys.executable, "-c", "from holdfast.cli.lab import app; app()", "model-server"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_as_a_process(tmp_path: Any, number: int) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"tokens": ["from", " file"]}\n{"end": "hang", "after": 0}\n')
    command = [*COMMAND, "--json", "--script", str(script)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            url = told["url"]
            assert told["environment"]["OPENAI_BASE_URL"] == url
            body = b'{"stream": false, "messages": []}'
            request = urllib.request.Request(f"{url}/chat/completions", data=body)
            assert get(request)["choices"][0]["message"]["content"] == "from file"
            process.send_signal(number)
            out, err = process.communicate(timeout=10)
            assert (process.returncode, out, err) == (0, "", "")
        finally:
            process.kill()


def test_a_bad_script_ends_the_process(tmp_path: Any) -> None:
    script = tmp_path / "bad.jsonl"
    script.write_text('{"tokens": ["x"]}\nnonsense\n')
    for arguments, what in (
        (["--script", str(script)], "bad.jsonl:2: "),
        (["--script", str(tmp_path / "missing")], "No such file"),
    ):
        done = subprocess.run(
            [*COMMAND, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert what in done.stderr
        assert done.stdout == ""
