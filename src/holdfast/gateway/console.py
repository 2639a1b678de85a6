"""
The console: pages for people.

    GET  /                      the sessions, and a box to open or start one
    GET  /open?key=             goes to the session of that key
    GET  /sessions/{key}        one conversation; a session begins with its first message
    GET  /sessions/{key}/live   what happens in it, for its page (`_console_live`)
    POST /login  /logout        the token for a cookie, and the end of it

A page sends and cancels through the same interface as everybody (`/v1`).
"""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from holdfast._core import keys
from holdfast.errors import BadRequestError, InputError, NotFoundError
from holdfast.gateway import _console_live, bodies, problems, sse
from holdfast.gateway import _console_pages as pages
from holdfast.gateway._console_static import Files
from holdfast.gateway.guard import COOKIE, cookie_value
from holdfast.gateway.paths import key_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

    from holdfast.gateway.app import Gateway

__all__ = ["routes", "static"]

SHOWN: Final = 100  #: Entries of a conversation at first; a link doubles them,
SHOWN_MAX: Final = 1_600  #: up to here: a browser has to lay them out.
SESSIONS_SHOWN_MAX: Final = 200
LOGIN_BYTES_MAX: Final = 8_192
COOKIE_LASTS_S: Final = 30 * 24 * 3600
_HERE: Final = os.path.dirname(__file__)


class _Login(msgspec.Struct, forbid_unknown_fields=True):
    token: str


def routes() -> list[Route]:
    return [
        Route("/", listed, methods=["GET"]),
        Route("/open", opened, methods=["GET"]),
        Route("/sessions/{key}", conversation, methods=["GET"]),
        Route("/sessions/{key}/live", live, methods=["GET"]),
        Route("/login", login_page, methods=["GET"]),
        Route("/login", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
    ]


def static() -> ASGIApp:
    return Files(os.path.join(_HERE, "static"))


# ---------------------------------------------------------------------- in and out


async def login_page(request: Request) -> Response:
    return _go_to("/") if request.scope["authorized"] else pages.login("/")


async def login(request: Request) -> Response:
    """The token, as a form or as ``{"token"}``, for a cookie that is derived from it."""
    gateway: Gateway = request.app.state.gateway
    body = await bodies.read(request, LOGIN_BYTES_MAX)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        given = bodies.decode(body, _Login).token
        if not _is_token(given, gateway.token):
            raise problems.UnauthorizedError
        return _with_cookie(Response(status_code=204), gateway.token)
    form = parse_qs(body.decode("utf-8", "replace"))
    going_to = _ours(form.get("going_to", ["/"])[0])
    if not _is_token(form.get("token", [""])[0].strip(), gateway.token):
        return pages.login(going_to, wrong=True)
    return _with_cookie(_go_to(going_to), gateway.token)


async def logout(request: Request) -> Response:
    del request
    answer = _go_to("/")
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer


def _is_token(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _with_cookie(answer: Response, token: str) -> Response:
    answer.set_cookie(
        COOKIE, cookie_value(token), COOKIE_LASTS_S, path="/", httponly=True, samesite="strict"
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _ours(path: str) -> str:
    """*path* if it is a page's; a form may hold anything."""
    is_page = path.startswith("/sessions/") and path.isascii() and path.isprintable()
    return path if is_page and "\\" not in path else "/"


def _go_to(path: str) -> Response:
    return Response(status_code=303, headers={**pages.HEADERS, "Location": path})


# ------------------------------------------------------------------------- sessions


async def listed(request: Request) -> Response:
    if not request.scope["authorized"]:
        return pages.login("/")
    return await _sessions_page(request)


async def opened(request: Request) -> Response:
    """To the page of a session that may not be there yet; or back, with what is wrong."""
    given = request.query_params.get("key", "").strip()
    try:
        key = keys.canonical(given)
    except InputError as error:
        return await _sessions_page(request, given=given, error=error)
    return _go_to(f"/sessions/{pages.path_of(key)}")


async def _sessions_page(
    request: Request, *, given: str = "", error: InputError | None = None
) -> Response:
    gateway: Gateway = request.app.state.gateway
    found, more = await _newest_sessions(gateway)
    return pages.page(
        "sessions.html",
        200 if error is None else error.status,
        sessions=found,
        more=more,
        agents=sorted(gateway.agents),
        given=given,
        error=error,
    )


async def _newest_sessions(gateway: Gateway) -> tuple[list[dict[str, Any]], bool]:
    """The newest sessions first, and whether there are others."""
    page = await gateway.hf.store.control.sessions(newest_first=True)
    found = [
        {
            **facts,
            "session_id": session.session_id,
            "agent": session.agent_id,
            "keys": msgspec.json.decode(facts["keys"]),
            "created_at": session.created_at,
        }
        for session, facts in page[:SESSIONS_SHOWN_MAX]
    ]
    return found, len(page) > SESSIONS_SHOWN_MAX


# ----------------------------------------------------------------- one conversation


async def conversation(request: Request) -> Response:
    """
    History from the transcript; the rest comes live, from where the history ends.

    `?last=` shows more of it.
    """
    gateway: Gateway = request.app.state.gateway
    key = keys.canonical(key_of(request))
    asked = bodies.number(request, "last", least=1, most=SHOWN_MAX)
    last = SHOWN if asked is None else int(asked)
    try:
        found = await gateway.hf.entries(key, last=last + 1)
    except NotFoundError:
        return pages.page("session.html", key=key, views=[], after="", earlier=None)
    shown = await _console_live.shown(gateway.hf, found.entries[-last:])
    earlier = None
    if len(found.entries) > last:
        earlier = min(2 * last, SHOWN_MAX) if last < SHOWN_MAX else 0
    return pages.page(
        "session.html",
        key=key,
        views=[view for _, view in shown],
        after=found.next,
        earlier=earlier,
    )


async def live(request: Request) -> Response:
    """The page's stream; `HEAD` only says whether it may be had."""
    gateway: Gateway = request.app.state.gateway
    key = keys.canonical(key_of(request))
    after = request.headers.get("last-event-id") or request.query_params.get("after") or None
    # Before the first byte: afterwards nothing can be refused any more.
    try:
        await gateway.hf.entries(key, after=after, limit=1)
    except NotFoundError:
        if after is not None:
            raise BadRequestError(
                detail="this session is not there any more", hint="load the page again"
            ) from None
    if request.method == "HEAD":
        return Response(status_code=204)
    return sse.stream(_console_live.session_events(gateway.hf, key, after))
