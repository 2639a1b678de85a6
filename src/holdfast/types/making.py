"""What a turn makes on the way to its reply, and what is owed afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.types.names import FencingToken, OwnerId, Replay, SessionId, TurnId

__all__ = ["Delivery", "Handover", "MadeEntry", "ToolRecord"]


@dataclass(frozen=True, slots=True)
class MadeEntry:
    """A message on the way to a reply, and the id of the transcript entry that it will be."""

    entry_id: str
    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolRecord:
    """A tool call's row: its intent, durable before it ran, and its result."""

    turn_id: TurnId
    call_id: str
    result_id: str
    name: str
    arguments: Mapping[str, Any]
    replay: Replay
    state: str  #: started | done | failed | interrupted
    token: FencingToken
    runs: int
    result: Any  #: As JSON has it; None until it ended.
    started_at: str
    ended_at: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One part of a committed reply that is owed to a channel."""

    seq: int  #: In the order of obligation; parts of one target go in this order.
    delivery_id: str  #: The stable key: the same for every attempt at this part.
    turn_id: TurnId
    session_id: SessionId
    kind: str  #: reply | notice
    part: int  #: From 1.
    parts: int
    target: str  #: `channel:address`
    channel: str
    body: bytes
    body_hash: str
    state: str  #: pending | attempting | delivered | failed | unknown
    attempts: int
    owner_id: OwnerId | None
    not_before_ms: int
    created_ms: int
    blocking_ms: int | None  #: Since when others of its target wait for it.
    expires_ms: int
    reason: str | None
    hint: str | None
    remote_id: str | None
    created_at: str
    ended_at: str | None
    overtaken: bool = False  #: Later ones of its target went ahead.

    @property
    def address(self) -> str:
        return self.target.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Handover:
    """A request to let go of a session."""

    request_id: str
    session_id: SessionId
    turn_id: TurnId
    owner_id: OwnerId
    asked_at: str
    answer: str | None = None  #: let_go | busy
    detail: str | None = None
