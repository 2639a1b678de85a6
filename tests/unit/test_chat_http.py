"""The door to a server, against a server that fails in every way there is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx2
import pytest

from holdfast.cli._chat import http, wire
from holdfast.cli._chat.door import Outgoing
from holdfast.cli._chat.http import HttpDoor
from holdfast.errors import BadRequestError, HoldfastError, WireError

URL = "http://127.0.0.1:1"
RECEIPT = {"turn_id": "t", "session_id": "s", "position": 1, "waiting_for": "turn"}
Answer = httpx2.Response | Exception


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PAUSE_FIRST_S", 0.0)
    monkeypatch.setattr(http, "PAUSE_MAX_S", 0.001)


class Script:
    """Answers, one a request; the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.requests = list(answers), list[httpx2.Request]()

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def headers(self, name: str) -> list[str | None]:
        return [request.headers.get(name) for request in self.requests]


@asynccontextmanager
async def door(script: Callable[[httpx2.Request], httpx2.Response]) -> AsyncIterator[HttpDoor]:
    notes: list[str] = []
    made = HttpDoor(URL, "agent:main:a/ü", "s3cret", note=notes.append)
    await made._client.aclose()
    made._client = httpx2.AsyncClient(
        transport=httpx2.MockTransport(script), headers=made._client.headers
    )
    yield made
    await made.close()
    assert "s3cret" not in str(notes)


def problem(status: int, code: str, **headers: str) -> httpx2.Response:
    body = {"code": code, "detail": f"it is {code}", "hint": "do this"}
    headers = {"content-type": "application/problem+json", **headers}
    return httpx2.Response(status, headers=headers, content=json.dumps(body))


def sse(*events: tuple[str, dict[str, Any], str | None]) -> httpx2.Response:
    text = "".join(
        (f"id: {event_id}\n" if event_id else "")
        + f"event: {kind}\ndata: {json.dumps(data)}\n\n"
        for kind, data, event_id in events
    )
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=text)


async def test_a_message_that_may_have_been_taken_is_sent_again_under_its_key() -> None:
    script = Script(
        httpx2.ReadError("lost"), problem(503, "draining"), httpx2.ConnectError("away"),
        httpx2.Response(502, content=b"<html>"), httpx2.Response(202, json=RECEIPT),
    )  # fmt: skip
    async with door(script) as there:
        accepted = await there.submit(Outgoing("hello", "key-1"))
    assert (accepted.turn_id, accepted.position, accepted.waiting_for) == ("t", 1, "turn")
    bodies = {request.content for request in script.requests}
    assert len(script.requests) == 5
    assert [json.loads(body)["idempotency_key"] for body in bodies] == ["key-1"]
    raw_paths = {request.url.raw_path for request in script.requests}
    assert raw_paths == {b"/v1/sessions/agent%3Amain%3Aa%2F%C3%BC/messages"}
    assert set(script.headers("authorization")) == {"Bearer s3cret"}


@pytest.mark.parametrize(("answer", "kind", "code", "exit_code"), [
    (problem(429, "queue_full"), wire.RefusedBusyError, "queue_full", 4),
    (problem(409, "rejected"), wire.RefusedBusyError, "rejected", 4),
    (problem(422, "unknown_lane"), wire.RefusedInputError, "unknown_lane", 2),
    (problem(409, "idempotency_conflict"), wire.RefusedInputError, "idempotency_conflict", 2),
    (problem(403, "forbidden"), wire.RefusedInputError, "forbidden", 2),
    (problem(401, "unauthorized"), wire.BadTokenError, "unauthorized", 2),
    (problem(500, "bug"), wire.RefusedByServerError, "bug", 1),
    (httpx2.Response(202, content=b"{"), WireError, "wire", 1),
    (httpx2.Response(202, content=b"[]"), WireError, "wire", 1),
])  # fmt: skip
async def test_a_refusal_is_not_asked_for_twice(
    answer: httpx2.Response, kind: type[HoldfastError], code: str, exit_code: int
) -> None:
    script = Script(answer)
    async with door(script) as there:
        with pytest.raises(kind) as raised:
            await there.submit(Outgoing("hello", "key-1"))
    assert len(script.requests) == 1
    assert raised.value.to_json()["code"] == code
    assert raised.value.exit_code == exit_code
    assert "s3cret" not in str(raised.value.to_json())


