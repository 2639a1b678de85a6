"""Is this process there, and does it take messages?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from holdfast.errors import DrainingError

if TYPE_CHECKING:
    from starlette.requests import Request

    from holdfast.gateway.app import Gateway

__all__ = ["healthz", "readyz"]


async def healthz(request: Request) -> JSONResponse:
    """The event loop answers.  Asks nothing of the store."""
    del request
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> JSONResponse:
    """
    Messages are taken here.

    Raises:
        DrainingError: no more.
        StoreError: the store does not answer.
    """
    gateway: Gateway = request.app.state.gateway
    if gateway.hf.draining:
        raise DrainingError
    counts = await gateway.hf.store.control.counts()
    return JSONResponse(
        {
            "status": "ready",
            "agents": sorted(gateway.agents),
            "waiting": counts.waiting,
            "running": counts.running,
        }
    )
