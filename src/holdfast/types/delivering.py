"""What a channel is handed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.types.names import SessionId, TurnId

__all__ = ["Parcel"]


@dataclass(frozen=True, slots=True)
class Parcel:
    """One part to be delivered: the same at every attempt, but for `attempt`."""

    key: str  #: Stable: a receiver that has seen it has had this part.
    kind: str  #: reply | notice
    turn_id: TurnId
    session_id: SessionId
    session_key: str
    address: str  #: Whom it is for, as the channel names them; may be empty.
    part: int  #: From 1.
    parts: int
    text: str
    body: bytes  #: All of that as JSON: the very same bytes at every attempt.
    body_hash: str  #: SHA-256 of it, hex.
    attempt: int  #: From 1.
