"""The HTTP of a `ModelServer`.  Imports Starlette and uvicorn: import it only to serve."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from holdfast.agents._transcript import text_of
from holdfast.testing._model_script import Received

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Sequence

    from starlette.types import Receive, Scope, Send

    from holdfast.testing._model_script import Step

__all__ = ["Loop", "Script"]


class Script(Protocol):
    """What the HTTP side asks of the `ModelServer` behind it."""

    requests: list[Received]
    token_delay_s: float

    def receive(self, received: Received) -> Step: ...
    def note(self, received: Received, *, sent: int = 0, end: str | None = None) -> None: ...
    def next_call_id(self) -> str: ...


#: Gates are `threading.Event`s, because tests set them from anywhere; nothing tells an event
#: loop of those, so one task looks at all that are waited for.
GATE_LOOK_S: Final = 0.002
LEAVE_WITHIN_S: Final = 5.0
LOGGERS: Final = ("uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class Loop:
    """One server on one thread, with an event loop of its own."""

    def __init__(self, server: Script, listening: socket.socket) -> None:
        self.ready = threading.Event()
        self._listening = listening
        config = uvicorn.Config(
            _App(server, self), log_config=None, lifespan="off", http="h11", ws="none"
        )
        self._uvicorn = _Uvicorn(config, self.ready)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gates: dict[threading.Event, list[asyncio.Future[None]]] = {}
        self._looking: asyncio.Task[None] | None = None

    def run(self) -> None:
        quiet = _Quiet(threading.get_ident())
        for name in LOGGERS:
            logging.getLogger(name).addFilter(quiet)
        try:
            asyncio.run(self._serve())
        finally:
            for name in LOGGERS:
                logging.getLogger(name).removeFilter(quiet)
            self._listening.close()
            self.ready.set()

    def stop(self) -> None:
        """Callable from any thread, once `ready`."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._uvicorn.stopping.set)

    async def wait_gate(self, gate: threading.Event) -> None:
        if gate.is_set():
            return
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gates.setdefault(gate, []).append(opened)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_at_gates())
        await opened

    def drop(self, client: tuple[str, int]) -> None:
        """Close a connection in the middle of whatever it carries."""
        for connection in self._uvicorn.connections():
            if connection.client == client:
                connection.transport.abort()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._uvicorn.serve(sockets=[self._listening])

    async def _look_at_gates(self) -> None:
        while self._gates:
            for gate in [gate for gate in self._gates if gate.is_set()]:
                for opened in self._gates.pop(gate):
                    if not opened.done():
                        opened.set_result(None)
            await asyncio.sleep(GATE_LOOK_S)


class _Uvicorn(uvicorn.Server):
    """Stops at once: what hangs is meant to, and nobody waits for it."""

    def __init__(self, config: uvicorn.Config, ready: threading.Event) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()
        self._ready = ready

    def connections(self) -> list[Any]:
        return list(self.server_state.connections)

    async def main_loop(self) -> None:
        await self.on_tick(0)
        self._ready.set()
        await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        del sockets
        for server in self.servers:
            server.close()
        for connection in self.connections():
            connection.transport.abort()
        # To the answers this looks like their clients leaving.
        if tasks := list(self.server_state.tasks):
            await asyncio.wait(tasks, timeout=LEAVE_WITHIN_S)


