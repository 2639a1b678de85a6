"""
What a model was told, read from a request's body as its provider would read it.

Said ("user", text), ("assistant", text), ("call", id, tool, arguments) and ("result", id, text),
in order, message by message: what stands in one message is told at once.
"""

from __future__ import annotations

import json
from typing import Any

from holdfast.testing.model_server import Received

Told = list[list[tuple[Any, ...]]]


def told(received: Received) -> Told:
    """Leaves out what is not a part of the conversation: instructions, settings, tools."""
    return {"openai": _openai, "anthropic": _anthropic, "google": _google}[received.api](
        received.body
    )


def _openai(body: dict[str, Any]) -> Told:
    found: Told = []
    for message in body["messages"]:
        match message:
            case {"role": "user" | "assistant" as role}:
                said: list[tuple[Any, ...]] = []
                if message.get("content"):
                    said.append((role, message["content"]))
                for call in message.get("tool_calls", ()):
                    function = call["function"]
                    arguments = json.loads(function["arguments"])
                    said.append(("call", call["id"], function["name"], arguments))
                found.append(said)
            case {"role": "tool"}:
                result = ("result", message["tool_call_id"], message["content"])
                # Every result is a message of its own here; together they are one answer.
                if found and found[-1][0][0] == "result":
                    found[-1].append(result)
                else:
                    found.append([result])
    return found


def _anthropic(body: dict[str, Any]) -> Told:
    return [
        [_anthropic_block(message["role"], block) for block in message["content"]]
        for message in body["messages"]
    ]


def _anthropic_block(role: str, block: dict[str, Any]) -> tuple[Any, ...]:
    match block["type"]:
        case "text":
            return role, block["text"]
        case "tool_use":
            return "call", block["id"], block["name"], block["input"]
        case "tool_result":
            content = block["content"]
            text = content if isinstance(content, str) else "".join(c["text"] for c in content)
            return "result", block["tool_use_id"], text
    raise AssertionError(block)


def _google(body: dict[str, Any]) -> Told:
    return [
        [_google_part(content["role"], part) for part in content["parts"]]
        for content in body["contents"]
    ]


def _google_part(role: str, part: dict[str, Any]) -> tuple[Any, ...]:
    match part:
        case {"text": text}:
            return {"user": "user", "model": "assistant"}[role], text
        case {"functionCall": call}:
            return "call", call["id"], call["name"], call["args"]
        case {"functionResponse": result}:
            (value,) = result["response"].values()
            return "result", result["id"], str(value)
    raise AssertionError(part)
