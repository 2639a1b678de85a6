"""
Frozen values that cross module borders.  No behaviour beyond what a value can say of itself.
"""

from __future__ import annotations

from holdfast.types.asking import AgentEvent, Final, Made, Prompt, Silent, Text, ToolCall
from holdfast.types.coordinating import (
    Admission,
    Admitted,
    Commit,
    Leased,
    Look,
    Owner,
    Place,
    Session,
    Standing,
    Turn,
)
from holdfast.types.names import Entry, FencingToken, OwnerId, Replay, SessionId, TurnId
from holdfast.types.transcripts import Advance, Appended, Change, EntriesPage, Mark
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
    "Change",
    "Commit",
    "Counts",
    "Drained",
    "EntriesPage",
    "Entry",
    "FencingToken",
    "Final",
    "HoldStatistics",
    "Leased",
    "LiveEvent",
    "LogId",
    "Look",
    "Made",
    "Mark",
    "Owner",
    "OwnerId",
    "Place",
    "Prompt",
    "Pulse",
    "Replay",
    "Session",
    "SessionEvent",
    "SessionId",
    "Silent",
    "Standing",
    "Text",
    "ToolCall",
    "Turn",
    "TurnEvent",
    "TurnId",
    "TurnState",
]
