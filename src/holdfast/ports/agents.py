"""What the runtime asks of an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from holdfast.types import (
        AgentEvent,
        Prompt,
        Steered,
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
        Run a tool, once in its turn: a memo that outlives the process.

        Its intent is durable before *run* is awaited, and its result before this returns.
        A call that has run to its end in an earlier attempt does not run again; one that
        may have had its effect runs again only if it is `safe`.

        Args:
            call: What is about to run.  Yield the assistant message that has it as `Made`
                before: calls of one turn are told apart by their ids, an id in a later
                message being another call.
            run: Runs it.  Awaited at most once; never after a refusal.

        Returns:
            What *run* returned; JSON of it, if it was recorded by an earlier attempt (what JSON
            cannot say as text).  A text that says so, if the call was interrupted and its
            effect is unknown: tell the model.

        Raises:
            FencedError, LeaseLostError: this attempt may no longer act.  The tool did not run.
            AbortedError: the turn is to end.  The tool did not run.
            TimeoutError: the tool outlasted ``call.timeout_s``; it was cancelled.
            TooLargeError: it ran, and returned more than `turn.tool_result_max_bytes`.
            ToolError: it failed in an earlier attempt, and was not run again.
            StoreError: its intent could not be kept, and it did not run; or its result could
                not, and it did.

        Cancellation:
            Cancels the tool.
        """
        ...

    async def steered(self) -> Sequence[Steered]:
        """
        Messages that were sent into this turn since it was last asked, oldest first.

        To be asked between tool batches and before each further model call.  What it returns
        stands in the transcript behind what was `Made` so far, and is part of the conversation
        from here on: the next model call must see it.  What nobody asks for becomes a turn
        of its own.  In the middle of a batch, while a call has no result, it is empty.

        Raises:
            FencedError, LeaseLostError: this attempt may no longer act.
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
            exactly one `Final` or `Silent`.  A `Made` is durable when the next event is
            asked for.

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
