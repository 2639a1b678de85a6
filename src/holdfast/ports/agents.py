"""What the runtime asks of an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from holdfast.types import (
        AgentEvent,
        Prompt,
        ToolCall,
    )

__all__ = [
    "Agent",
    "ToolHook",
]


class ToolHook(Protocol):
    """Every tool call of every agent goes through one of these."""

    async def __call__(self, call: ToolCall, run: Callable[[], Awaitable[Any]]) -> Any:
        """
        Run a tool: check the right to act, announce the call, bound it, return its result.

        Args:
            call: What is about to run.
            run: Runs it.  Awaited at most once; never after a refusal.

        Returns:
            What *run* returned.

        Raises:
            FencedError: this attempt may no longer act.  The tool did not run.
            TimeoutError: the tool outlasted ``call.timeout_s``; it was cancelled.

        Cancellation:
            Cancels the tool.
        """
        ...


@runtime_checkable
class Agent(Protocol):
    """Something that answers a prompt."""

    def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        """
        Answer *prompt* as a stream.

        Yields:
            `Text` as it arrives, `Made` for each finished intermediate message, and last
            exactly one `Final` or `Silent`.

        Raises:
            ProviderError:
                the provider failed.  A stream that ended without a finish reason is one
                (reason ``truncated``), never a reply.

        Cancellation:
            Safe at every yield and await.  Closing the generator (``aclose``) closes the
            connection to the provider; callers always close it.

        Rules:
            Tools run only through *hook*.  No retries inside: each layer that retries
            multiplies the others, and the runtime already does.
        """
        ...
