"""
Every tool call of a pydantic-ai run goes through the runtime's hook.  Imports pydantic-ai.

The hook keeps JSON of what a tool returned.  A call that runs now gives the run what its tool
returned, as it is; a call that is replayed gives it that JSON, which tells the model the same.
What a `ToolReturn` carries beside its return value is not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pydantic_ai import exceptions as theirs
from pydantic_ai.messages import ToolReturn
from pydantic_ai.toolsets import WrapperToolset
from pydantic_core import to_jsonable_python

from holdfast.agents.tools import ToolDeclaration, declaration_of, read_declaration
from holdfast.errors import TooLargeError, ToolError
from holdfast.types import ToolCall

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_ai.tools import RunContext
    from pydantic_ai.toolsets import ToolsetTool

    from holdfast.ports import ToolHook

__all__ = ["Hooked"]


class _Run(Protocol):
    hook: ToolHook
    arguments: dict[str, Mapping[str, Any]]
    tool_errors: list[BaseException]


@dataclass
class Hooked(WrapperToolset[Any]):
    """Every call goes through the hook."""

    run: _Run

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        declared = _declared(tool)
        call_id = ctx.tool_call_id or ""
        call = ToolCall(
            call_id=call_id,
            name=name,
            # As the model wrote them: what was validated need not be JSON any more.
            arguments=self.run.arguments.get(call_id, tool_args),
            replay=declared.replay,
            timeout_s=declared.timeout_s,
        )
        by_hook, returned = True, list[Any]()

        async def run_it() -> Any:
            nonlocal by_hook
            try:
                returned.append(await super(Hooked, self).call_tool(name, tool_args, ctx, tool))
            except Exception as error:
                by_hook = False
                self.run.tool_errors.append(error)
                raise
            return _plain(returned[0])

        try:
            told = await self.run.hook(call, run_it)
        except ToolError as error:
            raise _again(error) from error
        except TooLargeError as error:
            if not by_hook:
                raise
            raise theirs.ToolFailed(f"{error}; {error.hint}") from None
        except TimeoutError:
            if not by_hook:
                raise
            raise theirs.ToolFailed(
                f"{name} did not finish within {declared.timeout_s:g} s and was cancelled;"
                " it is unknown what it did before"
            ) from None
        return returned[0] if returned else told


def _plain(value: Any) -> Any:
    """What the model is told of *value*, as JSON."""
    if isinstance(value, ToolReturn):
        value = value.return_value
    try:
        return to_jsonable_python(value, bytes_mode="base64", fallback=str)
    except ValueError:  # It holds itself.
        return str(value)


def _again(error: ToolError) -> Exception:
    """A failure that the model was told of is told again; any other ends the run, as it did."""
    match error.kind:
        case theirs.ModelRetry.__name__:
            return theirs.ModelRetry(error.detail)
        case theirs.ToolFailed.__name__:
            return theirs.ToolFailed(error.detail)
    return error


def _declared(tool: ToolsetTool[Any]) -> ToolDeclaration:
    """From the tool's metadata, or from its function, wherever toolsets have put it."""
    found = read_declaration(tool.tool_def.metadata)
    inner: Any = tool
    while found is None and inner is not None:
        schema = getattr(getattr(inner, "call_func", None), "__self__", None)
        found = declaration_of(getattr(schema, "function", None))
        inner = getattr(inner, "source_tool", None)
    return found or ToolDeclaration()
