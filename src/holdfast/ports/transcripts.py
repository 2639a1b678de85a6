"""What the runtime asks of the transcripts and of live output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from holdfast._core.branch import Branch
    from holdfast._core.fence import Ledger
    from holdfast._core.tree import Tree
    from holdfast.types import (
        Appended,
        Change,
        EntriesPage,
        Entry,
        FencingToken,
        LineEnd,
        LiveEvent,
        Mark,
        Session,
        SessionId,
        TurnId,
        Vouched,
    )

__all__ = [
    "HeldTranscript",
    "LiveFile",
    "LiveOutput",
    "LiveTail",
    "Transcripts",
]


class HeldTranscript(Protocol):
    """A transcript whose write lock we hold."""

    @property
    def path(self) -> str: ...
    def size(self) -> int:
        """Something that differs once entries were added; for files, bytes."""
        ...

    def load(self) -> Tree:
        """All of it.  Raises BadTranscriptError: no header that we know."""
        ...

    def branch(self) -> Branch:
        """
        What a turn is built on: the leaf and the history, as `load` would say.  Grows with
        what a model gets to see, not with the transcript.  To be used before it is grown.

        Raises:
            As `load`.
        """
        ...

    def about(self, name: str, since: int = 0) -> Tree:
        """
        What `Tree.ends`, `Tree.questions` and `Tree.entries` of the whole say of one turn or
        entry, and perhaps of others; nothing else in it is to be believed.

        Args:
            name: the id.
            since: only in what stands behind this size, and perhaps before.

        Raises:
            As `load`.
        """
        ...

    def leaf(self) -> str | None:
        """The active leaf, as `load` would say.  Does not grow with the transcript."""
        ...

    def mark(self) -> Mark:
        """How far it goes now, and its leaf.  Does not grow with the transcript."""
        ...

    async def advance(self, mark: Mark, own: Ledger | None = None) -> Change:
        """
        What has happened since *mark*: `same`, `appended` or `rewritten`, by `_core.fence`.

        Args:
            own: what the window itself has appended since; not reported, and missed if gone.

        Raises:
            StoreError: it cannot be read.

        Cancellation:
            Safe: nothing was changed.  The lock stays held.
        """
        ...

    def append(self, entries: Sequence[Mapping[str, Any]], *, final: bool) -> Appended:
        """
        All of *entries*, in order, with one write; or none.

        The caller has checked its token after it got the lock, and keeps the lock until
        this returns: so an append by token *n* is either wholly before the load of token
        *n* + 1, and seen by it, or refused.

        Raises:
            LockLostError: nothing was written.
            StoreError: nothing was written, unless ``landed`` is None.
        """
        ...

    def ends(self) -> list[LineEnd]:
        """Every whole line, in order.  Reads all of it: for one that is damaged.  A thread."""
        ...

    def release(self) -> None: ...


class Transcripts(Protocol):
    """The entries of every session."""

    async def acquire(
        self,
        session: Session,
        *,
        timeout_s: float,
        token: FencingToken | None,
        run_id: str | None,
        lane: str | None,
    ) -> HeldTranscript:
        """
        Take the write lock of *session*'s transcript.

        Raises:
            LockTimeoutError: not within *timeout_s*, one total deadline.
            StoreError: the medium failed, or this is no transcript.

        Cancellation:
            Safe; nothing stays held.
        """
        ...

    def path(self, session: Session) -> str: ...
    def is_at(self, session: Session, path: str) -> bool:
        """Whether *path*, by whatever name, is this session's transcript."""
        ...

    def salvage(
        self, turn_id: TurnId, token: FencingToken, entries: Sequence[Entry]
    ) -> str | None:
        """
        Keep a finished reply whose transcript is none any more where a person finds it,
        whole and durable.

        Returns:
            Where, relative to the store; None: this store has no such place (the turn's
            row has the reply in any case).

        Raises:
            StoreError: it could not be written.
        """
        ...

    def read(self, session: Session) -> Tree: ...
    def page(
        self, session: Session, after: str | None, *, limit: int, last: int | None = None
    ) -> EntriesPage:
        """
        Some entries, in the order of the file.  No lock, no row, no byte changed.

        Args:
            after: a cursor; None = the beginning.  One of an earlier generation starts over.
            last: instead, the last so many there are.

        Raises:
            BadRequestError: not a cursor.
            StoreError: it cannot be read.
        """
        ...

    def shorter(self, vouched: Sequence[Vouched]) -> list[SessionId]:
        """Those whose transcript is shorter than its rows say, or gone.  One look each."""
        ...

    def end(self, session: Session) -> int:
        """Something that differs once entries were added.  One system call."""
        ...


class LiveFile(Protocol):
    def write(self, line: bytes) -> None: ...
    def close(self) -> None: ...


class LiveTail(Protocol):
    def read(self, newest: int) -> list[LiveEvent]:
        """Some new events of the log of token *newest*; none: no more for now."""
        ...


class LiveOutput(Protocol):
    """Work in progress, for whoever watches.  A view: its loss costs no turn."""

    def open(self, turn_id: TurnId, token: FencingToken) -> LiveFile: ...
    def turn_ids(self) -> set[str]: ...
    def newest(self, turn_ids: Collection[TurnId]) -> dict[TurnId, int]:
        """The newest token that has a log, of each of *turn_ids* that has any."""
        ...

    def tail(self, turn_id: TurnId) -> LiveTail: ...
    def watch(self, told: Callable[[TurnId, int], None]) -> Callable[[], None]:
        """Hint *told*, on the running loop, at logs that grow.  Returns: stops watching."""
        ...

    def remove(self, is_over: Callable[[str], bool]) -> int: ...
