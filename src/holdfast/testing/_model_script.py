"""
What a `ModelServer` is told to do, one step a request, in code or as a line of JSON; and what
it writes down about each request.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from holdfast.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ERRORS", "End", "Received", "Step", "Wanted", "read_script"]

#: How an answer ends, after `after` of its tokens:
#: done     a finish reason and the end of the stream, as it should be
#: eof      the response just ends, cleanly, without a finish reason
#: drop     the connection is closed inside the response
#: hang     nothing more, until the client leaves or the server stops
#: garbage  a frame that is not an answer, by default not even JSON, then the end
#: error    a frame that is the provider's `error`, then the end
End = Literal["done", "eof", "drop", "hang", "garbage", "error"]

#: Every provider has its own status, code and words for each of them.
ERRORS: Final = (
    "unauthorized",
    "rate_limit",
    "quota",
    "server_error",
    "unavailable",
    "overloaded",
    "context_length",
    "bad_request",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One tool call that the model asks for."""

    tool: str
    arguments: Any = None  #: An object; or a string, sent as it is; None: an empty object.
    call_id: str | None = None  #: None: a new one, `call_<n>`.

    def text(self) -> str:
        if isinstance(self.arguments, str):
            return self.arguments
        return json.dumps(self.value())

    def value(self) -> Any:
        """For a provider that sends them as JSON inside its own."""
        return {} if self.arguments is None else self.arguments

    def pieces(self, count: int) -> list[str]:
        """The arguments as text, in at most *count* pieces."""
        text = self.text()
        size = max(1, -(-len(text) // max(1, count)))
        return [text[at : at + size] for at in range(0, len(text), size)]


@dataclass(frozen=True, slots=True)
class Step:
    """
    How one request is answered.  Every field has a default: ``Step()`` is the echo.

    Make the common ones with the constructors, and refine them with `keyed` and `held`:

        Step.reply("Hello", " there").keyed("greet me").held(after=1)

    A step says nothing of a provider: whoever asks, in whichever protocol, is answered in it.
    """

    tokens: tuple[str, ...] | None = None  #: None: the echo, `reply to: <last user text>`.
    delay_s: float | None = None  #: Between two tokens; None: the server's own.
    first_delay_s: float = 0.0  #: Before the first one.
    #: stop, length, content_filter, which every provider calls something else; or any other
    #: word, sent as it is.  That tools are called says itself.
    finish: str = "stop"
    after: int | None = None  #: Tokens before `end`, or before the gate; None: all.
    end: End = "done"
    frame: str = "{not json"  #: What `garbage` sends; JSON that is no answer is another kind.
    headers: bool = True  #: False: `drop` and `hang` come before the first byte.
    tool: str | None = None  #: Ask for this tool, after the tokens.
    arguments: Any = None  #: An object; or a string, sent as it is.
    fragments: int = 3  #: In how many pieces the arguments are sent; Google sends them whole.
    call_id: str | None = None  #: None: a new one, `call_<n>`.
    also: tuple[Wanted, ...] = ()  #: Ask for these too, in the same message.
    error: str | None = None  #: Instead of an answer: a name out of `Step.errors()`.
    retry_after: str | None = None  #: With an error: when to come back, as it is.
    when: str | None = None  #: Only for a request whose last user text contains this.
    repeat: bool = False  #: Not used up by a request.
    gate: threading.Event | None = field(default=None, compare=False)
    reached: threading.Event | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.error is not None and self.error not in ERRORS:
            raise BadRequestError(
                detail=f"error = {self.error!r}: it is one of {', '.join(ERRORS)}"
            )
        if self.end not in get_args(End):
            raise BadRequestError(
                detail=f"end = {self.end!r}: it is one of {', '.join(get_args(End))}"
            )
        if self.end == "error" and self.error is None:
            raise BadRequestError(detail="end = 'error': `error` says which one")
        if not self.headers and self.end not in {"drop", "hang"}:
            raise BadRequestError(
                detail=f"headers = False: end is drop or hang, and not {self.end}"
            )
        if self.also and self.tool is None:
            raise BadRequestError(detail="also: `tool` is the first of the calls")

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
    def calls(cls, *wanted: tuple[str, Any], fragments: int = 3) -> Step:
        """
        Ask for several tool calls in one message, each of them (tool, arguments).

            Step.calls(("weather", {"city": "Rome"}), ("weather", {"city": "Oslo"}))
        """
        (tool, arguments), *others = wanted
        also = tuple(Wanted(*each) for each in others)
        return replace(cls.call(tool, arguments, fragments=fragments), also=also)

    @classmethod
    def fail(
        cls, error: str, *, retry_after: str | None = None, after: int | None = None
    ) -> Step:
        """
        Answer with an HTTP error; *error* is a name out of `Step.errors`.

        Args:
            retry_after: seconds, or an HTTP date; sent as it is.
            after: given: the error comes inside the echo, after that many tokens.
        """
        end: End = "done" if after is None else "error"
        return cls(error=error, retry_after=retry_after, after=after, end=end)

    @classmethod
    def cut(cls, end: End, *, after: int = 1, headers: bool = True) -> Step:
        """
        Begin the echo and come to a bad *end* after some tokens.

        With ``headers=False`` there is not even a status line before a `drop` or a `hang`.
        """
        return cls(end=end, after=after, headers=headers)

    @staticmethod
    def errors() -> tuple[str, ...]:
        """unauthorized, rate_limit, quota, server_error, unavailable, overloaded, …"""
        return ERRORS

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
        An HTTP error, and what has no headers, stops before its first byte.
        """
        return replace(self, after=after, gate=threading.Event(), reached=threading.Event())

    # ------------------------------------------------------------------ for the server

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """All the calls it asks for."""
        if self.tool is None:
            return ()
        return (Wanted(self.tool, self.arguments, self.call_id), *self.also)


_FIELDS: Final[dict[str, tuple[type, ...]]] = {
    "tokens": (list,),
    "delay_s": (int, float),
    "first_delay_s": (int, float),
    "finish": (str,),
    "after": (int,),
    "end": (str,),
    "frame": (str,),
    "headers": (bool,),
    "tool": (str,),
    "arguments": (dict, str),
    "fragments": (int,),
    "call_id": (str,),
    "also": (list,),
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
    _check_fields(data, _FIELDS)
    if "tokens" in data:
        if not all(isinstance(token, str) for token in data["tokens"]):
            raise BadRequestError(detail="tokens: they are strings")
        data = {**data, "tokens": tuple(data["tokens"])}
    if "tool" in data:
        data = {"tokens": (), "arguments": {}, **data}
    if "also" in data:
        data = {**data, "also": tuple(_also(each) for each in data["also"])}
    if "retry_after" in data:
        data = {**data, "retry_after": str(data["retry_after"])}
    return Step(**data)


def _also(data: object) -> Wanted:
    if not isinstance(data, dict) or "tool" not in data:
        raise BadRequestError(detail='also: it holds objects like {"tool": …, "arguments": …}')
    _check_fields(data, {name: _FIELDS[name] for name in ("tool", "arguments", "call_id")})
    return Wanted(**{"arguments": {}, **data})


def _check_fields(data: dict[str, Any], known: Mapping[str, tuple[type, ...]]) -> None:
    for key, value in data.items():
        if key not in known:
            raise BadRequestError(detail=f"unknown field {key!r} (known: {', '.join(known)})")
        kinds = known[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise BadRequestError(detail=f"{key} = {value!r}: it is of type {names}")


@dataclass(eq=False)
class Received:
    """One request, and how far its answer got.  Written by the server's thread."""

    body: dict[str, Any]
    text: str  #: The last user text.
    #: What the SDK says of its own retries, its x-stainless-retry-count; Google's says nothing.
    retry: str | None
    api: str = "openai"  #: openai, anthropic or google.
    model: str = ""  #: The one that was asked for.
    started_s: float = field(default_factory=time.monotonic)
    tokens_sent: int = 0
    #: done = played to its end, a scripted failure included; aborted = the client left first,
    #: or the server stopped.  None = still under way.
    end: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "api": self.api,
            "model": self.model,
            "body": self.body,
            "text": self.text,
            "started_s": self.started_s,
            "tokens_sent": self.tokens_sent,
            "end": self.end,
        }
