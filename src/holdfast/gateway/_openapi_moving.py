"""What `/openapi.json` says of keys that move and of sessions that are handed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.gateway._openapi_words import (
    GUARDED,
    STORE,
    as_json,
    key_parameter,
    operation,
    parameter,
)
from holdfast.gateway.moving import HANDOVER_MAX_S

if TYPE_CHECKING:
    from holdfast.gateway._openapi_words import Json

__all__ = ["moving"]


def moving() -> Json:
    seconds = {"type": "number", "minimum": 0, "maximum": HANDOVER_MAX_S}
    return {
        "/v1/sessions/{key}/reset": {
            "post": operation(
                "resetSession",
                "Begin a new conversation under a key; what waits goes along",
                [key_parameter()],
                {"200": as_json("Reset", "Both sessions, and whose turn is where.")},
                (*GUARDED, 404, 422, *STORE),
            )
        },
        "/v1/sessions/{key}/handover": {
            "post": operation(
                "handOverSession",
                "Ask who holds a session to let go of it",
                [
                    key_parameter(),
                    parameter("query", "timeout", "Seconds to wait.", kind=seconds),
                ],
                {"200": as_json("Handover", "The answer; or, without one, what is known.")},
                (*GUARDED, 404, 422, *STORE),
            )
        },
    }
