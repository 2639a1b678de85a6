"""What a chat asks of where it talks to: a state directory or a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast.types import EntriesPage, SessionEvent, TurnEvent

__all__ = ["PATIENCE_S", "Accepted", "Door", "Facts", "Outgoing", "Whose"]

#: For so long a door that has answered before is asked again when it does not.
PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way out.  Sent again with the same key, it is the same message."""

    text: str
    idempotency_key: str
    lane: str = "user"
    source: str = "cli"
    policy: str | None = None
    model: str | None = None  #: Asked for this turn; only a state directory takes it.


@dataclass(frozen=True, slots=True)
class Accepted:
    turn_id: str
    session_id: str
    position: int
    waiting_for: str | None


@dataclass(frozen=True, slots=True)
class Whose:
    """What a transcript does not say of a turn."""

    lane: str
    source: str


@dataclass(frozen=True, slots=True)
class Facts:
    """How the session stands."""

    session_id: str | None  #: None: nothing has been said in it yet.
    waiting: int
    running: str | None  #: The turn that runs now.
    answers: str  #: Who answers, in words.


class Door(Protocol):
    """
    One session, seen from one chat.  Loop-bound.

    Every call may raise HoldfastError.  A call that meets a door which has answered before
    and does not answer now asks again for PATIENCE_S; `open` asks once.
    """

    name: str  #: Where this leads, for people.

    async def open(self) -> None:
        """Raises what is wrong with the place, the key or the token."""
        ...

    async def submit(self, message: Outgoing) -> Accepted: ...

    def follow(self, turn_id: str) -> AsyncGenerator[TurnEvent, None]:
        """As `Holdfast.follow`; goes on by itself where it was cut off."""
        ...

    def watch(self, after: str | None) -> AsyncGenerator[SessionEvent, None]:
        """As `Holdfast.watch`; goes on by itself, and waits for the session to exist."""
        ...

    async def recent(self, count: int) -> EntriesPage | None:
        """The last *count* entries; None: there is no such session yet."""
        ...

    async def whose(self, turn_id: str) -> Whose: ...

    async def cancel(self, turn_id: str) -> str | None:
        """Ask for the turn's end.  Returns its outcome, if it has one by now."""
        ...

    async def facts(self) -> Facts: ...

    async def close(self) -> None:
        """Hand back what is held.  Idempotent."""
        ...


def place_of(data: Any) -> tuple[int, str | None]:
    """(position, waiting for) of an event's data."""
    return int(data.get("position") or 0), data.get("waiting_for")
