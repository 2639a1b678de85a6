"""Who has which write lock.  Reading takes no lock and changes nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.requests import Request

    from holdfast.gateway.app import Gateway

__all__ = ["listed"]


async def listed(request: Request) -> JSONResponse:
    """Every write lock of the store, as `holdfast locks list --json` tells them."""
    gateway: Gateway = request.app.state.gateway
    loop = asyncio.get_running_loop()
    return JSONResponse({"locks": await loop.run_in_executor(None, gateway.hf.store.locks)})
