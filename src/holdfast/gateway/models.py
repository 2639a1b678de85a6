"""`GET /v1/models`: the agents that may stand in a request's `model`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from holdfast.gateway.completions import known_agents

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["listed"]


async def listed(request: Request) -> JSONResponse:
    """Every agent that is served here, named in the settings, or was ever seen in the store."""
    models = [
        {"id": agent_id, "object": "model", "created": 0, "owned_by": "holdfast"}
        for agent_id in sorted(await known_agents(request.app.state.gateway))
    ]
    return JSONResponse({"object": "list", "data": models})
