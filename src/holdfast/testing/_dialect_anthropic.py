"""Anthropic's Messages: numbered content blocks, each with a start, its deltas and a stop."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, ClassVar, Final

from holdfast.agents._transcript import text_of
from holdfast.testing._dialect import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from holdfast.testing._dialect import Usage
    from holdfast.testing._model_script import Wanted

__all__ = ["Anthropic"]

#: name → status, type, message.
_ERRORS: Final[dict[str, tuple[int, str, str]]] = {
    "unauthorized": (401, "authentication_error", "invalid x-api-key"),
    "rate_limit": (429, "rate_limit_error", "Number of requests has exceeded your rate limit."),
    "quota": (402, "billing_error", "Your account's credit is used up."),
    "server_error": (500, "api_error", "Internal server error"),
    "unavailable": (503, "api_error", "Service unavailable"),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    # The type is that of every refused request: only the message tells this one.
    "context_length": (
        400, "invalid_request_error", "prompt is too long: 9001 tokens > 8192 maximum",
    ),
    "bad_request": (400, "invalid_request_error", "max_tokens: must be greater than 0"),
}  # fmt: skip
_FINISH: Final = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}


class Anthropic(Dialect):
    api: ClassVar[str] = "anthropic"

    def __init__(self) -> None:
        self._block = -1  #: Number of the newest block.
        self._talking = False  #: Whether that is an open block of text.

    @staticmethod
    def last_user_text(body: Mapping[str, Any]) -> str:
        # What a user said in a row stands in one message, and results of tools in such a
        # message as well: the newest is the last block that is a text.
        for message in reversed(body.get("messages", [])):
            content = message.get("content") if message.get("role") == "user" else None
            for block in reversed(content if isinstance(content, list) else [content]):
                if text := text_of(block if isinstance(block, str) else [block]):
                    return text
        return ""

    def head(self, usage: Usage) -> str:
        message = {**self._message([], None), "usage": _usage(usage)}
        return _event("message_start", message=message) + _event("ping")

    def token(self, text: str) -> str:
        begun = "" if self._talking else self._start({"type": "text", "text": ""})
        self._talking = True
        return begun + self._delta({"type": "text_delta", "text": text})

    def calls(self, wanted: Sequence[Wanted], *, fragments: int) -> Iterator[str]:
        if wanted:
            yield self._hush()
        for call in wanted:
            yield self._start(_tool_use(call, {}))
            for piece in call.pieces(fragments):
                yield self._delta({"type": "input_json_delta", "partial_json": piece})
            yield self._stop()

    def tail(self, finish: str, usage: Usage, *, called: bool) -> str:
        delta = {"stop_reason": _finish(finish, called=called), "stop_sequence": None}
        used = {"output_tokens": usage.told}
        last = _event("message_delta", delta=delta, usage=used)
        return self._hush() + last + _event("message_stop")

    def whole(
        self, text: str, wanted: Sequence[Wanted], finish: str | None, usage: Usage
    ) -> dict[str, Any]:
        said: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
        content = said + [_tool_use(call, call.value()) for call in wanted]
        word = None if finish is None else _finish(finish, called=bool(wanted))
        return {**self._message(content, word), "usage": _usage(usage)}

    def error(
        self, name: str, retry_after: str | None
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        status, kind, message = _ERRORS[name]
        error = {"type": kind, "message": message}
        headers = {} if retry_after is None else {"retry-after": retry_after}
        return status, {"type": "error", "error": error, "request_id": "req_1"}, headers

    def error_frame(self, name: str) -> str:
        return _event("error", **self.error(name, None)[1])

    def garbage(self, data: str) -> str:
        # Read only if the event is one of theirs.
        named = re.search(r'"type": ?"(\w+)"', data)
        return f"event: {named[1] if named else 'content_block_delta'}\ndata: {data}\n\n"

    def _message(self, content: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "scripted",
            "content": content,
            "stop_reason": finish,
            "stop_sequence": None,
        }

    def _start(self, block: dict[str, Any]) -> str:
        self._block += 1
        return _event("content_block_start", index=self._block, content_block=block)

    def _delta(self, delta: dict[str, Any]) -> str:
        return _event("content_block_delta", index=self._block, delta=delta)

    def _stop(self) -> str:
        return _event("content_block_stop", index=self._block)

    def _hush(self) -> str:
        """End the block of text, if one is open."""
        talking, self._talking = self._talking, False
        return self._stop() if talking else ""


def _event(kind: str, **data: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({**data, 'type': kind})}\n\n"


def _tool_use(call: Wanted, arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.call_id, "name": call.tool, "input": arguments}


def _finish(finish: str, *, called: bool) -> str:
    return "tool_use" if called else _FINISH.get(finish, finish)


def _usage(usage: Usage) -> dict[str, int]:
    return {"input_tokens": usage.asked, "output_tokens": usage.told}
