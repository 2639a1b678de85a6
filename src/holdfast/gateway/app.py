"""
The application: routes, and what every request passes on its way to one.

    connection (protocol.py) ─▶ guard: host, origin, headers, token ─▶ route ─▶ handler
                                   ◀── problem document for every error of ours ◀──┘
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route

from holdfast.errors import HoldfastError
from holdfast.gateway import (
    completions,
    console,
    health,
    hooks,
    locks,
    messages,
    metrics,
    models,
    moving,
    openapi,
    sessions,
    telling,
    turns,
)
from holdfast.gateway.guard import Guard, on_bug, on_error

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp

    from holdfast._core.settings import Settings
    from holdfast._runtime.runtime import Holdfast

__all__ = ["API", "Gateway", "build"]


@dataclass(frozen=True, slots=True)
class Gateway:
    """What every handler needs: ``request.app.state.gateway``."""

    hf: Holdfast
    settings: Settings
    token: str
    agents: Collection[str]  #: Ids of the agents that answer here.


#: The interface, as `/openapi.json` tells it; a test compares the two.
API: Final = (
    Route("/v1/sessions", sessions.listed, methods=["GET"]),
    Route("/v1/sessions/{key}", sessions.show, methods=["GET"]),
    Route("/v1/sessions/{key}/entries", sessions.entries, methods=["GET"]),
    Route("/v1/sessions/{key}/messages", messages.send, methods=["POST"]),
    Route("/v1/sessions/{key}/reset", moving.reset, methods=["POST"]),
    Route("/v1/sessions/{key}/handover", moving.handover, methods=["POST"]),
    Route("/v1/turns/{turn_id}", turns.show, methods=["GET"]),
    Route("/v1/turns/{turn_id}/cancel", turns.cancel, methods=["POST"]),
    Route("/v1/turns/{turn_id}/events", turns.events, methods=["GET"]),
    Route("/v1/sessions/{key}/why", telling.why, methods=["GET"]),
    Route("/v1/lanes", telling.lanes, methods=["GET"]),
    Route("/v1/events", telling.events, methods=["GET"]),
    Route("/v1/hooks/{channel}", hooks.receive, methods=["POST"]),
    Route("/v1/locks", locks.listed, methods=["GET"]),
    Route("/v1/chat/completions", completions.create, methods=["POST"]),
    Route("/v1/models", models.listed, methods=["GET"]),
    Route("/healthz", health.healthz, methods=["GET"]),
    Route("/readyz", health.readyz, methods=["GET"]),
    Route("/metrics", metrics.show, methods=["GET"]),
    Route("/openapi.json", openapi.show, methods=["GET"]),
)


def build(gateway: Gateway) -> ASGIApp:
    """The ASGI application of one process."""
    app = Starlette(
        routes=[*API, *console.routes(), Mount("/static", console.static())],
        exception_handlers={
            HoldfastError: on_error,
            HTTPException: on_error,
            Exception: on_bug,
        },
    )
    app.state.gateway = gateway
    return Guard(app, gateway.settings, gateway.token)