@pytest.mark.parametrize("answer", [
    httpx2.ConnectError("away"),
    problem(503, "store_unavailable"),
    httpx2.Response(200, content=b"<html>a page</html>"),
    httpx2.Response(404, content=b"<html>a page</html>"),
    httpx2.Response(307, headers={"location": "http://example.org"}),
])  # fmt: skip
async def test_opening_asks_once(answer: Answer) -> None:
    script = Script(answer)
    async with door(script) as there:
        with pytest.raises(HoldfastError):
            await there.open()
    assert len(script.requests) == 1


async def test_a_session_that_is_not_there_yet_is_no_error() -> None:
    async with door(Script(problem(404, "not_found"))) as there:
        await there.open()
        assert await there.recent(5) is None
        assert (await there.facts()).session_id is None


async def test_patience_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE_S", 0.0)
    script = Script(httpx2.ConnectError("away"))
    async with door(script) as there:
        with pytest.raises(wire.NoServerError):
            await there.submit(Outgoing("hello", "key-1"))
        with pytest.raises(wire.NoServerError):
            async with aclosing(there.follow("t")) as events:
                await anext(events)


async def test_a_turn_is_followed_over_every_cut() -> None:
    script = Script(
        sse(("accepted", RECEIPT, None)),
        sse(("accepted", RECEIPT, None), ("started", {}, "1.1"), ("text", {"text": "a"}, "1.2")),
        httpx2.ReadTimeout("silent"),
        problem(503, "draining", **{"retry-after": "5"}),
        sse(("text", {"text": "b"}, "1.3"), ("committed", {}, None),
            ("outcome", {"outcome": "replied"}, None)),
    )  # fmt: skip
    async with door(script) as there:
        events = [event async for event in there.follow("t")]
    assert [e.kind for e in events if e.kind != "accepted"] == [
        "started", "text", "text", "committed", "outcome",
    ]  # fmt: skip
    assert [e.event_id for e in events if e.kind == "text"] == ["1.2", "1.3"]
    assert events[-1].event_id is None
    assert script.headers("last-event-id") == [None, None, "1.2", "1.2", "1.2"]


async def test_a_session_is_watched_over_every_cut_and_before_it_is_there() -> None:
    script = Script(
        problem(404, "not_found"),
        sse(("entry", {"entry": {"id": "a"}}, "1.10"), ("waiting", {"count": 1}, None)),
        httpx2.RemoteProtocolError("cut"),
        sse(("entry", {"entry": {"id": "b"}}, "1.20")),
        problem(401, "unauthorized"),
    )
    async with door(script) as there:
        watched = there.watch(None)
        events = [await anext(watched) for _ in range(3)]
        with pytest.raises(wire.BadTokenError):
            await anext(watched)
    assert [(e.kind, e.cursor) for e in events] == [
        ("entry", "1.10"), ("waiting", None), ("entry", "1.20"),
    ]  # fmt: skip
    assert script.headers("last-event-id") == [None, None, "1.10", "1.10", "1.20"]


async def test_losing_and_finding_a_server_is_said_once() -> None:
    away = httpx2.ConnectError("away")
    script = Script(away, away, away, httpx2.Response(202, json=RECEIPT))
    notes: list[str] = []
    async with door(script) as there:
        there._note = notes.append
        await there.submit(Outgoing("hello", "key-1"))
    assert [note.rpartition("; ")[2] for note in notes] == [
        "trying again", f"{URL} answers again",
    ]  # fmt: skip


@pytest.mark.parametrize("url", [
    "127.0.0.1:8787", "ftp://h", "http://", "http://h:port", "http://h/?q=1", "http://h/#f",
    "http://user:pass@h", "http://[::1", "",
])  # fmt: skip
def test_what_is_no_url_of_a_server(url: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        wire.base_url(url)
    assert "pass" not in str(raised.value).replace("password", "")


@pytest.mark.parametrize(("url", "loopback"), [
    ("http://localhost:1", True), ("http://127.0.0.9", True), ("https://[::1]:2/x/", True),
    ("http://example.org", False), ("http://10.0.0.1", False),
    ("http://localhost.example.org", False), ("http://127.0.0.1.example.org", False),
])  # fmt: skip
def test_which_urls_lead_to_this_machine(url: str, loopback: bool) -> None:
    assert wire.is_loopback(wire.base_url(url)) is loopback
