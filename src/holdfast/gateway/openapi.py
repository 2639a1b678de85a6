"""
`/openapi.json`: the interface, exactly as it is.

Written by hand, because what a status means is nothing that code could tell; a test compares
its paths and methods with the routes, and another lets a generator of requests look for
answers that are not in it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from holdfast import __version__
from holdfast._core.settings import POLICIES
from holdfast.gateway._openapi_hooks import hooks
from holdfast.gateway._openapi_moving import moving
from holdfast.gateway._openapi_schemas import SCHEMAS
from holdfast.gateway._openapi_telling import telling
from holdfast.gateway._openapi_words import (
    ALWAYS,
    GUARDED,
    STORE,
    as_json,
    as_stream,
    integer,
    json_or_stream,
    key_parameter,
    last_event_id,
    operation,
    parameter,
    ref,
)
from holdfast.gateway.messages import WAIT_MAX_S
from holdfast.gateway.sessions import PAGE_MAX

if TYPE_CHECKING:
    from starlette.requests import Request

    from holdfast.gateway._openapi_words import Json

__all__ = ["document", "show"]


async def show(request: Request) -> JSONResponse:
    del request
    return JSONResponse(document())


@cache
def document() -> Json:
    """The OpenAPI 3.1 document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast",
            "version": __version__,
            "description": "Sessions of LLM agents: every accepted message answered, one"
            " writer at a time.  Errors are problem documents (RFC 9457).  Keys in paths are"
            " percent-encoded.",
        },
        "security": [{"token": []}],
        "paths": {
            **_sessions(),
            **moving(),
            **_turns(),
            **telling(),
            **hooks(),
            **_openai(),
            **_process(),
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": SCHEMAS,
        },
    }


# -------------------------------------------------------------------------------- its parts


def _sessions() -> Json:
    key = key_parameter()
    after = parameter("query", "after", "Go on after this: `next` or a cursor.")
    limit = parameter(
        "query", "limit", "At most so many.", kind=integer(least=1, most=PAGE_MAX)
    )
    last = parameter(
        "query", "last", "Instead, the last so many.", kind=integer(least=1, most=PAGE_MAX)
    )
    wait = parameter(
        "query",
        "wait",
        "Seconds to wait for the outcome.",
        kind={"type": "number", "minimum": 0, "maximum": WAIT_MAX_S},
    )
    session = (*GUARDED, 404, 422, *STORE)
    entries = operation(
        "listEntries",
        "Entries of a transcript, or a live stream of them",
        [key, after, limit, last, last_event_id("A cursor, for a stream.")],
        json_or_stream("Entries"),
        session,
    )
    message = operation(
        "sendMessage",
        "Hand in a message",
        [key, wait],
        {
            "200": as_json("Outcome", "The outcome, in time."),
            "202": as_json("Receipt", "Accepted: durable, and it will end in one outcome."),
        },
        (*GUARDED, 408, 409, 413, 422, 429, 502, *STORE),
        body="Message",
    )
    return {
        "/v1/sessions": {
            "get": operation(
                "listSessions",
                "Sessions, oldest first",
                [after, limit],
                {"200": as_json("Sessions", "A page.")},
                (*GUARDED, 422, *STORE),
            )
        },
        "/v1/sessions/{key}": {
            "get": operation(
                "showSession", "One session", [key], {"200": as_json("Session", "It.")}, session
            )
        },
        "/v1/sessions/{key}/entries": {"get": entries},
        "/v1/sessions/{key}/messages": {"post": message},
    }


def _turns() -> Json:
    turn_id = parameter("path", "turn_id", "The id on the receipt.")
    refused = (*GUARDED, 404, *STORE)
    happening = (
        "Server-Sent Events: accepted, position, started, attempt, text, tool, committed,"
        " outcome."
    )
    return {
        "/v1/turns/{turn_id}": {
            "get": operation(
                "showTurn",
                "A turn, and its outcome",
                [turn_id],
                {"200": as_json("Turn", "It.")},
                refused,
            )
        },
        "/v1/turns/{turn_id}/cancel": {
            "post": operation(
                "cancelTurn",
                "Ask for a turn's end",
                [
                    turn_id,
                    parameter(
                        "query",
                        "rollback",
                        "Its question leaves the conversation, too.",
                        kind={"type": "boolean"},
                    ),
                ],
                {"200": as_json("Turn", "It.")},
                (*refused, 409, 422),
            )
        },
        "/v1/turns/{turn_id}/events": {
            "get": operation(
                "followTurn",
                "What happens to a turn, live",
                [turn_id, last_event_id("The last id that was seen, <token>.<n>.")],
                {"200": as_stream(happening)},
                refused,
            )
        },
    }


def _openai() -> Json:
    headers = [
        parameter("header", "X-Holdfast-Session", "The session's key."),
        parameter("header", "X-Holdfast-Lane", "As in a message."),
        parameter("header", "X-Holdfast-Policy", f"One of {', '.join(POLICIES)}."),
        parameter("header", "Idempotency-Key", "The same key and text are one message."),
    ]
    answers = {
        "200": {
            "description": "The completion, or with `stream` its chunks.",
            "headers": {
                name: {"schema": {"type": "string"}}
                for name in ("X-Holdfast-Turn", "X-Holdfast-Session")
            },
            "content": {
                "application/json": {"schema": ref("Completion")},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        }
    }
    refused = (*GUARDED, 408, 409, 413, 422, 429, 502, *STORE)
    return {
        "/v1/chat/completions": {
            "post": operation(
                "createCompletion",
                "OpenAI's chat completions, on a session",
                headers,
                answers,
                refused,
                body="CompletionRequest",
            )
        },
        "/v1/models": {
            "get": operation(
                "listModels",
                "The agents, as OpenAI lists models",
                [],
                {"200": as_json("Models", "All of them.")},
                (*GUARDED, *STORE),
            )
        },
    }


def _process() -> Json:
    metrics = {
        "200": {
            "description": "Prometheus' text format.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    }
    return {
        "/healthz": {
            "get": operation(
                "isAlive",
                "The process answers",
                [],
                {"200": as_json("Health", "It does.")},
                ALWAYS,
                public=True,
            )
        },
        "/readyz": {
            "get": operation(
                "isReady",
                "Messages are taken",
                [],
                {"200": as_json("Ready", "They are.")},
                (*ALWAYS, *STORE),
                public=True,
            )
        },
        "/metrics": {
            "get": operation("showMetrics", "Metrics", [], metrics, (*GUARDED, *STORE))
        },
        "/openapi.json": {
            "get": operation(
                "showInterface",
                "This document",
                [],
                {
                    "200": {
                        "description": "It.",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    }
                },
                GUARDED,
            )
        },
    }
