"""OpenAI's Chat Completions, which most compatible servers speak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from holdfast.agents._transcript import text_of
from holdfast.testing._dialect import Dialect, data_frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from holdfast.testing._dialect import Usage
    from holdfast.testing._model_script import Wanted

__all__ = ["OpenAI"]

#: name → status, code, type, message.
_ERRORS: Final[dict[str, tuple[int, str | None, str, str]]] = {
    "unauthorized": (
        401, "invalid_api_key", "invalid_request_error", "Incorrect API key provided.",
    ),
    "rate_limit": (429, "rate_limit_exceeded", "requests", "Rate limit reached."),
    "quota": (
        429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota.",
    ),
    "server_error": (500, None, "server_error", "The server had an error."),
    "unavailable": (503, None, "server_error", "The server is unavailable."),
    "overloaded": (503, None, "server_error", "The engine is currently overloaded."),
    "context_length": (
        400, "context_length_exceeded", "invalid_request_error",
        "This model's maximum context length is 8192 tokens; your messages have 9001.",
    ),
    "bad_request": (400, "invalid_value", "invalid_request_error", "Invalid value."),
}  # fmt: skip


class OpenAI(Dialect):
    api: ClassVar[str] = "openai"

    @staticmethod
    def last_user_text(body: Mapping[str, Any]) -> str:
        said = [each for each in body.get("messages", []) if each.get("role") == "user"]
        texts = [text_of(each.get("content")) for each in said]
        return texts[-1] if texts else ""

    def head(self, usage: Usage) -> str:
        del usage
        return _delta({"role": "assistant", "content": ""})

    def token(self, text: str) -> str:
        return _delta({"content": text})

    def calls(self, wanted: Sequence[Wanted], *, fragments: int) -> Iterator[str]:
        for index, call in enumerate(wanted):
            function = {"name": call.tool, "arguments": ""}
            head = {"index": index, "id": call.call_id, "type": "function"}
            yield _delta({"tool_calls": [{**head, "function": function}]})
            for piece in call.pieces(fragments):
                part = {"index": index, "function": {"arguments": piece}}
                yield _delta({"tool_calls": [part]})

    def tail(self, finish: str, usage: Usage, *, called: bool) -> str:
        last = _delta({}, finish="tool_calls" if called else finish)
        used = data_frame({**_chunk(), "choices": [], "usage": _usage(usage)})
        return f"{last}{used}data: [DONE]\n\n"

    def whole(
        self, text: str, wanted: Sequence[Wanted], finish: str | None, usage: Usage
    ) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if wanted:
            message["tool_calls"] = [
                {
                    "id": call.call_id,
                    "type": "function",
                    "function": {"name": call.tool, "arguments": call.text()},
                }
                for call in wanted
            ]
        finish = "tool_calls" if wanted and finish is not None else finish
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        body = _chunk("chat.completion")
        return {**body, "choices": [choice], "usage": _usage(usage)}

    def error(
        self, name: str, retry_after: str | None
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        status, code, kind, message = _ERRORS[name]
        error = {"message": message, "type": kind, "param": None, "code": code}
        headers = {} if retry_after is None else {"retry-after": retry_after}
        return status, {"error": error}, headers


def _chunk(kind: str = "chat.completion.chunk") -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "scripted"}


def _delta(delta: dict[str, Any], *, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return data_frame({**_chunk(), "choices": [choice]})


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.asked,
        "completion_tokens": usage.told,
        "total_tokens": usage.asked + usage.told,
    }
