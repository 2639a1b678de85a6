"""
A signed outgoing webhook: one POST a part, by the Standard Webhooks scheme.

    2xx, or 409 (it had it already)                 delivered
    400 401 403 404 405 410 413 415 422, 3xx        permanent: no later attempt will do
    408 425 429 5xx, no connection                  later again; Retry-After is honoured
    sent, and no answer                             unknown: `ambiguous` decides
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, cast

import httpx2

from holdfast import __version__
from holdfast.channels.signing import sign
from holdfast.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.ports.channels import Ambiguous, Reconciled
    from holdfast.types import Parcel

__all__ = ["Webhook"]

CONNECT_MOST_S: Final = 5.0
RETRY_AFTER_MOST_S: Final = 3_600.0
#: Status → why no later attempt will do.
_PERMANENT: Final = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "bad_request",
    410: "gone",
    413: "too_large",
    415: "bad_request",
    422: "bad_request",
}
_HAD_IT: Final = 409
#: Nothing was sent: there was nobody to send it to.
_NOT_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)

#: A channel's URL may hold a token, and the client logs the URL of every request.
_unlogged: Final = ContextVar("unlogged", default=False)
logging.getLogger("httpx2").addFilter(lambda _record: not _unlogged.get())


class Webhook:
    """
    The `Channel` port as a webhook.  Follows no redirect: it would carry the reply elsewhere.

    Args:
        secrets: each `whsec_…`; what is sent is signed with all of them.
    """

    reconciles = False

    def __init__(
        self,
        name: str,
        url: str,
        secrets: Sequence[str],
        *,
        part_chars: int = 4_000,
        timeout_s: float = 10.0,
        ambiguous: str = "resend",
    ) -> None:
        self.name, self.part_chars_max, self.timeout_s = name, part_chars, timeout_s
        self.ambiguous = cast("Ambiguous", ambiguous)
        self._url, self._secrets = url, tuple(secrets)
        self._client: httpx2.AsyncClient | None = None

    async def deliver(self, parcel: Parcel) -> str | None:
        headers = {
            "content-type": "application/json",
            "idempotency-key": parcel.key,
            "user-agent": f"holdfast/{__version__}",
            **sign(self._secrets, parcel.key, int(time.time()), parcel.body),
        }
        client = self._open()
        try:
            with _unlogged_here():
                async with (
                    asyncio.timeout(self.timeout_s),
                    client.stream(
                        "POST", self._url, content=parcel.body, headers=headers
                    ) as response,
                ):
                    _check(response)  # What it says beyond that is not read.
        except _NOT_SENT as error:
            raise DeliveryError(
                detail=type(error).__name__, reason="unreachable", hint="is it up?"
            ) from error
        except (TimeoutError, httpx2.RequestError) as error:
            raise DeliveryError(
                detail=type(error).__name__, reason="unanswered", landed=None
            ) from error
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise DeliveryError(
                detail="its URL cannot be used", reason="bad_request", permanent=True
            ) from error
        return None

    async def reconcile(self, parcel: Parcel) -> Reconciled:
        """Nothing can be asked of a webhook."""
        del parcel
        return "unknown"

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _open(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(
                timeout=httpx2.Timeout(
                    self.timeout_s, connect=min(CONNECT_MOST_S, self.timeout_s / 2)
                ),
                # A connection that was kept may be closed by the other side just as it is
                # used again; then nobody could tell whether the part has arrived.
                limits=httpx2.Limits(max_keepalive_connections=0),
                follow_redirects=False,
            )
        return self._client


@contextmanager
def _unlogged_here() -> Iterator[None]:
    token = _unlogged.set(True)
    try:
        yield
    finally:
        _unlogged.reset(token)


def _check(response: httpx2.Response) -> None:
    """Raises DeliveryError unless the other side has it."""
    status = response.status_code
    if 200 <= status < 300 or status == _HAD_IT:
        return
    detail = f"HTTP {status}"
    if 300 <= status < 400:
        raise DeliveryError(detail=detail, reason="redirected", permanent=True)
    if status in _PERMANENT:
        raise DeliveryError(detail=detail, reason=_PERMANENT[status], permanent=True)
    reason = {429: "busy", 503: "busy"}.get(
        status, "server_error" if status >= 500 else "failed"
    )
    after_s = _retry_after(response.headers.get("retry-after"))
    raise DeliveryError(detail=detail, reason=reason, retry_after_s=after_s)


def _retry_after(told: str | None) -> float | None:
    """Seconds, of a number or a date; None: not told, or nobody can read it."""
    if told is None:
        return None
    try:
        seconds = float(told)
    except ValueError:
        try:
            at = parsedate_to_datetime(told)
        except (ValueError, OverflowError):  # The latter: a zone beyond all bounds.
            return None
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        seconds = (at - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_MOST_S) if math.isfinite(seconds) else None
