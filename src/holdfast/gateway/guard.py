"""
What every request passes before a handler sees it, and every error on its way out.

Rules
-----
1. The path is matched as it was sent, percent-encoding and all, so that an encoded slash is
   part of a key; handlers decode what they take from it.
2. A browser may be led here by any site: `Host` must be a name of ours (DNS rebinding), and
   `Origin`, where there is one, too (cross-site requests).
3. The token is compared in constant time.  The console's cookie is derived from it and is
   only good together with rule 2.
4. Whatever a handler raises becomes a problem document.  A client that takes nothing for
   STALLED_S loses its connection.
5. Nothing that is logged here holds a header or a query.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from holdfast.errors import HoldfastError
from holdfast.gateway import _console_pages, problems
from holdfast.gateway._completions_answer import openai_error

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from holdfast._core.settings import Settings

__all__ = ["COOKIE", "Guard", "cookie_value", "is_loopback", "on_bug", "on_error", "refused"]

HEADERS_MAX: Final = 100
STALLED_S: Final = 60.0
COOKIE: Final = "holdfast"
_OPEN: Final = frozenset({"/", "/healthz", "/readyz", "/login"})
#: Below these everybody may ask; whoever posts to a hook must sign what he posts.
_OPEN_BELOW: Final = ("/static/", "/v1/hooks/")
_OPENAI: Final = frozenset({"/v1/chat/completions", "/v1/models"})  #: Its clients' errors.
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

_log = logging.getLogger("holdfast.gateway")


class Guard:
    """ASGI middleware, the outermost."""

    def __init__(self, app: ASGIApp, settings: Settings, token: str) -> None:
        self._app, self._token = app, token.encode()
        self._cookie = cookie_value(token)
        own = (settings.gateway_host, *settings.gateway_allowed_hosts)
        self._hosts = _LOOPBACK | {name.lower() for name in own}
        self._any_host = not is_loopback(settings.gateway_host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        sending = _Sending(send)
        began_s = time.monotonic()
        scope = {**scope, "path": scope["raw_path"].decode("ascii"), "root_path": ""}
        try:
            self._check(scope)
            await self._app(scope, receive, sending)
        except _Stalled:
            _log.warning("%s %s: its client takes nothing", scope["method"], scope["path"])
            return
        except (HoldfastError, HTTPException) as error:
            await self._refuse(error, scope, receive, sending)
        except Exception:  # noqa: BLE001  A bug ends in a problem document too.
            if sending.stalled:
                return
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if sending.status is None:
                await problems.unexpected()(scope, receive, sending)
        took_ms = (time.monotonic() - began_s) * 1000
        _log.info(
            "%s %s %s %.1f ms", scope["method"], scope["path"], sending.status or "-", took_ms
        )

    async def _refuse(
        self,
        error: HoldfastError | HTTPException,
        scope: Scope,
        receive: Receive,
        send: _Sending,
    ) -> None:
        if send.status is not None:  # Half an answer is out: the rest cannot be taken back.
            _log.warning("%s %s broke off: %s", scope["method"], scope["path"], error)
            raise error
        await refused(error, scope)(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if len(scope["headers"]) > HEADERS_MAX:
            raise problems.TooManyHeadersError(limit=HEADERS_MAX)
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise problems.ForbiddenError(header="Host", value=host[:80])
        origin = headers.get("origin")
        if origin is not None and not self._is_own_origin(origin, host):
            raise problems.ForbiddenError(header="Origin", value=origin[:80])
        scope["authorized"] = self._is_authorized(headers)
        path = scope["path"]
        if not (scope["authorized"] or path in _OPEN or path.startswith(_OPEN_BELOW)):
            raise problems.UnauthorizedError

    def _is_ours(self, host: str) -> bool:
        return self._any_host or _name(f"//{host}") in self._hosts

    def _is_own_origin(self, origin: str, host: str) -> bool:
        if origin.partition("://")[2] == host:
            return True
        return _name(origin) in self._hosts - _LOOPBACK

    def _is_authorized(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme:
            ours = hmac.compare_digest(given.strip().encode(), self._token)
            return ours and scheme.lower() == "bearer"
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(
            cookie.value.encode(), self._cookie.encode()
        )


def cookie_value(token: str) -> str:
    """What the console's cookie holds: derived, so that a stolen cookie tells no token."""
    return hmac.new(token.encode(), b"holdfast console", hashlib.sha256).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach *host*."""
    return host in _LOOPBACK or (host.startswith("127.") and host.count(".") == 3)


def refused(error: HoldfastError | HTTPException, scope: Scope) -> Response:
    """The problem document, or for people the page, for what a route or a handler raised."""
    if isinstance(error, HTTPException):
        allowed = (error.headers or {}).get("Allow", "another method")
        error = (
            problems.MethodNotAllowedError(allowed=allowed)
            if error.status_code == 405
            else problems.NoSuchPathError()
        )
    if error.status >= 500:
        _log.warning("%s: %s", error.code, error)
    if _console_pages.is_wanted(scope):
        return _console_pages.refusal(error, scope)
    more = {"error": openai_error(error)} if scope["path"] in _OPENAI else None
    return problems.problem(error, more=more)


async def on_error(request: Request, error: Exception) -> Response:
    """For Starlette, which would answer its own errors in plain text."""
    assert isinstance(error, HoldfastError | HTTPException)
    return refused(error, request.scope)


async def on_bug(request: Request, error: Exception) -> Response:
    """For Starlette: the answer to a mistake of ours.  It raises it again, for the log."""
    del request, error
    return problems.unexpected()


def _name(address: str) -> str | None:
    """The host name in ``scheme://name:port`` or ``//name:port``."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


class _Stalled(Exception):  # noqa: N818
    """The client took nothing for STALLED_S."""


class _Sending:
    """`send`, with a bound, and with a memory of what went out."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None
        self.stalled = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        try:
            async with asyncio.timeout(STALLED_S):
                await self._send(message)
        except TimeoutError:
            self.stalled = True
            raise _Stalled from None
