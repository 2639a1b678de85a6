"""
Errors over HTTP: problem documents (RFC 9457), made from the one error tree.

`status` stands on the error class (interfaces 2); what only HTTP can get wrong has its own
classes here.  Nothing of an unexpected error leaves the process but that it happened.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec
from starlette.responses import Response

from holdfast.errors import (
    CoordinationError,
    DrainingError,
    HoldfastError,
    InputError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BadFieldError",
    "ForbiddenError",
    "MethodNotAllowedError",
    "NoSuchPathError",
    "RequestTimeoutError",
    "TooManyHeadersError",
    "TurnFailedError",
    "UnauthorizedError",
    "document",
    "problem",
    "unexpected",
]

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1
RETRY_AFTER_DRAIN_S: Final = 5  #: A restart takes longer than a queue's next turn.


@dataclass(kw_only=True, eq=False)
class UnauthorizedError(InputError):
    """No token, or not ours."""

    code: ClassVar[str] = "unauthorized"
    status: ClassVar[int] = 401
    hint: str = "send the header Authorization: Bearer TOKEN; the token stands in gateway.token"

    def __str__(self) -> str:
        return "this needs the server's token"


@dataclass(kw_only=True, eq=False)
class ForbiddenError(InputError):
    """A browser was led here by another site."""

    code: ClassVar[str] = "forbidden"
    status: ClassVar[int] = 403

    header: str
    value: str
    hint: str = "name it in gateway.allowed_hosts if it is yours"

    def __str__(self) -> str:
        return f"{self.header}: {self.value!r} is not a name of this server"


@dataclass(kw_only=True, eq=False)
class NoSuchPathError(InputError):
    code: ClassVar[str] = "no_such_path"
    status: ClassVar[int] = 404

    hint: str = "see /openapi.json"

    def __str__(self) -> str:
        return "there is nothing at this path"


@dataclass(kw_only=True, eq=False)
class MethodNotAllowedError(InputError):
    code: ClassVar[str] = "method_not_allowed"
    status: ClassVar[int] = 405

    allowed: str
    hint: str = "see /openapi.json"

    def __str__(self) -> str:
        return f"this path takes {self.allowed}"


@dataclass(kw_only=True, eq=False)
class RequestTimeoutError(InputError):
    """The request's body did not arrive in time."""

    code: ClassVar[str] = "request_timeout"
    status: ClassVar[int] = 408

    timeout_s: float

    def __str__(self) -> str:
        return f"the body did not arrive within {self.timeout_s:g} s"


@dataclass(kw_only=True, eq=False)
class BadFieldError(InputError):
    """A field is unknown, missing or of the wrong form."""

    code: ClassVar[str] = "bad_field"

    name: str  #: The field, as a path: ``text``, ``messages[0].role``, ``?wait``.
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


@dataclass(kw_only=True, eq=False)
class TooManyHeadersError(InputError):
    code: ClassVar[str] = "too_many_headers"
    status: ClassVar[int] = 431

    limit: int

    def __str__(self) -> str:
        return f"more than {self.limit} header fields"


@dataclass(kw_only=True, eq=False)
class TurnFailedError(HoldfastError):
    """The message was accepted, and its turn ended because the model's provider failed."""

    code: ClassVar[str] = "provider_failed"
    status: ClassVar[int] = 502

    turn_id: str
    session_id: str
    outcome: str
    reason: str | None
    attempts: int

    def __str__(self) -> str:
        return f"turn {self.turn_id} ended: {self.outcome} ({self.reason})"


def document(error: HoldfastError) -> dict[str, Any]:
    """The problem document of *error*: RFC 9457's members, then code, hint and its fields."""
    own = {f.name: getattr(error, f.name) for f in fields(error)}
    return {
        "type": f"urn:holdfast:problem:{error.code}",
        "title": error.code.replace("_", " ").capitalize(),
        "status": error.status,
        "detail": str(error),
        "code": error.code,
        **{name: value for name, value in own.items() if name != "detail"},
    }


def problem(error: HoldfastError, *, more: Mapping[str, Any] | None = None) -> Response:
    """The answer that *error* gets.  *more*: further members, for who expects them."""
    headers = {}
    if isinstance(error, DrainingError):
        headers["Retry-After"] = str(RETRY_AFTER_DRAIN_S)
    elif isinstance(error, CoordinationError | UnavailableError) and error.status in {429, 503}:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowedError):
        headers["Allow"] = error.allowed
    body = msgspec.json.encode({**document(error), **(more or {})}, enc_hook=str)
    return Response(body, error.status, headers, MEDIA_TYPE)


def unexpected() -> Response:
    """What a bug looks like from outside."""
    body = {
        "type": "urn:holdfast:problem:bug",
        "title": "Bug",
        "status": 500,
        "detail": "this server made a mistake; its log says which",
        "code": "bug",
        "hint": "what was accepted is not lost: ask for the turn",
    }
    return Response(msgspec.json.encode(body), 500, media_type=MEDIA_TYPE)
