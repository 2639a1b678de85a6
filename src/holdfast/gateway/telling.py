"""Why a session waits, what runs in each lane, and what happened.  Reading changes nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse

from holdfast._core import keys
from holdfast._core.telling import event_json, lane_json
from holdfast.gateway import bodies
from holdfast.gateway.paths import key_of
from holdfast.gateway.problems import BadFieldError

if TYPE_CHECKING:
    from starlette.requests import Request

    from holdfast.gateway.app import Gateway
    from holdfast.types import EventRow, SessionId

__all__ = ["KINDS_CHARS_MAX", "PAGE_MAX", "WAIT_MAX_S", "events", "lanes", "why"]

PAGE: Final = 100
PAGE_MAX: Final = 500
WAIT_MAX_S: Final = 60.0
KINDS_CHARS_MAX: Final = 1_000
NUMBER_MAX: Final = 2**63 - 1  #: What the store can count to.


async def why(request: Request) -> JSONResponse:
    """As `holdfast why KEY --json`."""
    gateway: Gateway = request.app.state.gateway
    return JSONResponse((await gateway.hf.why(key_of(request))).to_json())


async def lanes(request: Request) -> JSONResponse:
    gateway: Gateway = request.app.state.gateway
    found = await gateway.hf.store.control.lanes(gateway.settings.lanes)
    return JSONResponse({"lanes": [lane_json(each) for each in found]})


async def events(request: Request) -> JSONResponse:
    """A page of events; with ``?wait=SECONDS`` not before there is one, if one comes."""
    gateway: Gateway = request.app.state.gateway
    after = _after(request)
    limit = int(bodies.number(request, "limit", least=1, most=PAGE_MAX) or PAGE)
    wait_s = bodies.number(request, "wait", least=0, most=WAIT_MAX_S) or 0.0
    kinds = _kinds(request)
    session_id = await _session_id(gateway, request.query_params.get("session"))
    until_s = asyncio.get_running_loop().time() + wait_s
    while True:
        # Before the page: what comes in between is found by whoever goes on from here.
        newest = await gateway.hf.store.control.newest_event()
        found = await gateway.hf.store.control.events(
            after, kinds=kinds, session_id=session_id, limit=limit
        )
        left_s = until_s - asyncio.get_running_loop().time()
        if found or left_s <= 0 or gateway.hf.draining:
            return JSONResponse(_page(found, after, newest, limit))
        try:
            async with asyncio.timeout(left_s):
                await gateway.hf.change()
        except TimeoutError:
            continue


def _page(found: list[EventRow], after: int, newest: int, limit: int) -> dict[str, Any]:
    last = found[-1].event_id if found else after
    return {
        "events": [event_json(each) for each in found],
        "next": last if len(found) == limit else max(last, newest),
    }


def _after(request: Request) -> int:
    text = request.query_params.get("after") or "0"
    if not (text.isascii() and text.isdecimal() and int(text[:20]) <= NUMBER_MAX):
        raise BadFieldError(name="?after", detail=f"{text[:80]!r} is not an event's number")
    return int(text)


def _kinds(request: Request) -> list[str]:
    text = request.query_params.get("kinds", "")
    if len(text) > KINDS_CHARS_MAX:
        raise BadFieldError(name="?kinds", detail=f"more than {KINDS_CHARS_MAX} characters")
    return [kind for each in text.split(",") if (kind := each.strip())]


async def _session_id(gateway: Gateway, key: str | None) -> SessionId | None:
    if key is None:
        return None
    return (await gateway.hf.session(keys.canonical(key))).session_id
