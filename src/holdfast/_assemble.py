"""
The only module that names a store, an agent and the runtime together.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from holdfast import config as outside
from holdfast.agents.configured import (
    LateAgent,
    agent_from,
    agents_from,
    as_agent,
    close_agents,
    import_from_here,
    load_object,
)
from holdfast.channels.configured import channels_from, close_channels
from holdfast.errors import BadSettingError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from holdfast._core.settings import Settings
    from holdfast._runtime.runtime import Holdfast
    from holdfast.ports import Agent, Channel, Store

__all__ = [
    "LateAgent",
    "agent_from",
    "agents_from",
    "as_agent",
    "channels_from",
    "close_agents",
    "close_channels",
    "import_from_here",
    "load_object",
    "open",
    "open_store",
    "opened",
]


@asynccontextmanager
async def open(  # noqa: A001  The contract's name: holdfast.open.
    store: str | os.PathLike[str],
    *,
    agent: Any = None,
    agents: Mapping[str, Any] | None = None,
    channels: Iterable[Channel] | None = None,
    settings: Mapping[str, Any] | None = None,
    config: str | os.PathLike[str] | None = None,
) -> AsyncIterator[Holdfast]:
    """
    Open a store; with agents, answer what is sent to them.

    Args:
        store: a state directory; made if it is not there.  ``memory:`` is a store of its
            own that is gone when it is closed; ``memory:NAME`` is one that all who open it in
            this process share, gone when the last of them closes it.
        agent: answers for the agent id ``main``: anything behind our `Agent` port, a
            pydantic-ai ``Agent``, the name of a model as pydantic-ai spells it, or ``demo``,
            the built-in one that needs no key.
        agents: agent id → the same, for more than one.
        channels: where replies are delivered to by this process: anything behind our `Channel`
            port.  None: those that the settings describe (``channels.<name>``).
        settings: dotted names, e.g. ``{"turn.queue_max": 400}``; they win over the
            environment (``HOLDFAST_TURN__QUEUE_MAX=400``).
        config: a TOML file of settings; the environment wins over it.  Unlike the commands,
            which look for ``holdfast.toml`` where they are started, this reads no file that
            it was not given.  Agents that are only named in settings are known, not run.

    Yields:
        A `Holdfast`.  Leaving lets running turns finish for a few seconds, then puts them
        back in their places.

    Raises:
        BadSettingError: an unknown or malformed setting, or not an agent.
        NotFoundError, BadRequestError: *config* is not there, or is not TOML.
        StoreError: the state directory cannot be used.
    """
    checked = outside.load(
        file=None if config is None else os.fspath(config),
        environment=os.environ,
        given=settings,
    )
    given = dict(agents or {})
    if agent is not None:
        given["main"] = agent
    running = {agent_id: as_agent(each) for agent_id, each in given.items()}
    made_here = [agent for agent_id, agent in running.items() if agent is not given[agent_id]]
    own_channels = channels_from(checked) if channels is None else []
    try:
        async with opened(store, checked, running, [*own_channels, *(channels or ())]) as hf:
            yield hf
    finally:  # Whoever made an agent or a channel itself closes it itself.
        await close_agents(made_here)
        await close_channels(own_channels)


@asynccontextmanager
async def opened(
    store: str | os.PathLike[str],
    settings: Settings,
    agents: Mapping[str, Agent] | None = None,
    channels: Iterable[Channel] = (),
) -> AsyncIterator[Holdfast]:
    """
    Like `open`, with settings that are checked, and agents and channels that their maker
    closes.  Without channels nothing is delivered here.

    Raises:
        BadSettingError: not a store that this version can open.
        StoreError: the state directory cannot be used.
    """
    from holdfast._runtime.runtime import Holdfast  # noqa: PLC0415  Loaded on use.

    where = os.fspath(store)
    if not where.startswith("memory:"):
        from holdfast.backends.files.lock import farewell  # noqa: PLC0415

        farewell.prepare()  # Here, where the main thread mostly is; no pump's thread may.
    found = await asyncio.get_running_loop().run_in_executor(None, open_store, where, settings)
    async with Holdfast(found, settings, dict(agents or {}), channels) as hf:
        yield hf


def open_store(where: str, settings: Settings) -> Store:
    """The store at *where*.  Raises StoreError, BadSettingError."""
    scheme, found, name = where.partition(":")
    if found and scheme == "memory":
        from holdfast.backends.memory.store import open_named  # noqa: PLC0415

        return open_named(name, settings)
    if found and "//" in where:
        raise BadSettingError(
            key="store",
            value=scheme + ":",
            allowed="a state directory, or memory: (other stores come later)",
        )
    from holdfast.backends.files.store import FilesStore  # noqa: PLC0415

    return FilesStore(where, settings)
