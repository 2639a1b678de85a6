"""The three providers that a `ModelServer` stands for, and an agent that asks one of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from holdfast.agents.pydantic_ai import PydanticAgent

MODELS: Final = {"openai": "openai-chat:m", "anthropic": "anthropic:m", "google": "google:m"}

Make = Callable[..., PydanticAgent]


def making(stack: AsyncExitStack) -> Make:
    """Makes agents that *stack* closes."""

    def make(given: Any, **options: Any) -> PydanticAgent:
        named = MODELS.get(given, given) if isinstance(given, str) else given
        agent = PydanticAgent(named, **options)
        stack.push_async_callback(agent.aclose)
        return agent

    return make
