"""Messages in the transcript's format, as every agent of ours makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast._stamps import now_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["assistant", "text_of", "tool_call", "tool_result", "usage"]


def assistant(
    content: Iterable[Mapping[str, Any]],
    *,
    provider: str,
    model: str,
    used: Mapping[str, int],
    stop: str,
) -> dict[str, Any]:
    """An assistant message.  *stop* is one of stop, length, toolUse."""
    return {
        "role": "assistant",
        "content": [dict(block) for block in content],
        "provider": provider,
        "model": model,
        "usage": dict(used),
        "stopReason": stop,
        "timestamp": now_ms(),
    }


def tool_call(call_id: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """One block of an assistant message."""
    return {"type": "toolCall", "id": call_id, "name": name, "arguments": dict(arguments)}


def tool_result(call_id: str, name: str, text: str, *, failed: bool) -> dict[str, Any]:
    """The message that answers a tool call."""
    return {
        "role": "toolResult",
        "toolCallId": call_id,
        "toolName": name,
        "content": [{"type": "text", "text": text}],
        "isError": failed,
        "timestamp": now_ms(),
    }


def usage(
    *, fresh: int, output: int, cache_read: int = 0, cache_write: int = 0
) -> dict[str, int]:
    """Tokens.  `input` leaves out what the cache served or took in, so the four add up."""
    return {
        "input": fresh,
        "output": output,
        "cacheRead": cache_read,
        "cacheWrite": cache_write,
        "totalTokens": fresh + output + cache_read + cache_write,
    }


def text_of(content: object) -> str:
    """The text of a message's `content`, which is a string or a list of blocks."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    blocks = (block for block in content if isinstance(block, dict))
    return "".join(
        str(block.get("text", "")) for block in blocks if block.get("type") == "text"
    )
