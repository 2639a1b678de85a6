"""
`POST /v1/chat/completions`: the door for programs that speak to OpenAI.

A request is one message to one session.  Which session, and what of the request is new, is
told in `_completions_session.py` and `_completions_request.py`; from there on it is a turn
like any other, with its receipt: answers carry `X-Holdfast-Turn` and `X-Holdfast-Session`.

Once a message is accepted, an error no longer means that sending it again would help: without
an idempotency key that would be another message.  Client libraries that retry by themselves
are told so (`X-Should-Retry: false`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response, StreamingResponse

from holdfast._core import keys
from holdfast.errors import BadRequestError, DrainingError, HoldfastError, NotFoundError
from holdfast.gateway import _completions_answer as answers
from holdfast.gateway import bodies, problems, sse
from holdfast.gateway._completions_request import parse
from holdfast.gateway._completions_session import agent_for, session_key
from holdfast.gateway._completions_stream import Telling, chunks
from holdfast.gateway.messages import outcome_or_gone
from holdfast.types import TurnId

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from holdfast._runtime.receipts import Receipt
    from holdfast.gateway._completions_request import Asked
    from holdfast.gateway.app import Gateway

__all__ = ["create", "known_agents"]

#: A comment goes out after so long without anything else in a stream.
COMMENT_EVERY_S: Final = 10.0

CLIENT_GONE: Final = 499  #: For our log alone: nobody is there to read it.

_log = logging.getLogger("holdfast.gateway")


async def create(request: Request) -> Response:
    """
    Answer a chat completion, at once or as a stream.

    Errors are problem documents as everywhere, with an `error` member beside, in which the
    clients of this door look.  A client that goes away does not cancel its turn, unless
    `gateway.cancel_on_disconnect` says so.
    """
    gateway: Gateway = request.app.state.gateway
    asked = parse(await _body(request))
    key = session_key(
        header=_header(request, "x-holdfast-session"),
        user=asked.user,
        agent_id=agent_for(asked.model, await known_agents(gateway)),
        idempotency_key=_header(request, "idempotency-key"),
    )
    lane = _header(request, "x-holdfast-lane")
    receipt = await gateway.hf.submit(
        key,
        asked.text,
        lane="user" if lane is None else lane,
        source="api",
        policy=_header(request, "x-holdfast-policy"),
        idempotency_key=_header(request, "idempotency-key"),
        instructions=asked.instructions,
        seed=await _seed(gateway, key, asked),
    )
    try:
        answer = await _answer(request, asked, key, receipt)
    except HoldfastError as error:
        ours = {"turn_id": receipt.turn_id}
        told = {**ours, "error": answers.openai_error(error, **ours)}
        answer = problems.problem(error, more=told)
        # After a drain, another process answers a retry, if it can tell that it is one.
        if not isinstance(error, DrainingError) or "idempotency-key" not in request.headers:
            answer.headers["X-Should-Retry"] = "false"
    answer.headers["X-Holdfast-Turn"] = receipt.turn_id
    # As in the request: what is not ASCII is UTF-8.
    answer.headers["X-Holdfast-Session"] = key.encode().decode("latin-1")
    return answer


async def known_agents(gateway: Gateway) -> set[str]:
    """The ids of all agents: those served here, in the settings, or ever seen in the store."""
    seen = await gateway.hf.store.control.known_agents()
    return {keys.AGENT_DEFAULT, *gateway.agents, *gateway.settings.agents, *seen}


# -------------------------------------------------------------------------- what is asked


async def _body(request: Request) -> dict[str, Any]:
    gateway: Gateway = request.app.state.gateway
    data = await bodies.read(request, gateway.settings.body_bytes_max)
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(
            detail=f"the body is not JSON: {error}", hint="send a JSON object"
        ) from error
    if not isinstance(body, dict):
        raise problems.BadFieldError(name="body", detail="it is not a JSON object")
    return body


def _header(request: Request, name: str) -> str | None:
    """A header's value.  Keys may hold more than ASCII: then it is UTF-8."""
    value = request.headers.get(name)
    if value is not None:
        with suppress(UnicodeDecodeError):
            return value.encode("latin-1").decode()
    return value


async def _seed(gateway: Gateway, key: str, asked: Asked) -> tuple[Mapping[str, str], ...]:
    """
    The earlier messages, unless the session has had a reply already: clients send them all
    with every request, and what is ignored must not count into a limit.
    """
    with suppress(NotFoundError):
        if asked.seed and (await gateway.hf.session(key)).end_offset:
            return ()
    return asked.seed


# ------------------------------------------------------------------------- what is answered


async def _answer(request: Request, asked: Asked, key: str, receipt: Receipt) -> Response:
    gateway: Gateway = request.app.state.gateway
    head = {
        "id": f"chatcmpl-{receipt.turn_id}",
        "object": "chat.completion.chunk" if asked.stream else "chat.completion",
        "created": int(receipt.turn_id.replace("-", "")[:12], 16) // 1000,  # A UUIDv7's time.
        "model": asked.model or keys.agent_of(key),
    }
    if asked.stream:
        usage = partial(_usage, gateway, receipt) if asked.include_usage else None
        telling = Telling(receipt.turn_id)
        body = chunks(gateway.hf.follow(receipt.turn_id), telling, head, usage=usage)
        return _Stream(body, telling, gateway)
    outcome = await outcome_or_gone(request, receipt, None)
    if outcome is None:
        if gateway.hf.draining:
            raise DrainingError
        return Response(status_code=CLIENT_GONE)
    if (error := answers.unanswered(outcome.to_json())) is not None:
        raise error
    whole = answers.completion(head, outcome.text or "", await _usage(gateway, receipt))
    return Response(msgspec.json.encode(whole), media_type="application/json")


class _Stream(StreamingResponse):
    """A streamed answer; closed when it ends, whoever ends it."""

    def __init__(
        self, body: AsyncGenerator[bytes, None], telling: Telling, gateway: Gateway
    ) -> None:
        self._chunks = sse.with_pings(
            body, COMMENT_EVERY_S, lambda: sse.comment(telling.standing())
        )
        super().__init__(self._chunks, media_type="text/event-stream", headers=sse.HEADERS)
        self._telling, self._gateway = telling, gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = True
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:
            left = False  # It is the server that ends.
            raise
        finally:
            await self._chunks.aclose()
            left = left and not self._telling.over
            if left and self._gateway.settings.cancel_on_disconnect:
                await self._cancel()

    async def _cancel(self) -> None:
        turn_id = self._telling.turn_id
        try:
            await self._gateway.hf.cancel(turn_id)
        except HoldfastError as echo:
            _log.warning("turn %s: not cancelled: %s", turn_id, echo)


async def _usage(gateway: Gateway, receipt: Receipt) -> dict[str, Any]:
    turn = await gateway.hf.store.control.turn(TurnId(receipt.turn_id))
    return answers.usage(turn.usage)
