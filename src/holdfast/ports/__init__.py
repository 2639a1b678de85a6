"""
What the runtime asks of an agent, a store and a channel.  Protocols only; nothing here runs.

Every method of a store that changes something is one transaction: it happened (returned),
it did not (raised), or nobody can tell (`UnavailableError` with ``landed=None``).
"""

from __future__ import annotations

from holdfast.ports.agents import Agent, ToolHook
from holdfast.ports.channels import Channel
from holdfast.ports.control import ControlStore
from holdfast.ports.stores import Guarantees, Store
from holdfast.ports.transcripts import (
    HeldTranscript,
    LiveFile,
    LiveOutput,
    LiveTail,
    Transcripts,
)

__all__ = [
    "Agent",
    "Channel",
    "ControlStore",
    "Guarantees",
    "HeldTranscript",
    "LiveFile",
    "LiveOutput",
    "LiveTail",
    "Store",
    "ToolHook",
    "Transcripts",
]
