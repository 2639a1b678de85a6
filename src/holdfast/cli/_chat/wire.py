"""
What can go wrong between a chat and its server, and the client that is used.

Errors are told apart by the types of their causes and by the codes in problem documents.  No
message here holds a header, and so no token.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlsplit

import httpx2
import msgspec

from holdfast.errors import (
    BadRequestError,
    CoordinationError,
    HoldfastError,
    InputError,
    StoreError,
    WireError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "BadTokenError", "NoServerError", "RefusedBusyError", "RefusedByServerError",
    "RefusedError",
    "RefusedInputError", "TransientError", "base_url", "client", "is_loopback", "no_server",
    "refused",
]  # fmt: skip

CONNECT_S: Final = 10.0
#: The server breaks its silence every 15 s; after three of those the connection is dead.
SILENT_S: Final = 45.0
_BUSY: Final = frozenset({"queue_full", "rejected", "deadlock"})
_UNREACHED: Final = (ConnectionRefusedError, FileNotFoundError)


@dataclass(kw_only=True, eq=False)
class NoServerError(WireError):
    """Nothing that answers, or nothing that we may talk to, is at this url."""

    code: ClassVar[str] = "no_server"

    url: str

    def __str__(self) -> str:
        return f"{self.url}: {self.detail}"


@dataclass(kw_only=True, eq=False)
class BadTokenError(InputError):
    code: ClassVar[str] = "unauthorized"
    status: ClassVar[int] = 401

    url: str
    given: bool  #: Whether there was a token at all.

    def __str__(self) -> str:
        what = "does not take this token" if self.given else "wants a token, and none was given"
        return f"{self.url} {what}"


@dataclass(kw_only=True, eq=False)
class RefusedError(HoldfastError):
    """What a server has refused, by its problem document."""

    code: ClassVar[str] = "refused"

    said: str  #: The code in the document.
    detail: str

    def __str__(self) -> str:
        return self.detail

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "code": self.said}


@dataclass(kw_only=True, eq=False)
class RefusedInputError(RefusedError, InputError):
    """…because of what was sent."""


@dataclass(kw_only=True, eq=False)
class RefusedByServerError(RefusedError):
    """…because of the server's state: exit code as that of the code it gave."""


@dataclass(kw_only=True, eq=False)
class RefusedBusyError(RefusedByServerError, CoordinationError):
    """…because the session or the server is busy."""


@dataclass(kw_only=True, eq=False)
class TransientError(RefusedByServerError):
    """It may well answer the same request in a moment."""

    exit_code: ClassVar[int] = StoreError.exit_code

    after_s: float | None = None


# ------------------------------------------------------------------------------- the url


def base_url(given: str) -> str:
    """
    *given*, checked, without a slash at its end.

    Raises:
        BadRequestError: not a url of ours.  Never repeats what stands before an ``@``.
    """
    hint = "give it as http://host:port or https://host"
    try:
        parts = urlsplit(given)
        bad = parts.scheme not in {"http", "https"} or not parts.hostname
        _ = parts.port
    except ValueError:
        bad, parts = True, urlsplit("")
    if "@" in given:
        raise BadRequestError(
            detail="a url with a user or a password in it is not taken",
            hint="give the token with HOLDFAST_TOKEN or --token",
        )
    if bad or parts.query or parts.fragment:
        raise BadRequestError(detail=f"{given[:80]!r} is not the url of a server", hint=hint)
    return given.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether *url* leads to this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def client(url: str, token: str | None) -> httpx2.AsyncClient:
    """
    A client of the server at *url*.  Follows no redirect: the token stays where it was meant
    to go.
    """
    headers = {"Accept": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return httpx2.AsyncClient(
        headers=headers,
        timeout=httpx2.Timeout(SILENT_S, connect=CONNECT_S),
        trust_env=not is_loopback(url),  # A proxy does not lead back here.
        follow_redirects=False,
    )


# -------------------------------------------------------------------------------- errors


def no_server(error: httpx2.HTTPError, url: str) -> NoServerError:
    """What a failed connection means.  To be raised `from` it."""
    causes = list(_causes(error))
    host = urlsplit(url).hostname
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return NoServerError(
            url=url, detail=f"there is no host {host!r}", hint="is the name right?"
        )
    if tls := next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None):
        why = tls.reason or type(tls).__name__
        hint = "is it an http:// server, or one with a certificate that is not trusted here?"
        return NoServerError(url=url, detail=f"no secure connection ({why})", hint=hint)
    if any(isinstance(cause, _UNREACHED) for cause in causes):
        return NoServerError(
            url=url,
            detail="nobody listens there",
            hint="start one with: holdfast serve; or leave --url out to chat without a server",
        )
    kind = type(error).__name__
    detail = "it does not answer" if isinstance(error, httpx2.TimeoutException) else kind
    return NoServerError(url=url, detail=detail, hint="is a Holdfast server there?")


def refused(response: httpx2.Response, url: str, *, has_token: bool) -> HoldfastError:
    """The error that an answer of 300 or more stands for; its body must have been read."""
    if response.status_code == 401:
        hint = "give it with HOLDFAST_TOKEN or --token; it stands in the server's gateway.token"
        return BadTokenError(url=url, given=has_token, hint=hint)
    document = _problem(response)
    if document is not None:
        return _refusal(response, document)
    if response.status_code in {502, 503, 504}:  # What stands before the server says so.
        detail = f"{url} answers {response.status_code} for now"
        return TransientError(said="bad_gateway", detail=detail)
    return NoServerError(
        url=url,
        detail=f"what answers there (HTTP {response.status_code}) is not Holdfast",
        hint="is the url right?",
    )


def _refusal(response: httpx2.Response, document: dict[str, Any]) -> RefusedError:
    code = str(document.get("code", "unknown"))
    told = {
        "said": code,
        "detail": str(document.get("detail", code)),
        "hint": str(document.get("hint", "")),
    }
    if response.status_code == 503:
        return TransientError(**told, after_s=_retry_after(response))
    if code in _BUSY:
        return RefusedBusyError(**told)
    if 400 <= response.status_code < 500:
        return RefusedInputError(**told)
    return RefusedByServerError(**told)


def _problem(response: httpx2.Response) -> dict[str, Any] | None:
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/problem+json":
        return None
    try:
        found = msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict) else None


def _retry_after(response: httpx2.Response) -> float | None:
    said = response.headers.get("retry-after", "")
    return float(said) if said.isascii() and said.isdecimal() and len(said) < 6 else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """*error* and everything that led to it."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [e for e in (each.__cause__, each.__context__) if e is not None]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
