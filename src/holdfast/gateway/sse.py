"""
Server-Sent Events (WHATWG HTML, 9.2): one writer for every stream of ours.

A stream is pulled: the next event is asked for when the client has taken the last one, so a
slow reader costs what one event costs.  Silence is broken by comments, so that a dead
connection is found and a proxy does not close a live one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import StreamingResponse

from holdfast.errors import DrainingError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

__all__ = ["HEADERS", "PING_S", "comment", "event", "stream", "with_pings"]

PING_S: Final = 15.0
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_PING: Final = b": still here\n\n"


def event(kind: str, data: Any, event_id: str | None = None) -> bytes:
    """One event.  *data* becomes JSON, which has no line breaks."""
    numbered = f"id: {event_id}\n" if event_id is not None else ""
    return f"{numbered}event: {kind}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


def comment(text: str) -> bytes:
    return f": {text}\n\n".encode()


def stream(
    events: AsyncGenerator[bytes, None], *, headers: Mapping[str, str] | None = None
) -> StreamingResponse:
    """The answer that carries *events* until they end; `events` is closed in any case."""
    return StreamingResponse(
        with_pings(events, PING_S, lambda: _PING),
        media_type="text/event-stream",
        headers={**HEADERS, **(headers or {})},
    )


async def with_pings(
    events: AsyncGenerator[bytes, None], every_s: float, ping: Callable[[], bytes]
) -> AsyncGenerator[bytes, None]:
    """
    *events*, and after each *every_s* of silence what *ping* says.

    Ends when *events* end, and when this process drains: the client finds another and goes
    on from the last id it has seen.
    """
    coming = asyncio.ensure_future(anext(events))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=every_s)
            if not done:
                yield ping()
                continue
            try:
                data = coming.result()
            except StopAsyncIteration:
                return
            except DrainingError:
                yield comment("draining: go on at another server, or here after the restart")
                return
            coming = asyncio.ensure_future(anext(events))
            yield data
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await events.aclose()
