"""
`/openapi.json`: the interface, exactly as it is.

Written by hand, because what a status means is nothing that code could tell; a test compares
its paths and methods with the routes, and another lets a generator of requests look for
answers that are not in it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse

from holdfast import __version__
from holdfast._core.keys import KEY_CHARS_MAX
from holdfast._core.settings import POLICIES
from holdfast.gateway._openapi_schemas import SCHEMAS, WHY
from holdfast.gateway.messages import WAIT_MAX_S
from holdfast.gateway.sessions import PAGE_MAX

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["document", "show"]

Json = dict[str, Any]

#: What may be a key, nearly; `_core/keys.py` has the whole grammar.
_WORD: Final = r"[^:/\\\s\x00-\x20\x7f-\xa0]+"
_KEY: Final = rf"^(main|agent:[a-z0-9][a-z0-9_-]{{0,63}}(:{_WORD})+|hook:[0-9a-f-]{{36}})$"
_ALWAYS: Final = (400, 403, 431)
_GUARDED: Final = (401, *_ALWAYS)
_STORE: Final = (503, 507)


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
        "paths": {**_sessions(), **_turns(), **_locks(), **_openai(), **_process()},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": SCHEMAS,
        },
    }


# -------------------------------------------------------------------------------- its parts


def _sessions() -> Json:
    key = _parameter(
        "path",
        "key",
        "A session key or alias, e.g. agent:main:main or main.",
        kind={"type": "string", "pattern": _KEY, "maxLength": KEY_CHARS_MAX},
    )
    after = _parameter("query", "after", "Go on after this: `next` or a cursor.")
    limit = _parameter(
        "query", "limit", "At most so many.", kind=_integer(least=1, most=PAGE_MAX)
    )
    last = _parameter(
        "query", "last", "Instead, the last so many.", kind=_integer(least=1, most=PAGE_MAX)
    )
    wait = _parameter(
        "query",
        "wait",
        "Seconds to wait for the outcome.",
        kind={"type": "number", "minimum": 0, "maximum": WAIT_MAX_S},
    )
    session = (*_GUARDED, 404, 422, *_STORE)
    entries = _operation(
        "listEntries",
        "Entries of a transcript, or a live stream of them",
        [key, after, limit, last, _last_event_id("A cursor, for a stream.")],
        _json_or_stream("Entries"),
        session,
    )
    message = _operation(
        "sendMessage",
        "Hand in a message",
        [key, wait],
        {
            "200": _json("Outcome", "The outcome, in time."),
            "202": _json("Receipt", "Accepted: durable, and it will end in one outcome."),
        },
        (*_GUARDED, 408, 409, 413, 422, 429, 502, *_STORE),
        body="Message",
    )
    return {
        "/v1/sessions": {
            "get": _operation(
                "listSessions",
                "Sessions, oldest first",
                [after, limit],
                {"200": _json("Sessions", "A page.")},
                (*_GUARDED, 422, *_STORE),
            )
        },
        "/v1/sessions/{key}": {
            "get": _operation(
                "showSession", "One session", [key], {"200": _json("Session", "It.")}, session
            )
        },
        "/v1/sessions/{key}/entries": {"get": entries},
        "/v1/sessions/{key}/messages": {"post": message},
    }


def _turns() -> Json:
    turn_id = _parameter("path", "turn_id", "The id on the receipt.")
    refused = (*_GUARDED, 404, *_STORE)
    happening = (
        "Server-Sent Events: accepted, position, started, attempt, text, tool, committed,"
        " outcome."
    )
    return {
        "/v1/turns/{turn_id}": {
            "get": _operation(
                "showTurn",
                "A turn, and its outcome",
                [turn_id],
                {"200": _json("Turn", "It.")},
                refused,
            )
        },
        "/v1/turns/{turn_id}/cancel": {
            "post": _operation(
                "cancelTurn",
                "Ask for a turn's end",
                [turn_id],
                {"200": _json("Turn", "It.")},
                refused,
            )
        },
        "/v1/turns/{turn_id}/events": {
            "get": _operation(
                "followTurn",
                "What happens to a turn, live",
                [turn_id, _last_event_id("The last id that was seen, <token>.<n>.")],
                {"200": _stream(happening)},
                refused,
            )
        },
    }


def _locks() -> Json:
    return {
        "/v1/locks": {
            "get": _operation(
                "listLocks",
                "Write locks: who has them, and what a waiter would get",
                [],
                {"200": _json("Locks", "All of them, by path.")},
                (*_GUARDED, *_STORE),
            )
        }
    }


def _openai() -> Json:
    headers = [
        _parameter("header", "X-Holdfast-Session", "The session's key."),
        _parameter("header", "X-Holdfast-Lane", "As in a message."),
        _parameter("header", "X-Holdfast-Policy", f"One of {', '.join(POLICIES)}."),
        _parameter("header", "Idempotency-Key", "The same key and text are one message."),
    ]
    answers = {
        "200": {
            "description": "The completion, or with `stream` its chunks.",
            "headers": {
                name: {"schema": {"type": "string"}}
                for name in ("X-Holdfast-Turn", "X-Holdfast-Session")
            },
            "content": {
                "application/json": {"schema": _ref("Completion")},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        }
    }
    refused = (*_GUARDED, 408, 409, 413, 422, 429, 502, *_STORE)
    return {
        "/v1/chat/completions": {
            "post": _operation(
                "createCompletion",
                "OpenAI's chat completions, on a session",
                headers,
                answers,
                refused,
                body="CompletionRequest",
            )
        },
        "/v1/models": {
            "get": _operation(
                "listModels",
                "The agents, as OpenAI lists models",
                [],
                {"200": _json("Models", "All of them.")},
                (*_GUARDED, *_STORE),
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
            "get": _operation(
                "isAlive",
                "The process answers",
                [],
                {"200": _json("Health", "It does.")},
                _ALWAYS,
                public=True,
            )
        },
        "/readyz": {
            "get": _operation(
                "isReady",
                "Messages are taken",
                [],
                {"200": _json("Ready", "They are.")},
                (*_ALWAYS, *_STORE),
                public=True,
            )
        },
        "/metrics": {
            "get": _operation("showMetrics", "Metrics", [], metrics, (*_GUARDED, *_STORE))
        },
        "/openapi.json": {
            "get": _operation(
                "showInterface",
                "This document",
                [],
                {
                    "200": {
                        "description": "It.",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    }
                },
                _GUARDED,
            )
        },
    }


# ------------------------------------------------------------------------------ small words


def _operation(
    name: str,
    summary: str,
    parameters: list[Json],
    answers: Json,
    refused: tuple[int, ...],
    *,
    body: str | None = None,
    public: bool = False,
) -> Json:
    problems = {
        str(status): {
            "description": WHY[status],
            "content": {"application/problem+json": {"schema": _ref("Problem")}},
        }
        for status in sorted(refused)
    }
    made: Json = {
        "operationId": name,
        "summary": summary,
        "parameters": parameters,
        "responses": {**answers, **problems},
    }
    if body is not None:
        content = {"application/json": {"schema": _ref(body)}}
        made["requestBody"] = {"required": True, "content": content}
    if public:
        made["security"] = []
    return made


def _parameter(where: str, name: str, told: str, *, kind: Json | None = None) -> Json:
    return {
        "in": where,
        "name": name,
        "required": where == "path",
        "description": told,
        "schema": kind or {"type": "string"},
    }


def _last_event_id(told: str) -> Json:
    return _parameter("header", "Last-Event-ID", told)


def _integer(*, least: int, most: int) -> Json:
    return {"type": "integer", "minimum": least, "maximum": most}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(name: str, told: str) -> Json:
    return {"description": told, "content": {"application/json": {"schema": _ref(name)}}}


def _stream(told: str) -> Json:
    return {
        "description": told,
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }


def _json_or_stream(name: str) -> Json:
    found = _json(
        name, "A page; for who accepts text/event-stream, all that is written from there on."
    )
    found["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return {"200": found}
