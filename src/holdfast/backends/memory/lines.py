"""A transcript in memory: a list of JSON lines, the header first."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

__all__ = ["Lines", "View"]


@dataclass(frozen=True, slots=True)
class View:
    """
    A transcript as it stood at one moment, without a copy.

    The lists only grow behind `count`, and whoever replaces the lines makes new lists: what
    is seen here stays, and is read without the mutex.
    """

    _lines: list[bytes]
    _ends: list[int]
    count: int

    @property
    def size(self) -> int:
        return self.end_of(self.count - 1)

    def line(self, index: int) -> bytes:
        return self._lines[index]

    def joined(self, start: int = 0) -> bytes:
        """All lines from number *start* on."""
        return b"".join(self._lines[start : self.count])

    def end_of(self, index: int) -> int:
        """The offset behind line *index*; 0 for -1."""
        return self._ends[index] if index >= 0 else 0

    def index_at(self, offset: int) -> int | None:
        """The number of the line that begins at *offset*; None if none does or will."""
        if offset == 0:
            return 0
        at = bisect_left(self._ends, offset, 0, self.count)
        return at + 1 if at < self.count and self._ends[at] == offset else None

    def begins(self, later: View) -> bool:
        """Whether *later* has all of our lines, and perhaps more behind them."""
        mine, theirs = self._lines, later._lines
        return mine is theirs or mine[: self.count] == theirs[: self.count]


class Lines:
    """
    Lines as they would stand in a file, each with its newline.

    Offsets count bytes, as they do in a file.  Not thread-safe: see `world`.
    """

    __slots__ = ("_ends", "_lines", "born")

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._ends: list[int] = []  #: Offset behind each line.
        self.born = 1  #: Raised when the lines are replaced, as an inode is.

    def view(self) -> View:
        return View(self._lines, self._ends, len(self._lines))

    def append(self, data: bytes) -> int:
        """Add whole lines.  Returns the offset behind them."""
        at = self.view().size
        for line in data.split(b"\n")[:-1]:  # Not splitlines(): that splits at returns too.
            at += len(line) + 1
            self._lines.append(line + b"\n")
            self._ends.append(at)
        return at

    def replace(self, data: bytes) -> None:
        """Put *data* in place of everything.  A torn tail gets its newline."""
        self._lines, self._ends = [], []
        self.born += 1
        self.append(data if data.endswith(b"\n") or not data else data + b"\n")
