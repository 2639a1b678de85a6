"""
What a provider's failure means for the turn that met it.

Until there is a second candidate to fail over to, there are two answers: try the same
model again inside the same run, or end the turn.  The decision looks at the reason alone,
and a reason comes from the exception's type and status, never from its text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "PROVIDER_REASONS",
    "REASONS",
    "RETRY_AFTER_MAX_S",
    "Reason",
    "backoff_s",
    "may_retry",
    "reason_of_status",
]

#: Longest Retry-After that is waited out inside a run (the founding system's cap as well).
RETRY_AFTER_MAX_S: Final = 60.0
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class Reason:
    retry: bool  #: May the same model be asked again in this run?
    hint: str


REASONS: Final[dict[str, Reason]] = {
    "auth": Reason(retry=False, hint="check the provider's API key"),
    "bad_request": Reason(
        retry=False, hint="the provider refused the request; see its message"
    ),
    "context_overflow": Reason(
        retry=False,
        hint="the conversation is longer than the model's context: start a new session or"
        " use a model with a larger one",
    ),
    "output_limit": Reason(
        retry=False,
        hint="the model came to the limit of its output before it had answered: raise that"
        " limit, or ask for less at once",
    ),
    "quota": Reason(retry=False, hint="the provider's quota is used up; see your plan"),
    "rate_limit": Reason(retry=True, hint="the provider limits requests; send again later"),
    "server_error": Reason(retry=True, hint="the provider failed; send again later"),
    "connection": Reason(retry=True, hint="the connection to the provider was lost"),
    "timeout": Reason(retry=True, hint="the provider did not answer in time"),
    "truncated": Reason(retry=True, hint="the provider ended its answer without a finish"),
    "bad_reply": Reason(retry=True, hint="the provider sent something that is not an answer"),
    "content_filter": Reason(
        retry=False, hint="the provider's content filter withheld the answer"
    ),
    "agent_error": Reason(retry=False, hint="the agent itself failed; see the log"),
}


#: Those that are a provider's doing; the agent's own code is nobody else's.
PROVIDER_REASONS: Final = frozenset(REASONS) - {"agent_error"}


def reason_of_status(status: int) -> str:
    """The reason that an HTTP status alone stands for."""
    if status in {401, 403}:
        return "auth"
    if status == 429:
        return "rate_limit"
    if 400 <= status < 500:
        return "bad_request"
    return "server_error"


def may_retry(
    reason: str, *, attempt: int, attempts_max: int, retry_after_s: float | None
) -> bool:
    """Whether attempt number *attempt*, which just failed, may be followed by another."""
    if not REASONS[reason].retry or attempt >= attempts_max:
        return False
    return retry_after_s is None or retry_after_s <= RETRY_AFTER_MAX_S


def backoff_s(*, attempt: int, retry_after_s: float | None, chance: float) -> float:
    """
    Seconds to wait before the attempt after *attempt*.

    Args:
        attempt: the number of the one that failed, from 1.
        retry_after_s: what the provider asked for; honoured as it is.
        chance: uniform in [0, 1), so that many sessions do not return together.
    """
    if retry_after_s is not None:
        return retry_after_s
    bound = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** (attempt - 1))
    return bound * (0.5 + chance / 2)
