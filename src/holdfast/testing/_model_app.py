"""What a `ModelServer` answers over HTTP.  Imports Starlette: import it only to serve."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from holdfast.testing._dialect import Usage
from holdfast.testing._dialect_anthropic import Anthropic
from holdfast.testing._dialect_google import Google
from holdfast.testing._dialect_openai import OpenAI
from holdfast.testing._model_script import Received

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from holdfast.testing._dialect import Dialect
    from holdfast.testing._model_script import Step, Wanted

__all__ = ["App", "Script"]


class Script(Protocol):
    """What the HTTP side asks of the `ModelServer` behind it."""

    requests: list[Received]
    token_delay_s: float

    def receive(self, received: Received) -> Step: ...
    def note(self, received: Received, *, sent: int = 0, end: str | None = None) -> None: ...
    def next_call_id(self) -> str: ...


class Server(Protocol):
    """What an answer asks of the server that carries it."""

    async def wait_gate(self, gate: threading.Event) -> None: ...
    def drop(self, client: tuple[str, int]) -> None: ...


#: Where Google's model and method stand; the others have theirs in the body.
_GOOGLE: Final = re.compile(r"/v1\w*/models/(.+):(streamGenerateContent|generateContent)")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request for an answer, as far as every provider's have it."""

    dialect: Dialect
    model: str
    stream: bool


