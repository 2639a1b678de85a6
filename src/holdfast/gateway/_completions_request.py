"""
What a `POST /v1/chat/completions` asks for, in our words.  Pure: no store, no network.

    messages   … user, assistant, user, assistant │ user, user
               seed: what a new session begins with │ the new input, joined by a blank line

`system` and `developer` messages, wherever they stand, are the instructions of this turn.

Of the other fields three kinds are known.  What would change the answer in a way that we
cannot give (`REFUSED`) is refused by name, unless its value says nothing.  What only tunes a
model (`WITHOUT_EFFECT`) is checked and then has no effect: the agent decides that.  Unknown
fields are ignored, because this door is for any client and its extensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from holdfast.errors import BadRequestError, InputError
from holdfast.gateway.problems import BadFieldError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "READ",
    "REFUSED",
    "WITHOUT_EFFECT",
    "Asked",
    "UnsupportedParameterError",
    "parse",
]

JOINED_BY: Final = "\n\n"

Object = dict[str, Any]

#: Fields that are read, with their types.
READ: Final[Mapping[str, Any]] = {
    "messages": list[Object],
    "model": str | None,
    "stream": bool | None,
    "stream_options": Object | None,
    "user": str | None,
}

#: Fields that are refused, with their types and the values that are not.
REFUSED: Final[Mapping[str, tuple[Any, Callable[[Any], bool]]]] = {
    "audio": (Object | None, lambda value: value is None),
    "function_call": (str | Object | None, lambda value: value in (None, "none", "auto")),
    "functions": (list[Object] | None, lambda value: not value),
    "logprobs": (bool | None, lambda value: not value),
    "modalities": (list[str] | None, lambda value: set(value or ()) <= {"text"}),
    "n": (int | None, lambda value: value in (None, 1)),
    "response_format": (
        Object | None,
        lambda value: (value or {"type": "text"}).get("type") == "text",
    ),
    "tool_choice": (str | Object | None, lambda value: value in (None, "none", "auto")),
    "tools": (list[Object] | None, lambda value: not value),
    "top_logprobs": (int | None, lambda value: not value),
}

#: Fields that are accepted and have no effect, with their types.
WITHOUT_EFFECT: Final[Mapping[str, Any]] = {
    "frequency_penalty": float | None,
    "logit_bias": dict[str, float] | None,
    "max_completion_tokens": int | None,
    "max_tokens": int | None,
    "metadata": Object | None,
    "parallel_tool_calls": bool | None,
    "prediction": Object | None,
    "presence_penalty": float | None,
    "prompt_cache_key": str | None,
    "reasoning_effort": str | None,
    "safety_identifier": str | None,
    "seed": int | None,
    "service_tier": str | None,
    "stop": str | list[str] | None,
    "store": bool | None,
    "temperature": float | None,
    "top_p": float | None,
    "verbosity": str | None,
    "web_search_options": Object | None,
}

_TYPES: Final = {
    **READ,
    **WITHOUT_EFFECT,
    **{name: kind for name, (kind, _) in REFUSED.items()},
}
_INSTRUCTS: Final = ("system", "developer")
_TALKS: Final = ("user", "assistant")


@dataclass(kw_only=True, eq=False)
class UnsupportedParameterError(InputError):
    """The request asks for something that no answer of ours can have."""

    code: ClassVar[str] = "unsupported_parameter"
    status: ClassVar[int] = 400

    param: str
    detail: str
    hint: str = "leave it out"

    def __str__(self) -> str:
        return f"{self.param}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, understood."""

    text: str
    instructions: str | None
    seed: tuple[Mapping[str, str], ...]
    model: str | None
    user: str | None
    stream: bool
    include_usage: bool


def parse(body: Mapping[str, Any]) -> Asked:
    """
    Understand *body*, a decoded JSON object.

    Raises:
        BadFieldError: a known field of the wrong form; names it.
        UnsupportedParameterError: something that is not offered here; names it.
        BadRequestError: there is nothing new to answer.
    """
    for name, value in body.items():
        if (kind := _TYPES.get(name)) is not None:
            _check_type(name, value, kind)
    for name, (_, says_nothing) in REFUSED.items():
        if not says_nothing(body.get(name)):
            raise UnsupportedParameterError(param=name, detail="not supported here")
    if "messages" not in body:
        raise BadFieldError(name="messages", detail="it is missing")
    said = [_message(at, message) for at, message in enumerate(body["messages"])]
    talk = [(role, text) for role, text in said if role in _TALKS]
    last = max((at for at, (role, _) in enumerate(talk) if role == "assistant"), default=-1)
    new = [text for _, text in talk[last + 1 :] if text.strip()]
    if not new:
        raise BadRequestError(
            detail="there is no user message with a text after the last assistant message",
            hint="messages ends with what is to be answered, with role user",
        )
    told = [text for role, text in said if role in _INSTRUCTS and text.strip()]
    return Asked(
        text=JOINED_BY.join(new),
        instructions=JOINED_BY.join(told) or None,
        seed=tuple(
            {"role": role, "content": text} for role, text in talk[: last + 1] if text.strip()
        ),
        model=body.get("model"),
        user=body.get("user"),
        stream=bool(body.get("stream")),
        include_usage=_include_usage(body.get("stream_options")),
    )


def _check_type(name: str, value: Any, kind: Any) -> None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BadFieldError(name=name, detail=str(error)) from error


def _include_usage(options: Mapping[str, Any] | None) -> bool:
    asked = (options or {}).get("include_usage")
    _check_type("stream_options.include_usage", asked, bool | None)
    return bool(asked)


def _message(at: int, message: Mapping[str, Any]) -> tuple[str, str]:
    """Role and text of one message."""
    where, role = f"messages[{at}]", message.get("role")
    if not isinstance(role, str):
        raise BadFieldError(name=f"{where}.role", detail="it must be a text")
    if role in {"tool", "function"}:
        raise UnsupportedParameterError(
            param=f"{where}.role", detail=f"{role} messages are not supported: tools run here"
        )
    if role not in {*_INSTRUCTS, *_TALKS}:
        known = ", ".join((*_INSTRUCTS, *_TALKS))
        raise BadFieldError(name=f"{where}.role", detail=f"it must be one of {known}")
    for name in ("tool_calls", "function_call", "audio"):
        if message.get(name):
            raise UnsupportedParameterError(
                param=f"{where}.{name}", detail="not supported here: tools run on this side"
            )
    content = message.get("content")
    if content is None and role == "assistant":
        return role, _string(f"{where}.refusal", message.get("refusal") or "")
    return role, _text(f"{where}.content", content)


def _text(where: str, content: Any) -> str:
    if not isinstance(content, list):
        return _string(where, content)
    return JOINED_BY.join(_part(f"{where}[{at}]", part) for at, part in enumerate(content))


def _part(where: str, part: Any) -> str:
    if not isinstance(part, dict) or not isinstance(kind := part.get("type"), str):
        raise BadFieldError(name=where, detail="a part is an object with a type")
    if kind not in {"text", "refusal"}:
        raise UnsupportedParameterError(
            param=where, detail=f"parts of type {kind[:40]!r} are not supported, only text"
        )
    return _string(f"{where}.{kind}", part.get(kind))


def _string(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadFieldError(name=where, detail="it must be a text")
    return value
