"""What `/openapi.json` says of the coordinating facts: why, lanes, events, locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.gateway._openapi_words import (
    GUARDED,
    STORE,
    as_json,
    integer,
    key_parameter,
    operation,
    parameter,
)
from holdfast.gateway.telling import KINDS_CHARS_MAX, PAGE_MAX, WAIT_MAX_S

if TYPE_CHECKING:
    from holdfast.gateway._openapi_words import Json

__all__ = ["telling"]


def telling() -> Json:
    return {
        "/v1/sessions/{key}/why": {
            "get": operation(
                "explainSession",
                "Who holds a session, who waits for it and for what, and what happens next",
                [key_parameter()],
                {"200": as_json("Why", "One moment.")},
                (*GUARDED, 404, 422, *STORE),
            )
        },
        "/v1/lanes": {
            "get": operation(
                "listLanes",
                "Lanes: what runs and what waits in each, over the whole store",
                [],
                {"200": as_json("Lanes", "All of them.")},
                (*GUARDED, *STORE),
            )
        },
        "/v1/events": {"get": _events()},
        "/v1/locks": {
            "get": operation(
                "listLocks",
                "Write locks: who has them, and what a waiter would get",
                [],
                {"200": as_json("Locks", "All of them, by path.")},
                (*GUARDED, *STORE),
            )
        },
    }


def _events() -> Json:
    number = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
    seconds = {"type": "number", "minimum": 0, "maximum": WAIT_MAX_S}
    limit = integer(least=1, most=PAGE_MAX)
    kinds = {"type": "string", "maxLength": KINDS_CHARS_MAX}
    return operation(
        "listEvents",
        "What happened, oldest first: takeovers, reclaims, aborts, merges, and all the rest",
        [
            parameter("query", "after", "Go on after this: `next`.", kind=number),
            parameter("query", "kinds", "Only these, separated by commas.", kind=kinds),
            key_parameter("query", "session"),
            parameter("query", "limit", "At most so many.", kind=limit),
            parameter("query", "wait", "Seconds to wait for the first.", kind=seconds),
        ],
        {"200": as_json("Events", "A page; `next` is where to go on, also if it is empty.")},
        (*GUARDED, 404, 422, *STORE),
    )
