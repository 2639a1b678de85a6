"""What failed is outside: a provider, a tool, a channel, a peer on the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from holdfast.errors.root import Advice, HoldfastError

__all__ = [
    "DeliveryError",
    "ProviderError",
    "ToolError",
    "WireError",
]


@dataclass(kw_only=True, eq=False)
class ProviderError(HoldfastError):
    """
    A model provider failed.

    `reason` is one word of a closed set (`_core.failover.REASONS`); whether another
    attempt may help is decided there, from the reason alone.
    """

    code: ClassVar[str] = "provider"
    advice: ClassVar[Advice] = Advice.NEXT_ATTEMPT
    status: ClassVar[int] = 502

    reason: str
    detail: str
    http_status: int | None = None
    retry_after_s: float | None = None

    def __str__(self) -> str:
        status = f" (HTTP {self.http_status})" if self.http_status else ""
        return f"the model provider failed: {self.reason}{status}: {self.detail}"


@dataclass(kw_only=True, eq=False)
class ToolError(HoldfastError):
    """A tool call of this turn had failed in an earlier attempt.  It was not run again."""

    code: ClassVar[str] = "tool"

    tool: str
    kind: str  #: The name of the type of what it raised then.
    detail: str
    hint: str = "a call that has failed is not made again by itself; send the message anew"

    def __str__(self) -> str:
        return f"tool {self.tool} failed before: {self.kind}: {self.detail}"


@dataclass(kw_only=True, eq=False)
class DeliveryError(HoldfastError):
    """A channel failed to take a reply that is already committed."""

    code: ClassVar[str] = "delivery"
    advice: ClassVar[Advice] = Advice.RETRY_LATER
    status: ClassVar[int] = 502

    detail: str
    reason: str = "failed"  #: One word of `_core.delivery`: PERMANENT, TRANSIENT, AMBIGUOUS.
    permanent: bool = False  #: No later attempt will succeed.
    landed: bool | None = False  #: None: it may have arrived; nobody can tell.
    retry_after_s: float | None = None  #: What the other side asked for.

    def __str__(self) -> str:
        return f"not delivered: {self.reason}: {self.detail}"


@dataclass(kw_only=True, eq=False)
class WireError(HoldfastError):
    """A peer on the network broke the protocol."""

    code: ClassVar[str] = "wire"

    detail: str

    def __str__(self) -> str:
        return self.detail