class App:
    """The ASGI application."""

    def __init__(self, script: Script, server: Server) -> None:
        self._script, self._server = script, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = request.url.path
        match request.method, path:
            case "POST", _ if (dialect := _dialect(path)) is not None:
                await self._answer(request, dialect, send)
                return
            case "GET", "/v1/models":
                model = {"id": "scripted", "object": "model", "created": 1, "owned_by": "lab"}
                response = JSONResponse({"object": "list", "data": [model]})
            case "GET", "/log":
                response = JSONResponse([each.to_json() for each in self._script.requests])
            case _, "/v1/responses":
                hint = "this server speaks chat completions: name the model openai-chat:<name>"
                response = _not_there(hint)
            case _:
                response = _not_there(f"no such path: {path}")
        await response(scope, receive, send)

    async def _answer(self, request: Request, dialect: Dialect, send: Send) -> None:
        try:
            body = await request.json()
        except ClientDisconnect:
            return
        except ValueError:
            body = None
        if not isinstance(body, dict):
            status, refusal, _ = dialect.error("bad_request", None)
            response = JSONResponse(refusal, status)
            await response(request.scope, request.receive, send)
            return
        asked = _asked(request.url.path, dialect, body)
        received = Received(
            body=body,
            text=dialect.last_user_text(body),
            retry=request.headers.get("x-stainless-retry-count"),
            api=dialect.api,
            model=asked.model,
        )
        step = self._script.receive(received)
        answer = _Answer(self._script, self._server, received, step, asked, send)
        # Whichever is first: the answer is out, or the client has left.
        talking = asyncio.ensure_future(answer.give(request.scope["client"]))
        leaving = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({talking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            talking.cancel()
            leaving.cancel()
            await asyncio.gather(talking, leaving, return_exceptions=True)
            self._script.note(received, end="aborted")
        if not talking.cancelled():
            talking.result()


def _dialect(path: str) -> Dialect | None:
    match path:
        case "/v1/chat/completions":
            return OpenAI()
        case "/v1/messages":
            return Anthropic()
    return Google() if _GOOGLE.fullmatch(path) else None


def _asked(path: str, dialect: Dialect, body: dict[str, Any]) -> _Asked:
    if (match := _GOOGLE.fullmatch(path)) is not None:
        return _Asked(dialect, match[1], match[2] == "streamGenerateContent")
    return _Asked(dialect, str(body.get("model", "")), bool(body.get("stream")))


def _not_there(message: str) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, 404)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Answer:
    """One answer, as a stream of frames or as one body."""

    def __init__(
        self,
        script: Script,
        server: Server,
        received: Received,
        step: Step,
        asked: _Asked,
        send: Send,
    ) -> None:
        self._script, self._server, self._received = script, server, received
        self._step, self._dialect, self._stream = step, asked.dialect, asked.stream
        self._send = send

    async def give(self, client: tuple[str, int]) -> None:
        """Play the step.  `done` is noted before the last byte, so a client sees it noted."""
        step = self._step
        if not step.headers:
            await self._gate()
        elif step.error is not None and (step.end != "error" or not self._stream):
            await self._gate()
            await self._error(step.error)
            return
        elif self._stream:
            await self._frames()
        else:
            await self._whole()
        if step.end == "hang":
            await asyncio.Event().wait()
        self._script.note(self._received, end="done")
        if step.end == "drop":
            self._server.drop(client)

    async def _error(self, name: str) -> None:
        status, body, headers = self._dialect.error(name, self._step.retry_after)
        self._script.note(self._received, end="done")
        await self._start(status, "application/json", headers)
        await self._body(json.dumps(body), last=True)

    async def _frames(self) -> None:
        step, dialect = self._step, self._dialect
        await self._start(200, "text/event-stream", {})
        await self._body(dialect.head(self._usage()))
        async for token in self._tokens():
            await self._body(dialect.token(token))
            self._script.note(self._received, sent=1)
        wanted = self._wanted()
        for frame in dialect.calls(wanted, fragments=step.fragments):
            await self._body(frame)
        match step.end:
            case "hang" | "drop":
                return
            case "done":
                last = dialect.tail(step.finish, self._usage(), called=bool(wanted))
            case "garbage":
                last = dialect.garbage(step.frame)
            case "error" if step.error is not None:
                last = dialect.error_frame(step.error)
            case _:
                last = ""
        self._script.note(self._received, end="done")
        await self._body(last, last=True)

    async def _whole(self) -> None:
        step = self._step
        tokens = [token async for token in self._tokens()]
        self._script.note(self._received, sent=len(tokens))
        if step.end in {"hang", "drop"}:
            return
        finish = step.finish if step.end == "done" else None
        body = self._dialect.whole("".join(tokens), self._wanted(), finish, self._usage())
        self._script.note(self._received, end="done")
        await self._start(200, "application/json", {})
        await self._body(step.frame if step.end == "garbage" else json.dumps(body), last=True)

    async def _tokens(self) -> AsyncIterator[str]:
        """The tokens that go out, in their time; stops at the gate."""
        step = self._step
        tokens = self._all_tokens()
        stop = len(tokens) if step.after is None else min(step.after, len(tokens))
        delay_s = self._script.token_delay_s if step.delay_s is None else step.delay_s
        await asyncio.sleep(step.first_delay_s)
        for position, token in enumerate(tokens):
            if position == stop:
                await self._gate()
                if step.end != "done":
                    return
            if position:
                await asyncio.sleep(delay_s)
            yield token
        if stop == len(tokens):
            await self._gate()

    def _all_tokens(self) -> tuple[str, ...]:
        if self._step.tokens is not None:
            return self._step.tokens
        return ("reply", " to:", *(f" {word}" for word in self._received.text.split()))

    def _wanted(self) -> list[Wanted]:
        """The calls that go out: none of an answer that was cut before them."""
        if self._received.tokens_sent < len(self._all_tokens()):
            return []
        return [
            each if each.call_id else replace(each, call_id=self._script.next_call_id())
            for each in self._step.wanted
        ]

    async def _gate(self) -> None:
        if self._step.reached is not None:
            self._step.reached.set()
        if self._step.gate is not None:
            await self._server.wait_gate(self._step.gate)

    def _usage(self) -> Usage:
        body = self._received.body
        told = body.get("messages", body.get("contents", []))
        return Usage(len(json.dumps(told).split()), self._received.tokens_sent)

    async def _start(self, status: int, kind: str, headers: dict[str, str]) -> None:
        named = {"content-type": kind, **headers}
        pairs = [(name.encode(), value.encode()) for name, value in named.items()]
        start = {"type": "http.response.start", "status": status, "headers": pairs}
        await self._send(start)

    async def _body(self, text: str, *, last: bool = False) -> None:
        await self._send(
            {"type": "http.response.body", "body": text.encode(), "more_body": not last}
        )
