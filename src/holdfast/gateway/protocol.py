"""
Connections: how many there may be, and how long one may take to say what it wants.

uvicorn bounds neither the number of open connections nor the time until a request is whole;
this subclass of its protocol does.  What cannot be read as HTTP gets a problem document too.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from holdfast.errors import BadRequestError
from holdfast.gateway import problems

if TYPE_CHECKING:
    import asyncio

__all__ = ["HEAD_BYTES_MAX", "HEAD_TIMEOUT_S", "bounded"]

HEAD_BYTES_MAX: Final = 32_768
HEAD_TIMEOUT_S: Final = 10.0


def bounded(
    connections_max: int, head_timeout_s: float = HEAD_TIMEOUT_S
) -> type[asyncio.Protocol]:
    """
    uvicorn's protocol, with bounds.

    Args:
        connections_max: one more than these is closed at once.
        head_timeout_s: a connection whose request's head is not whole by then is closed.
    """
    bounds = {"connections_max": connections_max, "head_timeout_s": head_timeout_s}
    return type("Bounded", (_BoundedProtocol,), bounds)


class _BoundedProtocol(H11Protocol):
    connections_max: int
    head_timeout_s: float

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.connections_max:
            transport.abort()  # Who is in is served; who comes now may come again.
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def _watch_head(self) -> None:
        """A request that has begun to come must be whole in time; a served one may last."""
        begun = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if begun:
            self._expect_head()
        else:
            self._head_is_here()

    def _expect_head(self) -> None:
        if self._overdue is None:
            self._overdue = self.loop.call_later(self.head_timeout_s, self._give_up)

    def _head_is_here(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _give_up(self) -> None:
        self._overdue = None
        if not self.transport.is_closing():
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Not HTTP, or a head beyond the bound."""
        answer = problems.problem(
            BadRequestError(detail=msg, hint=f"a head has at most {HEAD_BYTES_MAX} bytes")
        )
        headers = [*answer.raw_headers, (b"connection", b"close")]
        head = h11.Response(
            status_code=400, headers=headers, reason=HTTPStatus.BAD_REQUEST.phrase.encode()
        )
        for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
