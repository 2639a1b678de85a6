"""
HTML: the templates, the headers that every page has, and an error as a page.

Rules
-----
1. Whatever a user, a model or a tool said reaches a page through autoescaping, as text.
2. Were that to fail, the policy stands behind it: no script and no style but our own files.
3. A page is never stored: it shows a private conversation.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import Headers
from starlette.responses import Response

from holdfast.gateway import problems

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Scope

    from holdfast.errors import HoldfastError

__all__ = ["fragment", "is_wanted", "login", "page", "path_of", "refusal"]

#: `same-origin` and not `no-referrer`: under the latter a browser sends `Origin: null` with
#: our own forms, and the guard refuses what does not say where it comes from.
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_OURS: Final = frozenset({"/", "/login", "/logout", "/open"})
_OURS_BELOW: Final = "/sessions/"

_templates = Environment(
    loader=FileSystemLoader(os.path.join(os.path.dirname(__file__), "templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)


def path_of(key: str) -> str:
    """A session key as a part of a path."""
    return quote(key, safe="")


_templates.filters["path"] = path_of


def page(
    template: str, status: int = 200, headers: Mapping[str, str] | None = None, /, **known: Any
) -> Response:
    """A whole page."""
    body = _templates.get_template(template).render(known)
    return Response(body, status, {**HEADERS, **(headers or {})}, "text/html")


def fragment(template: str, /, **known: Any) -> str:
    """A part of a page, made by the template that makes it inside the page."""
    return _templates.get_template(template).render(known)


def is_wanted(scope: Scope) -> bool:
    """Whether the request is a browser's that goes to one of the console's pages."""
    path = scope["path"]
    if path not in _OURS and not path.startswith(_OURS_BELOW):
        return False
    return "text/html" in Headers(scope=scope).get("accept", "")


def login(going_to: str, *, wrong: bool = False) -> Response:
    """The page that asks for the token; *going_to* is a path of ours."""
    challenge = {"WWW-Authenticate": "Bearer"}
    return page("login.html", 401, challenge, going_to=going_to, wrong=wrong)


def refusal(error: HoldfastError, scope: Scope) -> Response:
    """What a browser is shown instead of the problem document of *error*."""
    if isinstance(error, problems.UnauthorizedError):
        return login(scope["path"])
    told = problems.document(error)
    headers = {
        name: value
        for name, value in problems.problem(error).headers.items()
        if name in {"allow", "retry-after"}
    }
    return page("error.html", error.status, headers, problem=told)
