"""A key that begins a new conversation, and a session that its owner is asked to let go of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse

from holdfast._core import keys
from holdfast._core.handover import BUSY
from holdfast.gateway import bodies
from holdfast.gateway.paths import key_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from holdfast.gateway.app import Gateway

__all__ = ["HANDOVER_MAX_S", "handover", "reset"]

HANDOVER_S: Final = 10.0
HANDOVER_MAX_S: Final = 60.0


async def reset(request: Request) -> JSONResponse:
    """As `holdfast sessions reset KEY --json`."""
    gateway: Gateway = request.app.state.gateway
    key = keys.canonical(key_of(request))
    done = await gateway.hf.reset(key)
    return JSONResponse(
        {
            "session": key,
            "old": done.old.session_id,
            "new": done.new.session_id,
            "moved": list(done.moved),
            "stayed": list(done.stayed),
        }
    )


async def handover(request: Request) -> JSONResponse:
    """As `holdfast turns handover KEY --json`."""
    gateway: Gateway = request.app.state.gateway
    key = keys.canonical(key_of(request))
    timeout_s = bodies.number(request, "timeout", least=0, most=HANDOVER_MAX_S)
    done = await gateway.hf.handover(
        key, timeout_s=HANDOVER_S if timeout_s is None else timeout_s
    )
    told = {
        "session": key,
        "session_id": done.session_id,
        "turn_id": done.turn_id,
        "answer": done.answer,
        "detail": done.detail or None,
        "again": done.again,
    }
    if done.answer != BUSY and done.turn_id is not None:
        why = (await gateway.hf.why(key)).to_json()
        told.update({name: why.get(name) for name in ("holder", "broken", "next")})
    return JSONResponse(told)
