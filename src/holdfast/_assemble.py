"""
The only module that names a store, an agent and the runtime together.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from holdfast._core import settings as table
from holdfast.config import from_environment
from holdfast.errors import BadSettingError
from holdfast.ports import Agent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from holdfast._runtime.runtime import Holdfast
    from holdfast.ports import Store

__all__ = ["as_agent", "open", "open_store"]


@asynccontextmanager
async def open(  # noqa: A001  The contract's name: holdfast.open.
    store: str | os.PathLike[str],
    *,
    agent: Any = None,
    agents: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> AsyncIterator[Holdfast]:
    """
    Open a store; with agents, answer what is sent to them.

    Args:
        store: a state directory; made if it is not there.
        agent: answers for the agent id ``main``: anything behind our `Agent` port, a
            pydantic-ai ``Agent``, the name of a model as pydantic-ai spells it, or ``demo``,
            the built-in one that needs no key.
        agents: agent id → the same, for more than one.
        settings: dotted names, e.g. ``{"turn.queue_max": 400}``; they win over the
            environment (``HOLDFAST_TURN__QUEUE_MAX=400``).

    Yields:
        A `Holdfast`.  Leaving lets running turns finish for a few seconds, then puts them
        back in their places.

    Raises:
        BadSettingError: an unknown or malformed setting.
        StoreError: the state directory cannot be used.
    """
    from holdfast._runtime.runtime import Holdfast  # noqa: PLC0415  Loaded on use.

    checked = table.parse({**from_environment(os.environ), **(settings or {})})
    given = dict(agents or {})
    if agent is not None:
        given["main"] = agent
    running = {agent_id: as_agent(each) for agent_id, each in given.items()}
    made_here = [agent for agent_id, agent in running.items() if agent is not given[agent_id]]
    opened = await asyncio.get_running_loop().run_in_executor(
        None, open_store, os.fspath(store), checked
    )
    try:
        async with Holdfast(opened, checked, running) as hf:
            yield hf
    finally:
        for each in made_here:  # Whoever made an agent itself closes it itself.
            await _close(each)


def open_store(where: str, settings: table.Settings) -> Store:
    """The store at *where*.  Raises StoreError, BadSettingError."""
    scheme, found, _ = where.partition(":")
    if found and (scheme == "memory" or "//" in where):
        raise BadSettingError(
            key="store",
            value=scheme + ":",
            allowed="a state directory (other stores come later)",
        )
    from holdfast.backends.files.store import FilesStore  # noqa: PLC0415

    return FilesStore(where, settings)


def as_agent(given: Any) -> Agent:
    """Anything that we know how to ask, behind our port."""
    if isinstance(given, Agent):
        return given
    if given == "demo":
        from holdfast.agents.demo import DemoAgent  # noqa: PLC0415

        return DemoAgent()
    from holdfast.agents.pydantic_ai import PydanticAgent  # noqa: PLC0415

    return PydanticAgent(given)


async def _close(agent: Agent) -> None:
    if (aclose := getattr(agent, "aclose", None)) is not None:
        await aclose()
