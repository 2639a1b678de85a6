"""
Transcript messages ↔ pydantic-ai's.  Imports pydantic-ai: import it only where it is used.

What a provider accepts is stricter than what a transcript may hold: a result without its call,
or a call without a result, is refused with a 400.  pydantic-ai mends both: it leaves the one
out, and closes the other with a word that the call was interrupted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic_ai.messages import (
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
    repair_messages,
)

from holdfast.agents import _transcript

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic_ai.messages import ModelMessage, ModelResponsePart

    from holdfast.types import Prompt

__all__ = ["conversation", "from_response", "from_result"]

#: Roles whose `summary` stands for a part of the conversation that is no longer there.
_SUMMARIES: Final = {
    "compactionSummary": "Summary of the conversation so far:\n\n",
    "branchSummary": "Summary of another branch of this conversation:\n\n",
}
_STOPS: Final = {"length": "length", "tool_call": "toolUse"}
_STOP_BACK: Final = {"length": "length", "toolUse": "tool_call"}


def conversation(prompt: Prompt) -> tuple[list[ModelMessage], str | None]:
    """
    What to hand to `Agent.run`: the history, and the question.

    Returns:
        The question is None when this turn has made tool calls already: it then stands in
        the history, before them, and the run goes on after them.  Calls of theirs that have
        no result come last in the history: the run begins by making them.  Messages of users
        among what was made were sent into the turn while it ran.
    """
    history = repair_messages(_messages(prompt.history))
    if not prompt.made:
        return history, prompt.text
    question = ModelRequest(parts=[UserPromptPart(prompt.text)])
    return [*history, question, *_unanswered_last(_messages(prompt.made))], None


def from_response(response: ModelResponse, *, text: str | None = None) -> dict[str, Any]:
    """
    A model's response as an assistant message.

    Args:
        text: given for a reply: it stands for the text of *response*, whose calls, if any,
            only carried a structured output.
    """
    content: list[dict[str, Any]] = []
    for part in response.parts:
        match part:
            case ThinkingPart(content=thought, signature=str(signature)):
                block = {
                    "type": "thinking",
                    "thinking": thought,
                    "thinkingSignature": signature,
                }
                content.append(block)
            case TextPart(content=words) if text is None and words:
                content.append({"type": "text", "text": words})
            case ToolCallPart() if text is None:
                call = _transcript.tool_call(
                    part.tool_call_id, part.tool_name, part.args_as_dict()
                )
                content.append(call)
    if text is not None:
        content.append({"type": "text", "text": text})
    used = response.usage
    cached = used.cache_read_tokens + used.cache_write_tokens
    stop = _STOPS.get(response.finish_reason or "", "stop")
    return _transcript.assistant(
        content,
        provider=response.provider_name or "unknown",
        model=response.model_name or "unknown",
        used=_transcript.usage(
            fresh=max(0, used.input_tokens - cached),
            output=used.output_tokens,
            cache_read=used.cache_read_tokens,
            cache_write=used.cache_write_tokens,
        ),
        # Asked for calls, whatever the provider calls that; or a reply, whatever carried it.
        stop="toolUse" if text is None else "stop" if stop == "toolUse" else stop,
    )


def from_result(part: ToolReturnPart) -> dict[str, Any]:
    """A tool's result as a message.  Files in it are left out; the model has seen them."""
    text = part.model_response_str(wrap_if_error=False)
    failed = part.outcome != "success"
    return _transcript.tool_result(part.tool_call_id, part.tool_name, text, failed=failed)


# ------------------------------------------------------------------------- the other way


def _messages(messages: Iterable[Mapping[str, Any]]) -> list[ModelMessage]:
    converted = (_message(message) for message in messages)
    return [message for message in converted if message is not None]


def _message(message: Mapping[str, Any]) -> ModelMessage | None:
    role, content = message.get("role"), message.get("content")
    match role:
        case "user" if text := _transcript.text_of(content):
            return ModelRequest(parts=[UserPromptPart(text)])
        case "assistant" if parts := _parts(message):
            finish = _STOP_BACK.get(message.get("stopReason", ""), "stop")
            return ModelResponse(
                parts=parts,
                model_name=message.get("model"),
                provider_name=message.get("provider"),
                finish_reason=finish,  # type: ignore[arg-type]
            )
        case "toolResult" if isinstance(call_id := message.get("toolCallId"), str):
            result = ToolReturnPart(
                tool_name=str(message.get("toolName", "")),
                content=_transcript.text_of(content),
                tool_call_id=call_id,
                outcome="failed" if message.get("isError") else "success",
            )
            return ModelRequest(parts=[result])
        case "compactionSummary" | "branchSummary" if summary := message.get("summary"):
            return ModelRequest(parts=[UserPromptPart(_SUMMARIES[role] + str(summary))])
    return None


def _parts(message: Mapping[str, Any]) -> list[ModelResponsePart]:
    content = message.get("content")
    if isinstance(content, str):
        return [TextPart(content)] if content else []
    parts: list[ModelResponsePart] = []
    for block in content if isinstance(content, list) else []:
        match block:
            case {"type": "text", "text": str(text)} if text:
                parts.append(TextPart(text))
            case {"type": "toolCall", "id": str(call_id), "name": str(name)}:
                arguments = block.get("arguments")
                arguments = arguments if isinstance(arguments, dict) else {}
                parts.append(ToolCallPart(name, args=arguments, tool_call_id=call_id))
            case {"type": "thinking", "thinking": str(thought), "thinkingSignature": str(sign)}:
                provider = message.get("provider")
                parts.append(ThinkingPart(thought, signature=sign, provider_name=provider))
    return parts


def _unanswered_last(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """Let the last response's calls without a result stand by themselves, at the end."""
    last = next((m for m in reversed(messages) if isinstance(m, ModelResponse)), None)
    if last is None:
        return list(messages)
    answered = {
        part.tool_call_id
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    }
    open_calls = [call for call in last.tool_calls if call.tool_call_id not in answered]
    if not open_calls or len(open_calls) == len(last.tool_calls):
        return list(messages)
    kept = [part for part in last.parts if part not in open_calls]
    before = ModelResponse(
        parts=kept, model_name=last.model_name, provider_name=last.provider_name
    )
    after = ModelResponse(
        parts=open_calls, model_name=last.model_name, provider_name=last.provider_name
    )
    return [*(before if m is last else m for m in messages), after]
