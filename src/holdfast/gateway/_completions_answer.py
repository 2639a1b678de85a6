"""The forms of an answer to `POST /v1/chat/completions`: objects, chunks, usage, errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from holdfast.errors import HoldfastError
from holdfast.gateway.problems import BadFieldError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SupersededError", "chunk", "completion", "openai_error", "unanswered", "usage"]

#: Outcomes that are an answer.  A deliberate silence is one: it has no text.
_ANSWERS: Final = frozenset({"replied", "silent", "merged"})

_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


@dataclass(kw_only=True, eq=False)
class TurnEndedError(HoldfastError):
    """The turn was accepted and ended without an answer.  Asking again is another turn."""

    turn_id: str
    outcome: str
    reason: str | None
    attempts: int

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason and self.reason != self.outcome else ""
        return f"turn {self.turn_id} ended without an answer, {self.outcome}{why}"


class TurnFailedError(TurnEndedError):
    """What answers behind this door failed."""

    code: ClassVar[str] = "turn_failed"
    status: ClassVar[int] = 502


class TurnCancelledError(TurnEndedError):
    """Somebody cancelled it."""

    code: ClassVar[str] = "turn_cancelled"
    status: ClassVar[int] = 409


class TurnRefusedError(TurnEndedError):
    """It was refused, after it had been accepted."""

    code: ClassVar[str] = "turn_refused"
    status: ClassVar[int] = 409


@dataclass(kw_only=True, eq=False)
class SupersededError(HoldfastError):
    """Another attempt has begun after the first one's text went out in this stream."""

    code: ClassVar[str] = "attempt_superseded"

    turn_id: str
    hint: str = "the turn goes on: GET /v1/turns/{id} tells how it ends"

    def __str__(self) -> str:
        return f"turn {self.turn_id}: another attempt has begun, and what was streamed is void"


_UNANSWERED: Final = {"cancelled": TurnCancelledError, "refused": TurnRefusedError}


def unanswered(outcome: Mapping[str, Any]) -> TurnEndedError | None:
    """The error that the *outcome* of a turn is; None: it is an answer."""
    kind = outcome["outcome"]
    if kind in _ANSWERS:
        return None
    return _UNANSWERED.get(kind, TurnFailedError)(
        turn_id=outcome["turn_id"],
        outcome=kind,
        reason=outcome["reason"],
        attempts=outcome["attempts"],
        hint=outcome["hint"] or "",
    )


def completion(head: Mapping[str, Any], text: str, used: Mapping[str, Any]) -> dict[str, Any]:
    """A whole answer."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {**head, "choices": [choice], "usage": used}


def chunk(
    head: Mapping[str, Any], delta: Mapping[str, Any], *, finish: str | None = None
) -> dict[str, Any]:
    """A piece of a streamed one."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {**head, "choices": [choice]}


def usage(used: Mapping[str, Any] | None) -> dict[str, Any]:
    """Tokens as that door counts them, from a reply's `usage`; zeros if it has none."""
    names = ("input", "cacheRead", "cacheWrite", "output")
    fresh, read, written, output = (int((used or {}).get(name) or 0) for name in names)
    prompt = fresh + read + written
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": read},
    }


def openai_error(error: HoldfastError, **more: Any) -> dict[str, Any]:
    """The `error` member that the clients of that door look for."""
    hint = f" ({error.hint})" if error.hint else ""
    other = "server_error" if error.status >= 500 else "invalid_request_error"
    param = error.name if isinstance(error, BadFieldError) else getattr(error, "param", None)
    return {
        "message": f"{error}{hint}",
        "type": _TYPES.get(error.status, other),
        "param": param,
        "code": error.code,
        **more,
    }