class _Quiet(logging.Filter):
    """Drops what one thread logs below an error; other servers in this process keep theirs."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread or record.levelno >= logging.ERROR


class _App:
    """The ASGI application."""

    def __init__(self, server: Script, loop: Loop) -> None:
        self._server, self._loop = server, loop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        match request.method, request.url.path:
            case "POST", "/v1/chat/completions":
                await self._chat(request, send)
                return
            case "GET", "/v1/models":
                model = {"id": "scripted", "object": "model", "created": 1, "owned_by": "lab"}
                response = JSONResponse({"object": "list", "data": [model]})
            case "GET", "/log":
                response = JSONResponse([each.to_json() for each in self._server.requests])
            case _, "/v1/responses":
                hint = "this server speaks chat completions: name the model openai-chat:<name>"
                response = _refusal(404, hint)
            case _:
                response = _refusal(404, f"no such path: {request.url.path}")
        await response(scope, receive, send)

    async def _chat(self, request: Request, send: Send) -> None:
        try:
            body = await request.json()
        except ClientDisconnect:
            return
        except ValueError:
            body = None
        if not isinstance(body, dict):
            refusal = _refusal(400, "the body is not a JSON object")
            await refusal(request.scope, request.receive, send)
            return
        retry = request.headers.get("x-stainless-retry-count")
        received = Received(body=body, text=_last_user_text(body), retry=retry)
        step = self._server.receive(received)
        answer = _Answer(self._server, self._loop, received, step, send)
        # Whichever is first: the answer is out, or the client has left.
        talking = asyncio.ensure_future(answer.give(request.scope["client"]))
        leaving = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({talking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            talking.cancel()
            leaving.cancel()
            await asyncio.gather(talking, leaving, return_exceptions=True)
            self._server.note(received, end="aborted")
        if not talking.cancelled():
            talking.result()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Answer:
    """One answer, as a stream of frames or as one body."""

    def __init__(
        self, server: Script, loop: Loop, received: Received, step: Step, send: Send
    ) -> None:
        self._server, self._loop, self._received = server, loop, received
        self._step, self._send = step, send

    async def give(self, client: tuple[str, int]) -> None:
        """Play the step.  `done` is noted before the last byte, so a client sees it noted."""
        step = self._step
        if step.error is not None:
            status, body, headers = step.http_error()
            self._server.note(self._received, end="done")
            await self._start(status, "application/json", headers)
            await self._body(json.dumps(body), last=True)
            return
        if not self._received.body.get("stream"):
            await self._whole(client)
            return
        await self._start(200, "text/event-stream", {})
        await self._frame(_delta({"role": "assistant", "content": ""}))
        async for token in self._tokens():
            await self._frame(_delta({"content": token}))
            self._server.note(self._received, sent=1)
        if step.end == "hang":
            await asyncio.Event().wait()
        if step.tool is not None:
            await self._call()
        self._server.note(self._received, end="done")
        if step.end == "drop":
            self._loop.drop(client)
            return
        if step.end == "garbage":
            await self._body("data: {not json\n\n")
        if step.end == "done":
            await self._frame(_delta({}, finish="tool_calls" if step.tool else step.finish))
            await self._frame({**_chunk(), "choices": [], "usage": self._usage()})
            await self._body("data: [DONE]\n\n")
        await self._body("", last=True)

    async def _tokens(self) -> AsyncIterator[str]:
        """The tokens that go out, in their time; stops at the gate."""
        step = self._step
        tokens: Sequence[str] = step.tokens if step.tokens is not None else self._echo()
        stop = len(tokens) if step.after is None else min(step.after, len(tokens))
        delay_s = self._server.token_delay_s if step.delay_s is None else step.delay_s
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

    async def _gate(self) -> None:
        if self._step.reached is not None:
            self._step.reached.set()
        if self._step.gate is not None:
            await self._loop.wait_gate(self._step.gate)

    async def _call(self) -> None:
        call_id = self._step.call_id or self._server.next_call_id()
        function = {"name": self._step.tool, "arguments": ""}
        head = {"index": 0, "id": call_id, "type": "function", "function": function}
        await self._frame(_delta({"tool_calls": [head]}))
        for piece in self._step.argument_pieces():
            part = {"index": 0, "function": {"arguments": piece}}
            await self._frame(_delta({"tool_calls": [part]}))

    async def _whole(self, client: tuple[str, int]) -> None:
        step = self._step
        message: dict[str, Any] = {"role": "assistant", "refusal": None}
        tokens = [token async for token in self._tokens()]
        message["content"] = "".join(tokens) or None
        if step.end == "hang":
            await asyncio.Event().wait()
        if step.tool is not None:
            call_id = step.call_id or self._server.next_call_id()
            function = {"name": step.tool, "arguments": "".join(step.argument_pieces())}
            call = {"id": call_id, "type": "function", "function": function}
            message["tool_calls"] = [call]
        self._server.note(self._received, sent=len(tokens), end="done")
        if step.end == "drop":
            self._loop.drop(client)
            return
        finish = "tool_calls" if step.tool else step.finish
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": finish if step.end == "done" else None,
            "logprobs": None,
        }
        body = {**_chunk("chat.completion"), "choices": [choice], "usage": self._usage()}
        await self._start(200, "application/json", {})
        await self._body("{not json" if step.end == "garbage" else json.dumps(body), last=True)

    def _echo(self) -> list[str]:
        words = self._received.text.split()
        return ["reply", " to:", *(f" {word}" for word in words)]

    def _usage(self) -> dict[str, int]:
        asked = len(json.dumps(self._received.body.get("messages", [])).split())
        told = self._received.tokens_sent
        return {
            "prompt_tokens": asked,
            "completion_tokens": told,
            "total_tokens": asked + told,
        }

    async def _start(self, status: int, kind: str, headers: dict[str, str]) -> None:
        named = {"content-type": kind, **headers}
        pairs = [(name.encode(), value.encode()) for name, value in named.items()]
        start = {"type": "http.response.start", "status": status, "headers": pairs}
        await self._send(start)

    async def _frame(self, frame: dict[str, Any]) -> None:
        await self._body(f"data: {json.dumps(frame)}\n\n")

    async def _body(self, text: str, *, last: bool = False) -> None:
        await self._send(
            {"type": "http.response.body", "body": text.encode(), "more_body": not last}
        )


def _chunk(kind: str = "chat.completion.chunk") -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "scripted"}


def _delta(delta: dict[str, Any], *, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return {**_chunk(), "choices": [choice]}


def _refusal(status: int, message: str) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status)


def _last_user_text(body: dict[str, Any]) -> str:
    messages = body.get("messages", [])
    texts = [text_of(each.get("content")) for each in messages if each.get("role") == "user"]
    return texts[-1] if texts else ""
