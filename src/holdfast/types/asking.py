"""What an agent is asked, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.types.names import Replay

__all__ = ["AgentEvent", "Final", "Made", "Prompt", "Silent", "Steered", "Text", "ToolCall"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """
    What an agent is asked to answer.

    `history` and `made` hold the transcript's `message` objects, oldest first:
    `{"role": "user"|"assistant"|"toolResult"|…, "content": str | [{"type": "text"|
    "toolCall", …}], …}`.  A compaction shows up in `history` as one message with role
    `compactionSummary` and a `summary`.
    """

    turn_id: str
    session_id: str
    session_key: str
    agent_id: str
    lane: str
    source: str
    text: str  #: The question.  It is not repeated in `history`.
    history: tuple[Mapping[str, Any], ...]
    attempt: int  #: 1 for the first.
    model: str | None = None  #: Asked for by this turn; None = the agent's own.
    #: What earlier attempts of this very turn have made, oldest first: assistant messages with
    #: tool calls, their results, and messages of role "user" that were steered in.  Go on after
    #: them.  If the last assistant message has no results behind it, make its calls, all of
    #: them and without saying so again, through the hook, which replays those that have run.
    made: tuple[Mapping[str, Any], ...] = ()
    instructions: str | None = None  #: For this turn only, beside the agent's own.


@dataclass(frozen=True, slots=True)
class Steered:
    """A message that was sent into the running turn.  It stands in the transcript already."""

    turn_id: str  #: Its own.
    text: str
    sender: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """Some text of the reply, as it streams.  Void if the attempt is superseded."""

    delta: str


@dataclass(frozen=True, slots=True)
class Made:
    """A finished message on the way: an assistant message with tool calls, or a result."""

    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Final:
    """The reply.  Exactly once, and last."""

    message: Mapping[str, Any]
    text: str


@dataclass(frozen=True, slots=True)
class Silent:
    """A deliberate silence instead of a reply.  Exactly once, and last."""

    reason: str


AgentEvent = Text | Made | Final | Silent


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call, before it runs."""

    call_id: str
    name: str
    arguments: Mapping[str, Any]
    replay: Replay = "never"  #: After a crash: run again (`safe`), or say so (`never`).
    timeout_s: float = 120.0
