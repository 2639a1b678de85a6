"""Owners and runners: who is there, who can run what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from holdfast.types import (
        Look,
        Owner,
        OwnerId,
        SessionId,
        TurnId,
        Vouched,
    )
    from holdfast.types.tending import Commitment

__all__ = ["Owning"]


class Owning(Protocol):
    """Owners and runners: who is there, who can run what."""

    async def register(self, owner: Owner) -> None: ...
    async def register_runner(
        self, owner_id: OwnerId, agents: Collection[str], *, permanent: bool
    ) -> None: ...
    async def permanent_runners(self, agent_id: str) -> list[Owner]: ...
    async def beat(
        self, owner_id: OwnerId, progress: Mapping[TurnId, Mapping[str, Any]] | None = None
    ) -> bool:
        """
        Say that we are here.  False: we were buried, and hold nothing any more.

        Args:
            progress: what each of our runs is at, as JSON, for people: `Holder.progress`.
                Of a turn that we do not run (any more) nothing is noted.
        """
        ...

    async def set_draining(self, owner_id: OwnerId) -> None: ...
    async def leave(self, owner_id: OwnerId) -> None: ...
    async def bury(self, owner_id: OwnerId, reason: str) -> bool: ...
    async def look(self, owner_id: OwnerId) -> Look: ...
    async def note(
        self,
        kind: str,
        owner_id: OwnerId,
        *,
        session_id: SessionId | None = None,
        turn_id: TurnId | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Put an event into the log.  Decides nothing."""
        ...

    # What commits have vouched for, for who compares it with transcripts.

    async def vouched(self, after: SessionId | None = None) -> list[Vouched]:
        """
        A page of sessions with a commit, by id, behind *after*; deleted ones are left out.
        Empty: that was all.
        """
        ...

    async def commits(self, session_id: SessionId) -> list[Commitment]:
        """The commits of a session, of the generation it has now, by offset."""
        ...

    async def restored(
        self,
        session_id: SessionId,
        was: int,
        end_offset: int,
        moved: Mapping[TurnId, int],
        told: Mapping[str, Any],
    ) -> None:
        """
        A transcript that was cut is whole again.

        Args:
            was: how far a commit had vouched for it; if one has done so since, that stands.
            end_offset: its size when it was whole again.
            moved: committed turns whose final entry ends elsewhere now.
            told: the event's data.
        """
        ...

    async def trim_events(self, keep: int) -> int: ...
