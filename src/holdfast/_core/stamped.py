"""
What an entry's stamp, its `holdfast` field, says of it.

A stamp is read here and nowhere else, because anybody can have written the line that it stands
on: every field may be missing, or of any type that JSON has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.types import Entry

__all__ = ["host_of", "is_final", "is_question", "is_seed", "stamp_of", "turn_of"]


def stamp_of(entry: Entry) -> dict[str, Any]:
    """The stamp of *entry*; empty: a stranger wrote it."""
    stamp = entry.get("holdfast")
    return stamp if isinstance(stamp, dict) else {}


def turn_of(entry: Entry) -> str | None:
    """The id of the turn that wrote *entry*; None: a stranger did."""
    turn = stamp_of(entry).get("turn")
    return turn if isinstance(turn, str) else None


def host_of(entry: Entry) -> str | None:
    """The id of the turn that *entry*'s own turn was merged into; None: it was not."""
    host = stamp_of(entry).get("host")
    return host if isinstance(host, str) else None


def is_final(entry: Entry) -> bool:
    """Whether *entry* is the last of its turn's reply, the one that commits it."""
    return stamp_of(entry).get("final") is True


def is_seed(entry: Entry) -> bool:
    """Whether *entry* came before its turn's question: history, neither asked nor said."""
    return stamp_of(entry).get("seed") is True


def is_question(entry: Entry) -> bool:
    """Whether *entry*, which carries a turn's stamp, is what that turn asks."""
    message = entry.get("message")
    return isinstance(message, dict) and message.get("role") == "user" and not is_seed(entry)
