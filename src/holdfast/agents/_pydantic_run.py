"""
One run of a pydantic-ai agent, as a stream of our events.  Imports pydantic-ai.

The run has a task of its own, and a generator reads from it, because a generator of ours may
be resumed and closed from any task, and pydantic-ai's context managers may not.  The two are
in lock step: what the run hands over is taken, and the next asked for, before it goes on.
Therefore an assistant message has been dealt with before the first of its tools runs.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from pydantic_ai.capabilities import AbstractCapability, ReinjectSystemPrompt
from pydantic_ai.messages import (
    FunctionToolResultEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_core import to_json

from holdfast.agents._pydantic_errors import failure, provider_error, unreadable
from holdfast.agents._pydantic_messages import conversation, from_response, from_result
from holdfast.agents._pydantic_open import closing_answers, watch
from holdfast.agents._pydantic_tools import Hooked
from holdfast.types import Final as FinalEvent
from holdfast.types import Made, Silent, Text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Mapping

    from pydantic_ai import Agent, AgentRunResult
    from pydantic_ai.messages import AgentStreamEvent, ModelResponse
    from pydantic_ai.models import Model, ModelRequestContext
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.tools import RunContext
    from pydantic_ai.toolsets import AbstractToolset

    from holdfast.ports import ToolHook
    from holdfast.types import AgentEvent, Prompt

__all__ = ["SILENT", "Ask", "respond"]

#: A reply that is exactly this is a silence.
SILENT: Final = "NO_REPLY"

#: Models that run in this process: nothing can cut their answers short on the way.
_IN_PROCESS: Final = frozenset({"test", "function"})
#: Providers whose adapters report a finish reason, but not in `provider_details`.
_TRUSTED: Final = frozenset({"xai", "MCP"})
#: Reported finish reasons that are none.
_NO_FINISH: Final = frozenset({"", "FINISH_REASON_UNSPECIFIED"})


@dataclass(frozen=True, slots=True)
class Ask:
    """What to run."""

    agent: Agent[Any, Any]
    model: Model | None  #: None: the agent's own.
    settings: ModelSettings
    deps: Any


async def respond(ask: Ask, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
    """`Agent.respond` for *ask*.  Closing the generator cancels the run and waits for it."""
    run = _Run(hook)
    task = asyncio.create_task(run.ask(ask, prompt))
    task.add_done_callback(lambda _: run.given.put_nowait(None))
    try:
        while (given := await run.given.get()) is not None:
            event, taken = given
            yield event
            if not taken.done():
                taken.set_result(None)
        result = _outcome(task, run)
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # Looked at: asyncio would report it as lost.
    yield _last(result)


def _outcome(task: asyncio.Task[AgentRunResult[Any]], run: _Run) -> AgentRunResult[Any]:
    try:
        return task.result()
    except Exception as error:
        # A tool may ask a model of its own: its failure is the tool's, not this run's.
        found = None if run.is_tools(error) else provider_error(error)
        if found is None and run.requesting:
            found = unreadable(error)
        if found is None:
            raise
        raise found from error


def _last(result: AgentRunResult[Any]) -> FinalEvent | Silent:
    output = result.output
    text = output if isinstance(output, str) else to_json(output, fallback=str).decode()
    if text.strip() == SILENT:
        return Silent(reason="no_reply")
    return FinalEvent(message=from_response(result.response, text=text), text=text)


@dataclass(eq=False)
class _Run:
    """What one run's parts share.  Belongs to the loop it was made on."""

    hook: ToolHook
    given: asyncio.Queue[tuple[AgentEvent, asyncio.Future[None]] | None] = field(
        default_factory=asyncio.Queue
    )
    arguments: dict[str, Mapping[str, Any]] = field(default_factory=dict)  #: By call id, JSON.
    tool_errors: list[BaseException] = field(default_factory=list)
    requesting: bool = False  #: A request to a provider is under way: nothing else is.
    begun: bool = False  #: There was a model call in this turn: what was steered since is due.
    _held: str | None = ""  #: Text that may yet turn out to be SILENT; None: it did not.

    async def ask(self, ask: Ask, prompt: Prompt) -> AgentRunResult[Any]:
        history, question = conversation(prompt)
        self.begun = bool(prompt.made)
        for message in history:
            if message.kind == "response":
                self._note_calls(message)
        async with closing_answers():
            return await ask.agent.run(
                question,
                message_history=history,
                model=ask.model,
                deps=ask.deps,
                instructions=prompt.instructions,  # Beside the agent's own.
                model_settings=ask.settings,
                infer_name=False,
                event_stream_handler=self._on_events,
                # A transcript holds no system prompts; without this the second turn has none.
                capabilities=[_Guard(self), ReinjectSystemPrompt()],
            )

    def is_tools(self, error: BaseException) -> bool:
        return any(error is each for each in self.tool_errors)

    async def give(self, event: AgentEvent) -> None:
        """Hand *event* over; returns when the reader has asked for the next one."""
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.given.put_nowait((event, taken))
        await taken

    async def on_response(self, response: ModelResponse, output_tools: set[str]) -> None:
        """A response is complete.  Refuses it, or hands it on if it asks for tools."""
        _check(response)
        held, self._held = self._held, ""
        if held and held.strip() != SILENT:
            await self.give(Text(delta=held))
        self._note_calls(response)
        # A call that only carries a structured output is the reply, not a step towards it.
        parts = [
            part
            for part in response.parts
            if part.part_kind != "tool-call" or part.tool_name not in output_tools
        ]
        if any(part.part_kind == "tool-call" for part in parts):
            await self.give(Made(message=from_response(replace(response, parts=parts))))

    def _note_calls(self, response: ModelResponse) -> None:
        for call in response.tool_calls:
            self.arguments[call.tool_call_id] = call.args_as_dict()

    async def _on_events(self, _: object, events: AsyncIterable[AgentStreamEvent]) -> None:
        async for event in events:
            match event:
                case PartStartEvent(part=TextPart(content=delta)) if delta:
                    await self._on_text(delta)
                case PartDeltaEvent(delta=TextPartDelta(content_delta=delta)) if delta:
                    await self._on_text(delta)
                case FunctionToolResultEvent(part=part):
                    await self.give(Made(message=from_result(part)))

    async def _on_text(self, delta: str) -> None:
        if self._held is not None:
            self._held += delta
            if SILENT.startswith(self._held.strip()):
                return
            delta, self._held = self._held, None
        await self.give(Text(delta=delta))


