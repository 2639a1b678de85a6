"""What the loop thread tells the main thread: the only values that pass between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.cli._chat.door import Accepted, Facts, Whose
    from holdfast.cli._chat.exchanges import Exchange
    from holdfast.errors import HoldfastError
    from holdfast.types import Entry

__all__ = [
    "Done", "EntryTold", "FactsTold", "Failed", "Note", "Other", "OwnAccepted", "OwnEnded",
    "OwnPosition", "OwnText", "OwnTool", "OwnVoid", "Recent", "Told",
]  # fmt: skip


# ------------------------------------------------------- what becomes of one's own message


@dataclass(frozen=True, slots=True)
class OwnAccepted:
    accepted: Accepted


@dataclass(frozen=True, slots=True)
class OwnPosition:
    turn_id: str
    position: int
    waiting_for: str | None


@dataclass(frozen=True, slots=True)
class OwnText:
    """A part of the reply."""

    turn_id: str
    text: str


@dataclass(frozen=True, slots=True)
class OwnVoid:
    """All text of the reply so far is void; another attempt begins."""

    turn_id: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class OwnTool:
    turn_id: str
    name: str
    state: str  #: started | done | failed


@dataclass(frozen=True, slots=True)
class OwnEnded:
    """`outcome` is the data of the event of that name."""

    outcome: Mapping[str, Any]


# ----------------------------------------------------------------------- everything else


@dataclass(frozen=True, slots=True)
class Other:
    """An exchange that nobody waits for here has its end in the transcript."""

    exchange: Exchange
    whose: Whose | None  #: None: a stranger wrote it.
    mine: bool  #: Asked here, but no longer waited for.


@dataclass(frozen=True, slots=True)
class EntryTold:
    """An entry of the transcript, in its order, whosever it is."""

    cursor: str | None
    entry: Entry


@dataclass(frozen=True, slots=True)
class Recent:
    """What was said before, oldest first."""

    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True, slots=True)
class FactsTold:
    facts: Facts


@dataclass(frozen=True, slots=True)
class Note:
    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """What was asked for cannot be had."""

    error: HoldfastError


@dataclass(frozen=True, slots=True)
class Done:
    """What was asked for has been told."""


Told = (
    OwnAccepted | OwnPosition | OwnText | OwnVoid | OwnTool | OwnEnded | Other | EntryTold
    | Recent | FactsTold | Note | Failed | Done
)  # fmt: skip
