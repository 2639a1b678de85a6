"""Ids, tokens and words that all the other values are made of."""

from __future__ import annotations

from typing import Any, Literal, NewType

__all__ = ["Entry", "FencingToken", "OwnerId", "Replay", "SessionId", "TurnId"]

SessionId = NewType("SessionId", str)
TurnId = NewType("TurnId", str)
OwnerId = NewType("OwnerId", str)

#: int ≥ 1, per session, strictly increasing, issued with a lease, survives release.
FencingToken = NewType("FencingToken", int)

#: One transcript line, decoded.  Never written back: unknown fields live in the bytes.
Entry = dict[str, Any]

Replay = Literal["never", "safe"]