def _check(response: ModelResponse) -> None:
    """
    Refuse a response that did not come to its end.

    An OpenAI stream that just stops looks finished: pydantic-ai fills in ``stop``.  One of
    Anthropic's or Google's has no finish reason, and looks complete all the same.  Only the
    provider's own word for it, in `provider_details`, shows that the end was seen.
    """
    provider, finish = response.provider_name, response.finish_reason
    reported = (response.provider_details or {}).get("finish_reason")
    if finish == "content_filter":
        raise failure("content_filter", f"the answer was withheld (finish: {reported})")
    if finish == "error":
        raise failure("server_error", f"the answer ended in an error (finish: {reported})")
    if provider in _IN_PROCESS or provider is None:
        return
    ended = isinstance(reported, str) and reported not in _NO_FINISH
    if not ended and (finish is None or provider not in _TRUSTED):
        raise failure("truncated", "the answer ended without a finish reason")


# --------------------------------------------------------------- what pydantic-ai calls


@dataclass
class _Guard(AbstractCapability[Any]):
    """Sees every response before its tools run, and wraps every tool of every toolset."""

    run: _Run

    async def before_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """What was sent into the turn goes into this request, and stays in the history."""
        begun, self.run.begun = self.run.begun, True
        for each in await self.run.hook.steered() if begun else ():
            ctx.enqueue(each.text)
        return request_context

    async def prepare_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        del ctx
        watch(request_context.model)
        self.run.requesting = request_context.model.system not in _IN_PROCESS
        return request_context

    async def after_model_request(
        self,
        ctx: RunContext[Any],
        *,
        request_context: ModelRequestContext,
        response: ModelResponse,
    ) -> ModelResponse:
        del ctx
        self.run.requesting = False
        output_tools = request_context.model_request_parameters.output_tools
        await self.run.on_response(response, {each.name for each in output_tools})
        return response

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        return Hooked(toolset, self.run)
