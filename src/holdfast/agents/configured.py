"""
Agents by what settings and callers say of them: a model's name, an object, a path to one.

Users' modules are imported here and nowhere else.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import traceback
from contextlib import aclosing
from importlib import import_module
from typing import TYPE_CHECKING, Any

from holdfast._core.settings_forms import nearest
from holdfast.errors import BadSettingError
from holdfast.ports import Agent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from holdfast._core.settings import AgentSettings, Settings
    from holdfast.ports import ToolHook
    from holdfast.types import AgentEvent, Prompt

__all__ = [
    "LateAgent",
    "agent_from",
    "agents_from",
    "as_agent",
    "close_agents",
    "import_from_here",
    "load_object",
]


def as_agent(given: Any, *, key: str = "agent") -> Agent:
    """
    Anything that we know how to ask, behind our port.

    Raises:
        BadSettingError: it is nothing of the kind; names *key*.
    """
    if given == "demo":
        from holdfast.agents.demo import DemoAgent  # noqa: PLC0415

        return DemoAgent()
    if not _is_agent(given):
        # Its type only: what strangers' objects say of themselves may be long, or secret.
        is_class = isinstance(given, type)
        what = f"the class {given.__name__}" if is_class else f"a {type(given).__name__}"
        raise BadSettingError(
            key=key,
            value=what,
            allowed="a model's name, a pydantic-ai Agent or Model, or an object behind"
            " holdfast.ports.Agent",
        )
    if isinstance(given, Agent):
        return given
    from holdfast.agents.pydantic_ai import PydanticAgent  # noqa: PLC0415

    return PydanticAgent(given)


def _is_agent(given: Any) -> bool:
    if isinstance(given, type):  # A class that has `respond` would pass for an agent.
        return False
    if isinstance(given, str):
        return bool(given.strip())
    if isinstance(given, Agent):
        return True
    if "pydantic_ai" not in sys.modules:  # Then nobody can have made one of its objects.
        return False
    import pydantic_ai  # noqa: PLC0415
    from pydantic_ai.models import Model  # noqa: PLC0415

    return isinstance(given, pydantic_ai.Agent | Model)


async def close_agents(agents: Iterable[Agent]) -> None:
    """Close what *agents* keep open, for whoever made them."""
    for each in agents:
        if (aclose := getattr(each, "aclose", None)) is not None:
            await aclose()


class LateAgent:
    """
    An agent that is made when it is first needed: users' code is not run for nothing.

    Args:
        make: called once, on a thread.
    """

    def __init__(self, make: Callable[[], Agent]) -> None:
        self._make = make
        self._made: Agent | None = None
        self._making = asyncio.Lock()

    async def ready(self) -> Agent:
        """Make it now.  Raises what making it raises."""
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
            return self._made

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        agent = await self.ready()
        async with aclosing(agent.respond(prompt, hook)) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        """Close what was made, if anything was."""
        if self._made is not None:
            await close_agents([self._made])


# -------------------------------------------------------------------- agents by settings


def agents_from(settings: Settings) -> dict[str, Agent]:
    """
    The agents that the settings say how to run: agent id → agent.

    An agent that is only named, with neither a model nor an object, is not among them.  Who
    calls this closes them (`close_agents`).

    Raises:
        BadSettingError: an object or a tool cannot be had; names the setting.

    Cost:
        Imports users' modules, which may take seconds: before the event loop, or off it.
    """
    return {
        agent_id: agent_from(agent_id, told)
        for agent_id, told in settings.agents.items()
        if told.model is not None or told.object is not None
    }


def agent_from(agent_id: str, told: AgentSettings) -> Agent:
    """
    One agent by its settings: ``agents.<agent_id>.model|instructions|tools|object``.

    Raises:
        BadSettingError: see `agents_from`.
    """
    above = f"agents.{agent_id}"
    if told.object is not None:
        key = f"{above}.object"
        found = _called(load_object(told.object, key=key), told.object, key)
        return as_agent(found, key=key)
    if told.model is None:
        raise BadSettingError(key=f"{above}.model", value="", allowed="a model's name")
    if not told.instructions and not told.tools:
        return as_agent(told.model, key=f"{above}.model")
    from holdfast.agents.pydantic_ai import PydanticAgent  # noqa: PLC0415

    tools = [_tool(spec, f"{above}.tools") for spec in told.tools]
    return PydanticAgent(told.model, instructions=told.instructions, tools=tools)


def import_from_here() -> None:
    """
    Let modules of the working directory be imported, as ``python -m`` does.

    For commands, whose user stands in that directory.  A library is not steered by it.
    """
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


def load_object(spec: str, *, key: str) -> Any:
    """
    What ``module:attribute`` names; both may have dots.

    Args:
        key: the setting that it stands in, for errors.

    Raises:
        BadSettingError: there is no such module or attribute, or importing the module
            failed; the first cause is chained.

    Cost:
        Imports the module.
    """
    module, _, path = spec.partition(":")
    if not module or not path:
        raise BadSettingError(key=key, value=spec, allowed="MODULE:OBJECT like app:agent")
    found: Any = _imported(module, spec, key)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            near = nearest(name, (each for each in dir(found) if not each.startswith("_")))
            meant = f"; did you mean {near}?" if near else ""
            raise BadSettingError(
                key=key, value=spec, allowed=f"there is no {name!r} in it{meant}"
            ) from error
    return found


def _imported(module: str, spec: str, key: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        # A module that it imports itself is another matter: that one has to be installed.
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise BadSettingError(
                key=key,
                value=spec,
                allowed=f"there is no module {error.name!r}",
                hint="run the command in its directory, or install it",
            ) from error
        raise _failed(error, f"importing {module}", spec, key) from error
    except (Exception, SystemExit) as error:
        raise _failed(error, f"importing {module}", spec, key) from error


def _called(found: Any, spec: str, key: str) -> Any:
    """A class or a function that is no agent itself makes one: it is called, once."""
    if _is_agent(found) or not callable(found):
        return found
    try:
        made = found()
    except (Exception, SystemExit) as error:
        raise _failed(error, "calling it", spec, key) from error
    if inspect.iscoroutine(made):
        made.close()
        raise BadSettingError(
            key=key, value=spec, allowed="an agent, or a plain (not async) function making one"
        )
    return made


def _tool(spec: str, key: str) -> Any:
    found = load_object(spec, key=key)
    # pydantic-ai's own `Tool` holds a function, and is none.
    if isinstance(found, type) or not callable(getattr(found, "function", found)):
        raise BadSettingError(key=key, value=spec, allowed="it is no function")
    return found


def _failed(error: BaseException, doing: str, spec: str, key: str) -> BadSettingError:
    frames = traceback.extract_tb(error.__traceback__)
    theirs = frames and frames[-1].filename != __file__  # Otherwise it was never entered.
    last = frames[-1] if theirs else None
    where = f" ({os.path.basename(last.filename)}:{last.lineno})" if last else ""
    return BadSettingError(
        key=key,
        value=spec,
        allowed=f"{doing} failed: {type(error).__name__}: {error}{where}",
    )
