"""Turns: what became of a message, its end on request, and what happens to it, live."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from holdfast._runtime.following import log_id
from holdfast._runtime.receipts import place_reason
from holdfast.errors import NotFoundError
from holdfast.gateway import bodies, sse
from holdfast.gateway.paths import decoded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.gateway.app import Gateway
    from holdfast.types import Place, Turn

__all__ = ["cancel", "events", "show"]


async def show(request: Request) -> JSONResponse:
    gateway: Gateway = request.app.state.gateway
    turn = await gateway.hf.store.control.turn(_turn_id(request))
    return await _answer(gateway, turn)


async def cancel(request: Request) -> JSONResponse:
    """Ask for the turn's end; see `Holdfast.cancel`; ``?rollback=true`` takes it back, too."""
    gateway: Gateway = request.app.state.gateway
    rollback = bodies.flag(request, "rollback")
    return await _answer(gateway, await gateway.hf.cancel(_turn_id(request), rollback=rollback))


async def events(request: Request) -> Response:
    """What happens to the turn, as Server-Sent Events; `Last-Event-ID` goes on after one."""
    gateway: Gateway = request.app.state.gateway
    turn_id, after = _turn_id(request), request.headers.get("last-event-id") or None
    # Before the first byte: afterwards nothing can be refused any more.
    await gateway.hf.store.control.turn(turn_id)
    if after is not None:
        log_id(after)
    return sse.stream(_told(gateway, turn_id, after))


async def _told(
    gateway: Gateway, turn_id: Any, after: str | None
) -> AsyncGenerator[bytes, None]:
    async with aclosing(gateway.hf.follow(turn_id, after=after)) as happening:
        async for event in happening:
            yield sse.event(event.kind, event.data, event.event_id)


async def _answer(gateway: Gateway, turn: Turn) -> JSONResponse:
    place = await gateway.hf.store.control.place(turn.turn_id, gateway.settings.lanes)
    waits = place_reason(place, turn.agent_id, gateway.settings.lanes)
    return JSONResponse({**turn_json(turn, place), "waits": waits})


def turn_json(turn: Turn, place: Place) -> dict[str, Any]:
    return {
        "turn_id": turn.turn_id,
        "session_id": turn.session_id,
        "session": turn.session_key,
        "lane": turn.lane,
        "source": turn.source,
        "state": turn.state,
        "outcome": turn.outcome,
        "text": turn.reply,
        "reason": turn.reason,
        "hint": turn.hint,
        "attempts": turn.attempts,
        "accepted_at": turn.accepted_at,
        "started_at": turn.started_at,
        "ended_at": turn.ended_at,
        "position": place.position,
        "waiting_for": place.waiting_for,
    }


def _turn_id(request: Request) -> Any:
    sent = request.path_params["turn_id"]
    try:
        return decoded(sent)
    except UnicodeDecodeError:
        raise NotFoundError(what="turn", name=sent[:80]) from None
