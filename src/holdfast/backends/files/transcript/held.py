"""
A transcript file whose write lock we hold, whoever's it is.

Nothing here decides whether an append is allowed: the caller checks its token *after* it has
the lock, and the batch is written with one write while the lock is still held.

What a prompt window asks (`mark`, `advance`, `leaf`, `append`) does not grow with the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from holdfast._core import fence, jsonl
from holdfast._core.branch import Branch
from holdfast._core.tree import Tree
from holdfast.backends.files.transcript import opening, proving
from holdfast.backends.files.transcript.loaded import (
    INLINE_BYTES,
    Known,
    check_header,
    look_at,
    read_bytes,
    stat_of,
)
from holdfast.types import Appended, Change, Mark

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.backends.files.lock.hold import Hold
    from holdfast.backends.files.transcript.loaded import Reading
    from holdfast.types import LineEnd

__all__ = ["HeldFile"]

#: Read whole, and decoded: below this it is quicker than to be choosy.
SHORT_BYTES: Final = 128 * 1024
SCAN_BYTES: Final = 16 * 1024  #: Read back from the end, at first, to find the leaf.


class HeldFile:
    """
    A transcript whose write lock we hold.  Not to be kept across a model call.

    Args:
        hold: the write lock; `release` gives it back.
        reading: what this process has read of files; share one.
        durability: ``always``, ``turn`` (see `append`) or ``os``: what is synced.
        generation: told in `Appended`; raised by whoever rewrites the transcript.
    """

    def __init__(
        self, hold: Hold, reading: Reading, *, durability: str = "turn", generation: int = 0
    ) -> None:
        self._hold, self._reading = hold, reading
        self._durability, self._generation = durability, generation
        self._known: Known | None = None
        self._birth: tuple[int | None] | None = None  #: Asked once: we keep the inode alive.
        self._stood: Mark | None = None  #: Has been found to stand, in this hold.

    @property
    def path(self) -> str:
        return self._hold.path

    def size(self) -> int:
        """Bytes.  Raises StoreError."""
        return self._hold.size()

    def load(self) -> Tree:
        """
        Everything in the file, reading only what is new since this process last looked.

        Raises:
            BadTranscriptError: no header that we know; names the file and the line.
            StoreError: it cannot be read.
        """
        look, known = self._look()
        if known.tree is None:
            known = Known(look, tree=Tree())
        self._catch_up(known, look)
        assert known.tree is not None
        check_header(known.tree, self.path)
        return known.tree

    def branch(self) -> Branch:
        """
        What a turn is built on: the leaf, and what a model gets to see of the active branch,
        as `load` would say.

        Cost:
            The first time, it grows with what is kept of the branch: reads back from the end
            of the file (`_core.branch`, which says when that is not enough).  After that,
            with what is new.

        Raises:
            BadTranscriptError, StoreError: as `load`.
        """
        look, known = self._look()
        if known.tree is None and known.branch is None:
            if look.size > SHORT_BYTES:
                return self._open(look, known)
            return self._branch_of(self.load())
        if look.size - known.end > INLINE_BYTES:
            return self._open(look, known)
        self._catch_up(known, look)
        if known.branch is not None:
            return known.branch
        return self._open(look, known) if known.tree is None else self._branch_of(known.tree)

    def about(self, name: str, since: int = 0) -> Tree:
        """
        The entries that say *name*, a turn's or an entry's id, and perhaps others: what
        `Tree.ends`, `Tree.questions` and `Tree.entries` tell of it.  No leaf, no branch.

        Args:
            since: only those behind this offset, and perhaps others.

        Cost:
            One look at each byte, unless all entries are in memory; decodes only these.

        Raises:
            BadTranscriptError, StoreError: as `load`.
        """
        look, known = self._look()
        self._known = known
        if known.tree is not None or look.size <= SHORT_BYTES or not opening.can_search(name):
            return self.load()
        self._reading.keep(self.path, known)
        if opening.behind_header(self._hold.fd, look.size, self.path) is None:
            return self.load()
        start = since if self._begins_line(since, look.size) else 0
        found = Tree(header={})
        found.feed(opening.lines_with(self._hold.fd, name, start, look.size, self.path))
        found.leaf = None
        return found

    def leaf(self) -> str | None:
        """
        The active leaf, as `load` would say.

        Cost:
            Does not grow with the file: reads back from its end until it is certain.  Only
            a `leaf` entry that points far up, or a file without any conversation, is read
            whole.  Relies on ids as `branch` does.

        Raises:
            BadTranscriptError, StoreError: as `load`, if it comes to that.
        """
        stood = self._stood
        if stood is not None and self._unchanged(stood):
            return stood.leaf
        _, known = self._at_the_end()
        return known.leaf if known.sure else self.branch().leaf

    def mark(self) -> Mark:
        """
        How far the file goes now, and how to know it again.

        Where a mark has just been found to stand (`advance`), it is that mark again: what a
        stranger may have written since then is found the next time.

        Cost:
            Does not grow with the file.  If this process has not read it yet, a digest of it
            is begun in the background (up to `fence.DIGEST_BYTES_MAX`).

        Raises:
            As `leaf`.
        """
        if self._stood is not None and proving.can_tell(self._stood):
            stat_of(self._hold.fd, self.path)  # A disk that fails is told now, not afterwards.
            return self._stood
        look, known = self._at_the_end()
        leaf = known.leaf if known.sure else self.branch().leaf
        sha = known.sha
        return Mark(
            look.device, look.inode, look.size, leaf, look.birth_ns, look.mtime_ns, known.end,
            known.tail if known.end == look.size else self._tail(look.size),
            None if sha is None else sha.copy().digest(),
            proving.begin(self.path, look, known) if sha is None else None,
        )  # fmt: skip

    async def advance(self, mark: Mark, own: fence.Ledger | None = None) -> Change:
        """
        What has happened since *mark*, by the table in `_core.fence`.

        Args:
            own: what our window has appended since.

        Cost:
            Reads what was appended.  Only if the table says so, one digest of what stood at
            the mark, in a thread; the lock is held meanwhile.

        Raises:
            StoreError: it cannot be read.
            BadTranscriptError: as `load`, if the leaf has to be looked for in all of it.

        Cancellation:
            Safe; the digest is given up.
        """
        look = self._look_at()
        self._stood, tail = None, None
        if look.size >= mark.size and fence.is_same_file(mark, look):
            tail = self._tail(mark.size)
        row = fence.classify(mark, look, tail)
        if row.verdict == "rewritten":
            return Change("rewritten", (), None, row.why)
        if row.verdict == "needs_digest" and (
            gone := await proving.disproof(self.path, mark, look)
        ):
            return Change("rewritten", (), None, f"{row.why}, and {gone}")
        if row.verdict == "same" and (own is None or not own.ids):
            self._stood = mark
            return Change("same", (), mark.leaf)
        rest = read_bytes(self._hold.fd, mark.whole, look.size, self.path)
        return fence.told(mark, rest, own, lambda: self.branch().leaf)

    def append(self, entries: Sequence[Mapping[str, Any]], *, final: bool) -> Appended:
        """
        Append *entries* with one write, and sync as the durability says.

        Args:
            entries: complete, with ids and parents; all of them or none are written.
            final: the batch ends its turn, or is the question that begins it: durability
                ``turn`` syncs it.

        Raises:
            LockLostError: our claim is gone.  Nothing was written.
            TakeoverError: the path names another file by now.  Nothing was written.
            StoreError: nothing was written, unless ``landed`` says otherwise.
        """
        self._stood = None
        data = jsonl.encode(entries)
        synced = self._durability == "always" or (self._durability == "turn" and final)
        end = self._hold.append(data, sync=synced)
        return Appended(data, end, self._generation, synced)

    def ends(self) -> list[LineEnd]:
        """Every whole line, in order.  Reads all of it.  Raises StoreError."""
        return list(jsonl.ends(read_bytes(self._hold.fd, 0, self.size(), self.path)))

    def release(self) -> None:
        """Give the write lock back.  Idempotent; never raises."""
        self._known = self._stood = None
        self._hold.release()

    # ------------------------------------------------------------------------- inside

    def _look_at(self) -> fence.Look:
        look = look_at(self._hold.fd, self.path, self._birth)
        self._birth = (look.birth_ns,)
        return look

    def _look(self) -> tuple[fence.Look, Known]:
        look, known = self._look_at(), self._known
        if known is not None and known.look == look:
            return look, known
        fd = self._hold.fd
        if known is None or not known.continues(fd, look, self.path):
            known = self._reading.take(self.path, fd, look)
        return look, known

    def _unchanged(self, mark: Mark) -> bool:
        """One look: nobody has written since *mark* was found to stand."""
        stat = stat_of(self._hold.fd, self.path)
        return (stat.st_size, stat.st_mtime_ns) == (mark.size, mark.mtime_ns)

    def _at_the_end(self) -> tuple[fence.Look, Known]:
        """What is known of the file up to its last whole line: the leaf at least."""
        look, known = self._look()
        if look.size - known.end > INLINE_BYTES:
            whole, leaf = self._look_back(look)
            if self._known is not None and self._known.end == whole:
                return look, self._known  # All of it had to be read.
            tail = read_bytes(self._hold.fd, max(whole - fence.TAIL_BYTES, 0), whole, self.path)
            known = Known(look, whole, tail, None, leaf, ahead=known.ahead)
        self._catch_up(known, look)
        return look, known

    def _catch_up(self, known: Known, look: fence.Look) -> None:
        data = read_bytes(self._hold.fd, known.end, look.size, self.path)
        known.feed(data, look)
        self._known = known
        self._reading.keep(self.path, known)

    def _open(self, look: fence.Look, known: Known) -> Branch:
        """Read the branch from the end of the file, and know it from now on."""
        branch = opening.read_branch(self._hold.fd, look.size, self.path)
        if branch is None:
            return self._branch_of(self.load())
        if look.size - known.end > INLINE_BYTES:
            known = Known(look, branch.end, self._tail(branch.end), None, ahead=known.ahead)
        else:
            self._catch_up(known, look)
        known.branch, known.leaf, known.sure = branch, branch.leaf, True
        self._known = known
        self._reading.keep(self.path, known)
        return branch

    def _branch_of(self, tree: Tree) -> Branch:
        """Of a tree that is fed up to where `_known` goes."""
        known = self._known
        assert known is not None
        check_header(tree, self.path)
        branch = known.branch = Branch.of(tree, known.end)
        self._reading.keep(self.path, known)
        return branch

    def _begins_line(self, offset: int, size: int) -> bool:
        if not 0 < offset <= size:
            return offset == 0
        return read_bytes(self._hold.fd, offset - 1, offset, self.path) == b"\n"

    def _tail(self, end: int) -> bytes:
        start = max(end - fence.TAIL_BYTES, 0)
        return read_bytes(self._hold.fd, start, end, self.path)

    def _look_back(self, look: fence.Look) -> tuple[int, str | None]:
        """(Where the last whole line ends, the leaf), from the end of the file."""
        length = SCAN_BYTES
        while True:
            start = max(look.size - length, 0)
            data = read_bytes(self._hold.fd, start, look.size, self.path)
            first = data.find(b"\n") + 1 if start else 0  # The first line may be cut.
            lines = list(jsonl.lines(data[first:], offset=start + first))
            known, leaf = fence.last_base(lines)
            whole = start + data.rfind(b"\n") + 1
            if known:
                return whole, leaf
            if start == 0 or any(fence.is_control(line) for line in lines):
                return whole, self.branch().leaf
            length *= 4
