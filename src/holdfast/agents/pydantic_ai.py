"""
Agents made with pydantic-ai.

Importing this module imports nothing of it: that takes a second, and a command that prints
its help should not pay for it.  The first turn loads it, on a thread.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from holdfast._core.failover import REASONS
from holdfast.errors import BadRequestError, ProviderError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    import pydantic_ai
    from pydantic_ai import models, settings

    from holdfast.ports import ToolHook
    from holdfast.types import AgentEvent, Prompt

__all__ = ["PydanticAgent"]


class PydanticAgent:
    """
    A pydantic-ai agent, or just the name of a model.

        PydanticAgent("openai-chat:gpt-4o-mini", instructions="Be brief.", tools=[weather])
        PydanticAgent(pydantic_ai.Agent(...), deps=...)

    A name is whatever pydantic-ai takes.  Mind that ``openai:`` speaks the Responses API and
    ``openai-chat:`` the Chat Completions API, which is what most compatible servers have.
    Keys and addresses come from the environment, as the provider's SDK reads them:

        openai-chat:NAME    OPENAI_API_KEY     OPENAI_BASE_URL
        anthropic:NAME      ANTHROPIC_API_KEY  ANTHROPIC_BASE_URL       holdfast[anthropic]
        google:NAME         GOOGLE_API_KEY     GOOGLE_GEMINI_BASE_URL   holdfast[google]

    A model is asked once: its SDK's own retries are off, because the runtime has its own, and
    two layers that retry multiply.  An `Agent` or `Model` of yours whose settings say
    ``max_retries`` keeps what they say.

    All tools, of whatever toolset, go through the runtime's hook.  Declare them with
    `holdfast.tool`, or by metadata ``{"holdfast": {"replay": …, "timeout_s": …}}``.  A tool
    that outlasts its bound is reported to the model as failed, and the turn goes on.

    Args:
        agent: an `Agent`, a `Model`, or a model's name.
        instructions: for a model: what it is told before every conversation.
        tools: for a model: functions, or pydantic-ai's `Tool`.
        deps: for an `Agent`: what its tools find in ``ctx.deps``.
        timeout_s: longest silence of the provider's connection; None = its SDK's default,
            which is ten minutes for most.

    Raises:
        BadRequestError: instructions or tools beside an `Agent`, which has its own.
    """

    def __init__(
        self,
        agent: pydantic_ai.Agent[Any, Any] | models.Model | str,
        *,
        instructions: str | None = None,
        tools: Sequence[Callable[..., Any] | pydantic_ai.Tool[Any]] = (),
        deps: Any = None,
        timeout_s: float | None = None,
    ) -> None:
        if hasattr(agent, "toolsets") and (instructions or tools):
            raise BadRequestError(
                detail="instructions and tools belong to the Agent that was given",
                hint="give them to the Agent, or give a model's name instead",
            )
        self._given = agent
        self._instructions, self._tools = instructions, tuple(tools)
        self._deps, self._timeout_s = deps, timeout_s
        self._agent: pydantic_ai.Agent[Any, Any] | None = None
        self._named: dict[str, models.Model] = {}
        self._loading = threading.Lock()

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        """
        Answer *prompt*; `holdfast.ports.Agent` says how.

        An assistant message with tool calls is yielded, and the next event asked for, before
        the first of its tools runs.  The reply ``NO_REPLY`` is a `Silent`; an output that is
        not text is a `Final` whose text is its JSON.

        Raises:
            ProviderError: the provider failed, or the model's name or key is not usable.
            Exception: whatever a tool or the hook raised, unchanged.

        Cancellation:
            Safe at every event.  The connection is closed before this returns; a tool that
            runs in a thread is let go of, because a thread cannot be stopped.
        """
        name = prompt.model or (self._given if isinstance(self._given, str) else None)
        if self._agent is None or (name is not None and name not in self._named):
            await asyncio.to_thread(self._load, name)
        from holdfast.agents import _pydantic_run  # noqa: PLC0415

        assert self._agent is not None
        model = None if name is None else self._named[name]
        ask = _pydantic_run.Ask(self._agent, model, self._settings(model), self._deps)
        async with aclosing(_pydantic_run.respond(ask, prompt, hook)) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        """
        Close the connections that were kept for the next turn, which would open new ones.

        Those of a given `Agent` or `Model` that its owner has entered stay open.
        """
        own = None if self._agent is None else self._agent.model
        kept = [*self._named.values(), own]
        for model in kept:
            if model is not None and not isinstance(model, str):
                async with model:  # Leaving it last closes its client.
                    pass

    def _load(self, name: str | None) -> None:
        """Import and build what a turn needs.  Takes a second or two the first time."""
        from holdfast.agents import _pydantic_run  # noqa: F401, PLC0415

        with self._loading:
            if self._agent is None:
                self._agent = self._make_agent()
            if name is not None and name not in self._named:
                self._named[name] = _named_model(name)

    def _make_agent(self) -> pydantic_ai.Agent[Any, Any]:
        import pydantic_ai  # noqa: PLC0415

        # It greets on stderr, which is where a command of ours talks to its user.
        pydantic_ai.BANNER_ENABLED = False
        if isinstance(self._given, pydantic_ai.Agent):
            return self._given
        return pydantic_ai.Agent(
            None if isinstance(self._given, str) else self._given,
            instructions=self._instructions,
            tools=self._tools,
        )

    def _settings(self, named: models.Model | None) -> settings.ModelSettings:
        found: settings.ModelSettings = {}
        assert self._agent is not None
        model = self._agent.model if named is None else named
        if not _says_retries(self._agent, model):
            found["max_retries"] = 0
        if self._timeout_s is not None:
            found["timeout"] = self._timeout_s
        return found


def _says_retries(agent: pydantic_ai.Agent[Any, Any], model: Any) -> bool:
    """Whether *max_retries* is its owner's word already, or nothing this model knows."""
    own = (agent.model_settings, getattr(model, "settings", None))
    return "max_retries" in getattr(model, "unsupported_settings", ()) or any(
        callable(each) or "max_retries" in (each or {}) for each in own
    )


def _named_model(name: str) -> models.Model:
    """
    Raises:
        ProviderError:
            `bad_request`: no such provider, or its package is not installed; `auth`: its
            credentials are not set.  Told apart by the step that failed.
    """
    from pydantic_ai import models, providers  # noqa: PLC0415
    from pydantic_ai.exceptions import UserError  # noqa: PLC0415

    provider, _ = models.parse_model_id(name)
    try:
        if provider is not None:
            providers.infer_provider_class(provider)
        elif name != "test":  # pydantic-ai's own model for tests has no provider.
            raise ValueError(name)
        return models.infer_model(name)
    except (ValueError, ImportError) as error:
        # An ImportError of theirs says which package to install.
        hint = str(error) if isinstance(error, ImportError) else _HOW_TO_NAME
        raise ProviderError(
            reason="bad_request", detail=f"unknown model {name!r}", hint=hint
        ) from error
    except UserError as error:
        raise ProviderError(
            reason="auth", detail=str(error), hint=REASONS["auth"].hint
        ) from error


_HOW_TO_NAME = "models are named provider:model, for example openai-chat:gpt-4o-mini"
