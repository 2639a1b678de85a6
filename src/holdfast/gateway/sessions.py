"""Sessions and their entries.  Reading takes no lock and changes nothing."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import JSONResponse, Response

from holdfast.gateway import bodies, sse
from holdfast.gateway.paths import key_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from starlette.requests import Request

    from holdfast.gateway.app import Gateway
    from holdfast.types import Session

__all__ = ["entries", "listed", "show"]

PAGE: Final = 100
PAGE_MAX: Final = 500


async def listed(request: Request) -> JSONResponse:
    """A page of sessions, in the order in which they were made."""
    gateway: Gateway = request.app.state.gateway
    limit = _limit(request)
    found = await gateway.hf.store.control.sessions(request.query_params.get("after", ""))
    page = found[:limit]
    more = len(found) > limit or len(found) == PAGE_MAX
    return JSONResponse(
        {
            "sessions": [
                _session_json(session, {**facts, "keys": json.loads(facts["keys"])})
                for session, facts in page
            ],
            "next": page[-1][0].session_id if page and more else None,
        }
    )


async def show(request: Request) -> JSONResponse:
    gateway: Gateway = request.app.state.gateway
    session = await gateway.hf.session(key_of(request))
    facts = await gateway.hf.store.control.session_facts(session.session_id)
    return JSONResponse(_session_json(session, facts))


async def entries(request: Request) -> Response:
    """
    Entries of the transcript, a page at a time; or, for who accepts ``text/event-stream``,
    these and all that follow, as they are written.
    """
    gateway: Gateway = request.app.state.gateway
    key, after = key_of(request), request.query_params.get("after") or None
    if "text/event-stream" in request.headers.get("accept", ""):
        after = request.headers.get("last-event-id") or after
        # Before the first byte: afterwards nothing can be refused any more.
        await gateway.hf.entries(key, after=after, limit=1)
        return sse.stream(_told(gateway, key, after))
    last = bodies.number(request, "last", least=1, most=PAGE_MAX)
    page = await gateway.hf.entries(
        key, after=after, limit=_limit(request), last=None if last is None else int(last)
    )
    told = {
        "entries": [{"cursor": cursor, "entry": entry} for cursor, entry in page.entries],
        "next": page.next,
    }
    return Response(msgspec.json.encode(told), media_type="application/json")


async def _told(gateway: Gateway, key: str, after: str | None) -> AsyncGenerator[bytes, None]:
    async with aclosing(gateway.hf.watch(key, after=after)) as happening:
        async for event in happening:
            yield sse.event(event.kind, event.data, event.cursor)


def _session_json(session: Session, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "agent": session.agent_id,
        "created_at": session.created_at,
        **facts,
    }


def _limit(request: Request) -> int:
    found = bodies.number(request, "limit", least=1, most=PAGE_MAX)
    return PAGE if found is None else int(found)
