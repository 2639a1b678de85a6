"""A transcript in memory whose write lock we hold: what may be done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast import _points as points
from holdfast._core import fence, jsonl
from holdfast._core.branch import Branch
from holdfast.errors import LockLostError
from holdfast.types import Appended, Change, Mark

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast._core.tree import Tree
    from holdfast.backends.memory.line import Waiter
    from holdfast.backends.memory.lines import View
    from holdfast.backends.memory.transcripts import MemoryTranscripts
    from holdfast.backends.memory.world import Room
    from holdfast.types import LineEnd, Session

__all__ = ["HeldTranscript"]


class HeldTranscript:
    """Not to be kept across a model call.  Any thread may release it."""

    def __init__(
        self,
        store: MemoryTranscripts,
        session: Session,
        room: Room,
        waiter: Waiter,
        *,
        contended: bool,
    ) -> None:
        self._store, self._session = store, session
        self._room, self._waiter = room, waiter
        self._contended = contended
        self._since_s: float | None = store.world.monotonic()

    @property
    def path(self) -> str:
        return self._store.path(self._session)

    def size(self) -> int:
        """Bytes, as in a file."""
        return self._view().size

    def _view(self) -> View:
        with self._store.world.mutex:
            return self._room.lines.view()

    def load(self) -> Tree:
        """All of it.  Raises BadTranscriptError: no header that we know."""
        return self._store.load(self._session, self._room)

    def branch(self) -> Branch:
        """The leaf, and what a model gets to see."""
        tree = self.load()
        return Branch.of(tree, self.size())

    def about(self, name: str, since: int = 0) -> Tree:  # noqa: ARG002  All is at hand.
        """All of it, which says more than is asked."""
        return self.load()

    def leaf(self) -> str | None:
        """The active leaf."""
        return self.load().leaf

    def mark(self) -> Mark:
        """How far it goes now, and its leaf."""
        leaf, view = self.leaf(), self._view()
        return Mark(0, self._room.lines.born, view.size, leaf, whole=view.size, proof=view)

    async def advance(self, mark: Mark, own: fence.Ledger | None = None) -> Change:
        """
        What has happened since *mark*.  Never waits.

        A mark keeps what stood there: no look is doubtful here, and none needs a digest.
        """
        before: View = mark.proof
        now = self._view()
        if not before.begins(now):
            return Change("rewritten", (), None, "another transcript stands in its place")
        return fence.told(mark, now.joined(before.count), own, self.leaf)

    def append(
        self,
        entries: Sequence[Mapping[str, Any]],
        *,
        final: bool,  # noqa: ARG002  It says what to sync, and nothing here is synced.
    ) -> Appended:
        """
        Append *entries*: all of them or none.  Nothing is more durable than memory.

        Raises:
            LockLostError: released already, or the owner was killed.  Nothing was written.
        """
        data = jsonl.encode(entries)
        points.reach("append.checked")
        with self._store.world.mutex:
            if self._room.writers.holder is not self._waiter:
                raise LockLostError(path=self.path, hint="this hold was released already")
            end = self._room.lines.append(data)
        points.reach("append.written")
        return Appended(data, end, self._session.generation, synced=True)

    def ends(self) -> list[LineEnd]:
        """Every line, in order."""
        return list(jsonl.ends(self._view().joined()))

    def release(self) -> None:
        """Give the write lock back.  Idempotent; never raises."""
        since_s, self._since_s = self._since_s, None
        if since_s is None:
            return
        self._store.world.leave(self._room.writers, self._waiter)
        held_s = self._store.world.monotonic() - since_s
        self._store.add_hold(held_s, contended=self._contended)
