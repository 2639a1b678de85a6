"""The embedded default: answers without a model, and says so."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from holdfast.agents import _transcript
from holdfast.types import Final as FinalEvent
from holdfast.types import Text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast.ports import ToolHook
    from holdfast.types import AgentEvent, Prompt

__all__ = ["DemoAgent"]

HINT: Final = "name a real one, for example openai-chat:gpt-4o-mini"
#: Words with the space after them: joined again, they are the text itself.
_WORDS: Final = re.compile(r"\s*\S+\s*|\s+")


class DemoAgent:
    """
    Answers every prompt with the prompt, word by word.

    The same history and text always give the same reply; only `timestamp` differs.

    Args:
        delay_s: seconds between two words.
        hint: how to name a real model; the first reply of a session says it.
    """

    def __init__(self, *, delay_s: float = 0.01, hint: str = HINT) -> None:
        self._delay_s = delay_s
        self._hint = hint

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        """
        Answer *prompt*.  No tools, no provider: *hook* is never called and nothing fails.

        Cancellation:
            Safe at every word.
        """
        del hook
        reply = self._reply(prompt)
        for position, word in enumerate(_WORDS.findall(reply)):
            if position:
                await asyncio.sleep(self._delay_s)
            yield Text(delta=word)
        message = _transcript.assistant(
            [{"type": "text", "text": reply}],
            provider="holdfast",
            model="demo",
            used=_transcript.usage(fresh=_count(prompt.text), output=_count(reply)),
            stop="stop",
        )
        yield FinalEvent(message=message, text=reply)

    def _reply(self, prompt: Prompt) -> str:
        answer = f"You said: {prompt.text}"
        if any(message.get("role") == "assistant" for message in prompt.history):
            return answer
        return f"{answer}\n\n(I am the built-in demo model; {self._hint}.)"


def _count(text: str) -> int:
    return len(text.split())
