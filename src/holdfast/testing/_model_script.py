"""
What a `ModelServer` is told to do, one step a request, in code or as a line of JSON; and what
it writes down about each request.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, get_args

from holdfast.errors import BadRequestError

__all__ = ["End", "Received", "Step", "read_script"]

#: How an answer ends, after `after` of its tokens:
#: done     a finish reason and the end of the stream, as it should be
#: eof      the response just ends, cleanly, without a finish reason
#: drop     the connection is closed inside the response
#: hang     nothing more, until the client leaves or the server stops
#: garbage  a frame that is not JSON, then the end
End = Literal["done", "eof", "drop", "hang", "garbage"]


@dataclass(frozen=True, slots=True)
class Error:
    status: int
    code: str | None
    kind: str
    message: str


_ERRORS: Final[dict[str, Error]] = {
    "unauthorized": Error(
        401, "invalid_api_key", "invalid_request_error", "Incorrect API key provided."
    ),
    "rate_limit": Error(429, "rate_limit_exceeded", "requests", "Rate limit reached."),
    "quota": Error(
        429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."
    ),
    "server_error": Error(500, None, "server_error", "The server had an error."),
    "unavailable": Error(503, None, "server_error", "The server is unavailable."),
    "context_length": Error(
        400,
        "context_length_exceeded",
        "invalid_request_error",
        "This model's maximum context length is 8192 tokens; your messages have 9001.",
    ),
    "bad_request": Error(400, "invalid_value", "invalid_request_error", "Invalid value."),
}


@dataclass(frozen=True, slots=True)
class Step:
    """
    How one request is answered.  Every field has a default: ``Step()`` is the echo.

    Make the common ones with the constructors, and refine them with `keyed` and `held`:

        Step.reply("Hello", " there").keyed("greet me").held(after=1)
    """

    tokens: tuple[str, ...] | None = None  #: None: the echo, `reply to: <last user text>`.
    delay_s: float | None = None  #: Between two tokens; None: the server's own.
    first_delay_s: float = 0.0  #: Before the first one.
    finish: str = "stop"  #: The finish reason; `tool_calls` comes by itself.
    after: int | None = None  #: Tokens before `end`, or before the gate; None: all.
    end: End = "done"
    tool: str | None = None  #: Ask for this tool, after the tokens.
    arguments: Any = None  #: An object; or a string, sent as it is.
    fragments: int = 3  #: In how many pieces the arguments are sent.
    call_id: str | None = None  #: None: a new one, `call_<n>`.
    error: str | None = None  #: Instead of an answer: a name out of `Step.errors()`.
    retry_after: str | None = None  #: With an error: the Retry-After header, as it is.
    when: str | None = None  #: Only for a request whose last user text contains this.
    repeat: bool = False  #: Not used up by a request.
    gate: threading.Event | None = field(default=None, compare=False)
    reached: threading.Event | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.error is not None and self.error not in _ERRORS:
            raise BadRequestError(
                detail=f"error = {self.error!r}: it is one of {', '.join(_ERRORS)}"
            )
        if self.end not in get_args(End):
            raise BadRequestError(
                detail=f"end = {self.end!r}: it is one of {', '.join(get_args(End))}"
            )

    # ------------------------------------------------------------------- constructors

    @classmethod
    def reply(
        cls,
        *tokens: str,
        delay_s: float | None = None,
        first_delay_s: float = 0.0,
        finish: str = "stop",
    ) -> Step:
        return cls(
            tokens=tokens or None, delay_s=delay_s, first_delay_s=first_delay_s, finish=finish
        )

    @classmethod
    def call(
        cls, tool: str, arguments: Any = None, *, fragments: int = 3, call_id: str | None = None
    ) -> Step:
        """Ask for one tool call, and say nothing."""
        return cls(
            tokens=(),
            tool=tool,
            arguments={} if arguments is None else arguments,
            fragments=fragments,
            call_id=call_id,
        )

    @classmethod
    def fail(cls, error: str, *, retry_after: str | None = None) -> Step:
        """Answer with an HTTP error; *error* is a name out of `Step.errors`."""
        return cls(error=error, retry_after=retry_after)

    @classmethod
    def cut(cls, end: End, *, after: int = 1) -> Step:
        """Begin the echo and come to a bad *end* after some tokens."""
        return cls(end=end, after=after)

    @staticmethod
    def errors() -> tuple[str, ...]:
        """unauthorized, rate_limit, quota, server_error, unavailable, context_length, …"""
        return tuple(_ERRORS)

    # -------------------------------------------------------------------- refinements

    def keyed(self, when: str) -> Step:
        """The same, for requests whose last user text contains *when*."""
        return replace(self, when=when)

    def always(self) -> Step:
        """The same, for every request that it fits."""
        return replace(self, repeat=True)

    def held(self, *, after: int = 1) -> Step:
        """
        The same, stopping after some tokens until the test says so.

        `reached` is set when that many tokens are out, and the next comes after ``gate.set()``.
        """
        return replace(self, after=after, gate=threading.Event(), reached=threading.Event())

    # ------------------------------------------------------------------ for the server

    def http_error(self) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, body and headers of `error`."""
        assert self.error is not None
        found = _ERRORS[self.error]
        body = {
            "message": found.message,
            "type": found.kind,
            "param": None,
            "code": found.code,
        }
        headers = {} if self.retry_after is None else {"retry-after": self.retry_after}
        return found.status, {"error": body}, headers

    def argument_pieces(self) -> list[str]:
        text = self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)
        size = max(1, -(-len(text) // max(1, self.fragments)))
        return [text[at : at + size] for at in range(0, len(text), size)]


_FIELDS: Final[dict[str, tuple[type, ...]]] = {
    "tokens": (list,),
    "delay_s": (int, float),
    "first_delay_s": (int, float),
    "finish": (str,),
    "after": (int,),
    "end": (str,),
    "tool": (str,),
    "arguments": (dict, str),
    "fragments": (int,),
    "call_id": (str,),
    "error": (str,),
    "retry_after": (str, int),
    "when": (str,),
    "repeat": (bool,),
}


def read_script(lines: str, *, name: str) -> list[Step]:
    """
    Read a script: one JSON object a line; empty lines and lines that begin with # are skipped.

    Args:
        lines: the file's content.
        name: the file's name, for the error.

    Raises:
        BadRequestError: names the file, the line, and what is wrong with it.
    """
    steps = []
    for number, line in enumerate(lines.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            steps.append(_step(json.loads(line)))
        except (json.JSONDecodeError, BadRequestError) as error:
            raise BadRequestError(
                detail=f"{name}:{number}: {error}", hint="see: holdfast lab model-server --help"
            ) from error
    return steps


def _step(data: object) -> Step:
    if not isinstance(data, dict):
        raise BadRequestError(detail="a step is a JSON object")
    for key, value in data.items():
        if key not in _FIELDS:
            raise BadRequestError(detail=f"unknown field {key!r} (known: {', '.join(_FIELDS)})")
        kinds = _FIELDS[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise BadRequestError(detail=f"{key} = {value!r}: it is of type {names}")
    if "tokens" in data:
        if not all(isinstance(token, str) for token in data["tokens"]):
            raise BadRequestError(detail="tokens: they are strings")
        data = {**data, "tokens": tuple(data["tokens"])}
    if "tool" in data:
        data = {"tokens": (), "arguments": {}, **data}
    if "retry_after" in data:
        data = {**data, "retry_after": str(data["retry_after"])}
    return Step(**data)


@dataclass(eq=False)
class Received:
    """One request, and how far its answer got.  Written by the server's thread."""

    body: dict[str, Any]
    text: str  #: The last user text.
    retry: str | None  #: What the SDK says of its own retries: its x-stainless-retry-count.
    started_s: float = field(default_factory=time.monotonic)
    tokens_sent: int = 0
    #: done = played to its end, a scripted failure included; aborted = the client left first,
    #: or the server stopped.  None = still under way.
    end: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "body": self.body,
            "text": self.text,
            "started_s": self.started_s,
            "tokens_sent": self.tokens_sent,
            "end": self.end,
        }
