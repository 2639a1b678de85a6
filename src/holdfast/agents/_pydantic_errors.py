"""
What an exception out of pydantic-ai means.  Imports it: import this only where it is used.

The reason comes from the exception's type and HTTP status, never from its text.  The text is
shown to a person, cut, and without anything that looks like a key; an authentication error
shows none at all, because providers like to quote the key they refuse.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pydantic_ai import exceptions as theirs

from holdfast._core.failover import REASONS, reason_of_status
from holdfast.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["failure", "provider_error", "unreadable"]

DETAIL_CHARS_MAX: Final = 300

#: First match wins: subclasses stand before their superclasses.
_REASONS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (theirs.ModelAuthenticationError, "auth"),
    (theirs.ModelContextWindowExceededError, "context_overflow"),
    (theirs.ModelRequestRejectedError, "bad_request"),
    (theirs.ModelQuotaExceededError, "quota"),
    (theirs.ModelRateLimitError, "rate_limit"),
    (theirs.ModelUnavailableError, "server_error"),
    (theirs.ModelServerError, "server_error"),
    (theirs.ModelTimeoutError, "timeout"),
    (theirs.ModelRequestTimeout, "timeout"),
    (theirs.ModelConnectionError, "connection"),
    (theirs.ContentFilterError, "content_filter"),
    (theirs.OutputTokenLimitExceeded, "output_limit"),
    (theirs.UnexpectedModelBehavior, "bad_reply"),
)
#: By the provider's own type, for errors inside a stream: they have no status.
_TYPES: Final = {"invalid_request_error": "bad_request"}
#: What an adapter raises over JSON that is not what the provider's interface says.
_MISFITS: Final = (ValueError, TypeError, LookupError, AttributeError, AssertionError)
_SECRET: Final = re.compile(
    r"(?i)\b(?:bearer\s+\S+|(?:sk|pk|rk|key|api[-_]?key)[-_=:]\s*[\w*.-]{6,}|[\w-]{32,})"
)


def failure(reason: str, detail: str, **fields: Any) -> ProviderError:
    return ProviderError(reason=reason, detail=detail, hint=REASONS[reason].hint, **fields)


def provider_error(error: BaseException) -> ProviderError | None:
    """The provider's failure that *error* is; None if it is somebody else's."""
    if isinstance(error, theirs.FallbackExceptionGroup):
        return _of_all(error)
    if not isinstance(error, theirs.ModelAPIError | theirs.UnexpectedModelBehavior):
        return None
    reason = _reason(error)
    status = error.status_code if isinstance(error, theirs.ModelHTTPError) else None
    # An error inside an open stream has no status; pydantic-ai lends it one.
    in_stream = isinstance(error, theirs.ModelAPIError) and error.in_stream
    return failure(
        reason,
        _detail(error, reason),
        http_status=None if in_stream else status,
        retry_after_s=getattr(error, "retry_after", None),
    )


def unreadable(error: Exception) -> ProviderError | None:
    """A bare *error* from under a request as a `bad_reply`; None if it is of another kind."""
    if not isinstance(error, _MISFITS):
        return None
    said = _SECRET.sub("[hidden]", " ".join(str(error).split()))[:DETAIL_CHARS_MAX]
    return failure("bad_reply", f"the answer cannot be read: {type(error).__name__}: {said}")


def _reason(error: theirs.AgentRunError) -> str:
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    if isinstance(error, theirs.ModelHTTPError):
        return reason_of_status(error.status_code)
    if isinstance(error, theirs.ModelAPIError) and error.in_stream:
        return _TYPES.get(error.provider_error_type or "", "server_error")
    # What is left are bodies that the SDK could not read as an answer.
    return "bad_reply"


def _of_all(group: theirs.FallbackExceptionGroup) -> ProviderError | None:
    """Every model of a fallback chain failed: the one that asking again may mend counts."""
    errors = [found for each in _leaves(group) if (found := provider_error(each)) is not None]
    return next((e for e in errors if REASONS[e.reason].retry), errors[-1] if errors else None)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for each in error.exceptions:
        yield from _leaves(each)


def _detail(error: theirs.AgentRunError, reason: str) -> str:
    code = getattr(error, "provider_error_code", None)
    code = code or getattr(error, "provider_error_type", None)
    if reason == "auth":
        said = "the provider refused the credentials"
    else:
        said = _SECRET.sub("[hidden]", _message(error))[:DETAIL_CHARS_MAX]
    return f"{said} ({code})" if code else said


def _message(error: theirs.AgentRunError) -> str:
    """What the provider said, out of the JSON around it: OpenAI's SDK takes one layer off."""
    body = getattr(error, "body", None)
    for found in (body, body.get("error") if isinstance(body, dict) else None):
        if isinstance(found, dict) and isinstance(found.get("message"), str):
            return str(found["message"])
    return " ".join(error.message.split()) or type(error).__name__
