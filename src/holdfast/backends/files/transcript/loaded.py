"""
What this process has read of transcript files, so that only what is new is read again.

Of each file: its bytes so far as one running digest, the leaf, what a model gets to see of
the active branch, and, of short files, all the decoded entries.  It is believed as long as
the file continues it, by the same table that decides about a mark (`_core.fence`).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from holdfast._core import fence, jsonl
from holdfast._core.branch import Branch
from holdfast._core.tree import bad_header
from holdfast.backends.files import fs
from holdfast.errors import BadTranscriptError
from holdfast.types import Mark

if TYPE_CHECKING:
    import os

    from holdfast._core.tree import Tree
    from holdfast.backends.files.transcript import digest

__all__ = [
    "INLINE_BYTES",
    "KEPT_BYTES_MAX",
    "KEPT_MAX",
    "Known",
    "Reading",
    "check_header",
    "look_at",
    "read_bytes",
    "stat_of",
]

#: So much that is new may be read and hashed on the event loop when a mark is left.
INLINE_BYTES: Final = 64 * 1024
KEPT_MAX: Final = 64  #: Files whose decoded entries stay in memory.
#: The entries of a longer transcript are not kept, but its branch, if that is no longer.
KEPT_BYTES_MAX: Final = 8 * 1024 * 1024


@dataclass(slots=True)
class Known:
    """What has been read of one file, up to `end`."""

    look: fence.Look  #: At the time of reading.
    end: int = 0  #: Offset behind the last whole line.
    tail: bytes = b""  #: The last bytes before `end`.
    #: Of the first `end` bytes; None: they were not all read.
    sha: hashlib._Hash | None = field(default_factory=hashlib.sha256)
    leaf: str | None = None  #: At `end`; if `sure`.
    sure: bool = True
    tree: Tree | None = None  #: Fed up to `end`; None: the entries were not kept.
    branch: Branch | None = None  #: Fed at least up to `end`; None: not known.
    #: More of the same file, whose digest is in the making: the job, and what it will be.
    ahead: tuple[digest.Job, Known] | None = None

    def feed(self, data: bytes, look: fence.Look) -> None:
        """*data* stands at `end`.  Its torn tail is left for later."""
        self.look = look
        if not data:
            return
        whole = data[: data.rfind(b"\n") + 1]
        lines = list(jsonl.lines(whole, offset=self.end))
        if self.branch is not None and not self.branch.feed(lines):
            self.branch = None
        if self.tree is not None:
            self.tree.feed(lines)
            self.leaf, self.sure = self.tree.leaf, True
        elif self.branch is not None:
            self.leaf, self.sure = self.branch.leaf, True
        elif self.sure:
            self.sure, self.leaf = fence.branch_after(self.leaf, lines, begun=self.end > 0)
        if self.sha is not None:
            self.sha.update(whole)
        self.end += len(whole)
        self.tail = (self.tail + whole)[-fence.TAIL_BYTES :]

    def continues(self, fd: int, look: fence.Look, path: str) -> bool:
        """Whether the file is what we have read, and perhaps more."""
        stood = Mark(
            self.look.device, self.look.inode, self.look.size, None, self.look.birth_ns,
            self.look.mtime_ns, self.end, self.tail,
        )  # fmt: skip
        if look.size < self.end:
            return False
        tail = read_bytes(fd, self.end - len(self.tail), self.end, path)
        return fence.classify(stood, look, tail).verdict in {"same", "appended"}


class Reading:
    """
    What this process knows of files, by path.  One for all who read the same files.

    A file's entry is taken out by who holds its write lock, and put back: nobody else can
    meet it there.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()

    def take(self, path: str, fd: int, look: fence.Look) -> Known:
        """What is known of the file at *fd*; if it has been rewritten, nothing."""
        known = self._known.pop(path, None)
        if known is not None and known.ahead is not None:
            known = _caught_up(known, *known.ahead)
        if known is None or not known.continues(fd, look, path):
            return Known(look)
        return known

    def keep(self, path: str, known: Known) -> None:
        """Put it back.  Of a long transcript only the branch is kept."""
        if known.end > KEPT_BYTES_MAX and (tree := known.tree) is not None:
            branch = known.branch or Branch.of(tree, known.end)
            sha = known.sha.copy() if known.sha else None
            known = replace(known, tree=None, branch=branch, sha=sha)
        if known.branch is not None and known.branch.size > KEPT_BYTES_MAX:
            known = replace(known, branch=None)
        self._known[path] = known
        if len(self._known) > KEPT_MAX:
            self._known.popitem(last=False)


def _caught_up(known: Known, job: digest.Job, then: Known) -> Known:
    """If the digest has been made meanwhile: as if those bytes had been read."""
    if not job.made.done():
        return known
    sha = None if job.made.cancelled() else job.made.result()
    if sha is None:
        return replace(known, ahead=None)
    if known.end - then.end > INLINE_BYTES:
        return known  # The next job goes on where this one has stopped.
    return replace(then, sha=sha.copy(), branch=known.branch)


def look_at(fd: int, path: str, birth: tuple[int | None] | None = None) -> fence.Look:
    """*birth*: if it is known; it never changes.  Raises StoreError."""
    stat = stat_of(fd, path)
    try:
        [birth_ns] = (fs.table.birth_ns(fd),) if birth is None else birth
    except OSError as error:
        raise fs.store_error(error, path, "looking at the transcript") from error
    return fence.Look(stat.st_dev, stat.st_ino, birth_ns, stat.st_size, stat.st_mtime_ns)


def stat_of(fd: int, path: str) -> os.stat_result:
    """Raises StoreError."""
    try:
        return fs.table.fstat(fd)
    except OSError as error:
        raise fs.store_error(error, path, "looking at the transcript") from error


def read_bytes(fd: int, start: int, end: int, path: str) -> bytes:
    """What stands between two offsets; less, if the file ends before.  Raises StoreError."""
    chunks = []
    try:
        while start < end:
            chunk = fs.table.pread(fd, end - start, start)
            if not chunk:
                break
            chunks.append(chunk)
            start += len(chunk)
    except OSError as error:
        if isinstance(error, IsADirectoryError):
            raise BadTranscriptError(path=path, detail="it is a directory") from error
        raise fs.store_error(error, path, "reading the transcript") from error
    return b"".join(chunks)


def check_header(tree: Tree, path: str) -> None:
    """Raises BadTranscriptError unless *tree* begins with a header that we can append to."""
    problem = None
    if tree.header is None:
        problem = "the session header is missing"
    elif tree.skipped and tree.skipped[0][0] == 0:
        problem = bad_header(None)
    else:
        problem = bad_header(tree.header)
    if problem is not None:
        hint = f"mend it, keeping a copy, with: holdfast sessions repair {path}"
        raise BadTranscriptError(path=path, detail=problem, line=1, hint=hint)
