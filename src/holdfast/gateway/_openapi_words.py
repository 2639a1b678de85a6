"""The small words that `/openapi.json` is written with."""

from __future__ import annotations

from typing import Any, Final

from holdfast._core.keys import KEY_CHARS_MAX
from holdfast.gateway._openapi_schemas import WHY

__all__ = [
    "ALWAYS",
    "GUARDED",
    "KEY",
    "STORE",
    "Json",
    "as_json",
    "as_stream",
    "integer",
    "json_or_stream",
    "key_parameter",
    "last_event_id",
    "operation",
    "parameter",
    "ref",
]

Json = dict[str, Any]

#: Statuses that may come: to anybody; to who needs the token; from the store.
ALWAYS: Final = (400, 403, 431)
GUARDED: Final = (401, *ALWAYS)
STORE: Final = (503, 507)
#: What may be a key, nearly; `_core/keys.py` has the whole grammar.
_WORD: Final = r"[^:/\\\s\x00-\x20\x7f-\xa0]+"
KEY: Final = rf"^(main|agent:[a-z0-9][a-z0-9_-]{{0,63}}(:{_WORD})+|hook:[0-9a-f-]{{36}})$"


def operation(
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
            "content": {"application/problem+json": {"schema": ref("Problem")}},
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
        content = {"application/json": {"schema": ref(body)}}
        made["requestBody"] = {"required": True, "content": content}
    if public:
        made["security"] = []
    return made


def parameter(where: str, name: str, told: str, *, kind: Json | None = None) -> Json:
    return {
        "in": where,
        "name": name,
        "required": where == "path",
        "description": told,
        "schema": kind or {"type": "string"},
    }


def key_parameter(where: str = "path", name: str = "key") -> Json:
    return parameter(
        where,
        name,
        "A session key or alias, e.g. agent:main:main or main.",
        kind={"type": "string", "pattern": KEY, "maxLength": KEY_CHARS_MAX},
    )


def last_event_id(told: str) -> Json:
    return parameter("header", "Last-Event-ID", told)


def integer(*, least: int, most: int) -> Json:
    return {"type": "integer", "minimum": least, "maximum": most}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def as_json(name: str, told: str) -> Json:
    return {"description": told, "content": {"application/json": {"schema": ref(name)}}}


def as_stream(told: str) -> Json:
    return {
        "description": told,
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }


def json_or_stream(name: str) -> Json:
    found = as_json(
        name, "A page; for who accepts text/event-stream, all that is written from there on."
    )
    found["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return {"200": found}
