"""Google's generateContent: every frame is a whole response with a little more in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Final

from holdfast.testing._dialect import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from holdfast.testing._dialect import Usage
    from holdfast.testing._model_script import Wanted

__all__ = ["Google"]

#: name → code, status, message.
_ERRORS: Final[dict[str, tuple[int, str, str]]] = {
    "unauthorized": (
        400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.",
    ),
    "rate_limit": (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota."),
    "quota": (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota."),
    "server_error": (500, "INTERNAL", "An internal error has occurred."),
    "unavailable": (503, "UNAVAILABLE", "The service is currently unavailable."),
    "overloaded": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    # The status is that of every refused request: only the message tells this one.
    "context_length": (
        400, "INVALID_ARGUMENT",
        "The input token count (9001) exceeds the maximum number of tokens allowed (8192).",
    ),
    "bad_request": (400, "INVALID_ARGUMENT", "Invalid value at 'generation_config'."),
}  # fmt: skip
_RPC: Final = "type.googleapis.com/google.rpc."
#: What tells apart the errors that share a status.
_DETAILS: Final[dict[str, dict[str, Any]]] = {
    "unauthorized": {"@type": f"{_RPC}ErrorInfo", "reason": "API_KEY_INVALID"},
    "rate_limit": {
        "@type": f"{_RPC}QuotaFailure",
        "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}],
    },
    "quota": {
        "@type": f"{_RPC}QuotaFailure",
        "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}],
    },
}
_FINISH: Final = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}


class Google(Dialect):
    api: ClassVar[str] = "google"

    @staticmethod
    def last_user_text(body: Mapping[str, Any]) -> str:
        # What a user said in a row stands in one content, and results of tools in such a
        # content as well: the newest is the last part that is a text.
        for content in reversed(body.get("contents", [])):
            for part in reversed(content.get("parts", [])):
                if content.get("role") == "user" and part.get("text"):
                    return str(part["text"])
        return ""

    def head(self, usage: Usage) -> str:
        del usage
        return ""  # The first token is the first frame.

    def token(self, text: str) -> str:
        return self._frame([{"text": text}])

    def calls(self, wanted: Sequence[Wanted], *, fragments: int) -> Iterator[str]:
        del fragments
        if wanted:
            yield self._frame([_call(each) for each in wanted])

    def tail(self, finish: str, usage: Usage, *, called: bool) -> str:
        del called  # A response that asks for tools just stops.
        return self._frame([{"text": ""}], finish=finish, usage=usage)

    def whole(
        self, text: str, wanted: Sequence[Wanted], finish: str | None, usage: Usage
    ) -> dict[str, Any]:
        parts = [{"text": text}] if text else []
        return self._response([*parts, *(_call(each) for each in wanted)], finish, usage)

    def error(
        self, name: str, retry_after: str | None
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        code, status, message = _ERRORS[name]
        details = [_DETAILS[name]] if name in _DETAILS else []
        headers = {}
        if retry_after is not None and retry_after.isdecimal():
            # In the body, where Google has it.
            details.append({"@type": f"{_RPC}RetryInfo", "retryDelay": f"{retry_after}s"})
        elif retry_after is not None:
            headers["retry-after"] = retry_after
        error = {"code": code, "message": message, "status": status, "details": details}
        return code, {"error": error}, headers

    def error_frame(self, name: str) -> str:
        return _frame(self.error(name, None)[1])

    def _frame(
        self,
        parts: list[dict[str, Any]],
        *,
        finish: str | None = None,
        usage: Usage | None = None,
    ) -> str:
        return _frame(self._response(parts, finish, usage))

    def _response(
        self, parts: list[dict[str, Any]], finish: str | None, usage: Usage | None
    ) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
        if finish is not None:
            candidate["finishReason"] = _FINISH.get(finish, finish)
        response = {"candidates": [candidate], "modelVersion": "scripted", "responseId": "r1"}
        if usage is None:
            return response
        counted = {
            "promptTokenCount": usage.asked,
            "candidatesTokenCount": usage.told,
            "totalTokenCount": usage.asked + usage.told,
        }
        return {**response, "usageMetadata": counted}


def _frame(response: dict[str, Any]) -> str:
    return f"data: {json.dumps(response)}\r\n\r\n"


def _call(wanted: Wanted) -> dict[str, Any]:
    call = {"id": wanted.call_id, "name": wanted.tool, "args": wanted.value()}
    return {"functionCall": call}
