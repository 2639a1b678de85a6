"""
Frozen values that cross module borders.  No behaviour beyond what a value can say of itself.
"""

from __future__ import annotations

from holdfast.types.asking import (
    AgentEvent,
    Final,
    Made,
    Prompt,
    Silent,
    Steered,
    Text,
    ToolCall,
)
from holdfast.types.coordinating import (
    Admission,
    Admitted,
    Commit,
    Leased,
    Look,
    Owner,
    Place,
    Reset,
    Session,
    Standing,
    Trimmed,
    Turn,
    Vouched,
)
from holdfast.types.delivering import Parcel
from holdfast.types.freezing import FrozenHolder
from holdfast.types.making import Delivery, Handover, MadeEntry, ToolRecord
from holdfast.types.names import Entry, FencingToken, OwnerId, Replay, SessionId, TurnId
from holdfast.types.telling import Around, EventRow, Holder, LaneState, Owed, Waiting, Why
from holdfast.types.transcripts import (
    Advance,
    Appended,
    Change,
    EntriesPage,
    LineEnd,
    Mark,
)
from holdfast.types.watching import (
    Counts,
    Drained,
    HoldStatistics,
    LiveEvent,
    LogId,
    Pulse,
    SessionEvent,
    TurnEvent,
    TurnState,
)

__all__ = [
    "Admission",
    "Admitted",
    "Advance",
    "AgentEvent",
    "Appended",
    "Around",
    "Change",
    "Commit",
    "Counts",
    "Delivery",
    "Drained",
    "EntriesPage",
    "Entry",
    "EventRow",
    "FencingToken",
    "Final",
    "FrozenHolder",
    "Handover",
    "HoldStatistics",
    "Holder",
    "LaneState",
    "Leased",
    "LineEnd",
    "LiveEvent",
    "LogId",
    "Look",
    "Made",
    "MadeEntry",
    "Mark",
    "Owed",
    "Owner",
    "OwnerId",
    "Parcel",
    "Place",
    "Prompt",
    "Pulse",
    "Replay",
    "Reset",
    "Session",
    "SessionEvent",
    "SessionId",
    "Silent",
    "Standing",
    "Steered",
    "Text",
    "ToolCall",
    "ToolRecord",
    "Trimmed",
    "Turn",
    "TurnEvent",
    "TurnId",
    "TurnState",
    "Vouched",
    "Waiting",
    "Why",
]
