"""
What a tool says of itself: whether it may run twice, and how long it may take.

A call's intent is durable before it runs and its result after, so one that has run to its end
is never made again: a later attempt is given what was recorded of it.  What a crash leaves
open, a call that began and has no result, is what `replay` decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args

from holdfast.errors import BadRequestError
from holdfast.types import Replay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ToolDeclaration", "declaration_of", "read_declaration", "tool"]

F = TypeVar("F", bound="Callable[..., Any]")

TIMEOUT_DEFAULT_S: Final = 120.0
_ATTRIBUTE: Final = "__holdfast_tool__"


@dataclass(frozen=True, slots=True)
class ToolDeclaration:
    """
    Attributes:
        replay: `never` = after a crash inside the tool, tell the model that it was interrupted
            and its effect is unknown; `safe` = run it again.
        timeout_s: seconds after which a call is cancelled.  Its failure is recorded: whatever
            the declaration, it is not run again.
    """

    replay: Replay = "never"
    timeout_s: float = TIMEOUT_DEFAULT_S

    def __post_init__(self) -> None:
        if self.replay not in get_args(Replay):
            raise BadRequestError(
                detail=f"replay = {self.replay!r}: it is one of {', '.join(get_args(Replay))}"
            )
        if not self.timeout_s > 0:
            raise BadRequestError(detail=f"timeout_s = {self.timeout_s!r}: it is above zero")


def tool(*, replay: Replay = "never", timeout_s: float = TIMEOUT_DEFAULT_S) -> Callable[[F], F]:
    """
    Declare how a tool behaves.  The function itself is returned unchanged.

        @holdfast.tool(replay="safe", timeout_s=10)
        async def weather(city: str) -> str: ...

    A function without a declaration is treated as ``replay="never"``, 120 seconds.

    Raises:
        BadRequestError: no such `replay`, or a timeout that is not above zero.
    """
    declaration = ToolDeclaration(replay=replay, timeout_s=timeout_s)

    def declare(function: F) -> F:
        setattr(function, _ATTRIBUTE, declaration)
        return function

    return declare


def declaration_of(function: object) -> ToolDeclaration | None:
    """What `tool` noted on *function*; None if it was not declared."""
    found = getattr(function, _ATTRIBUTE, None)
    return found if isinstance(found, ToolDeclaration) else None


def read_declaration(metadata: Mapping[str, Any] | None) -> ToolDeclaration | None:
    """
    The declaration in a tool's metadata: ``{"holdfast": {"replay": …, "timeout_s": …}}``.

    Raises:
        BadRequestError: it is there, but it is not one.
    """
    noted = (metadata or {}).get("holdfast")
    if noted is None:
        return None
    try:
        return ToolDeclaration(**noted)
    except TypeError:
        raise BadRequestError(
            detail=f"tool metadata holdfast = {noted!r}: it holds replay and timeout_s"
        ) from None
