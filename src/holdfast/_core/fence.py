"""
The fence: what happened to a transcript while we did not hold its write lock.

A *mark* says how far the transcript went when the window opened.  When it closes, the file is
looked at again, and the table says what that look is worth:

    same           nothing has happened
    appended       what stood at the mark still does, and more stands behind it
    rewritten      what stood at the mark is gone, or nobody can show that it is not
    needs_digest   the look cannot tell: compare all the bytes that stood at the mark

Rules
-----
1. The tail (the last bytes before the mark) decides only while the file is the same one:
   device, inode, birth.  Its owner, its mode and its change time say nothing.
2. A digest is of *whole lines*.  A torn tail was nobody's entry: who cuts it off, or gives it
   a newline, has taken nothing away.
3. The digest of what stood at the mark proves growth as well: a copy with more lines at its
   end, put in the file's place, is `appended`.
4. Not found here, by design: bytes changed before the tail of a file that keeps its inode and
   has grown meanwhile.  Looking for it would cost the whole file at every window; `verify`
   looks.  Nor a change within one tick of the file system's clock that keeps the size.
5. What we append ourselves inside a window goes into the window's ledger.  It is not told as
   somebody else's, and if it is gone again, the transcript was rewritten.
6. Every kind of entry counts as growth, unknown ones included: none of them is a takeover.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal

from holdfast._core import jsonl
from holdfast._core.tree import Tree, moves_leaf
from holdfast.types import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from holdfast._core.jsonl import Line
    from holdfast.types import Entry, Mark

__all__ = [
    "DIGEST_BYTES_MAX",
    "ROWS",
    "TAIL_BYTES",
    "Ledger",
    "Look",
    "Row",
    "Size",
    "Verdict",
    "branch_after",
    "classify",
    "is_control",
    "is_same_file",
    "last_base",
    "row",
    "size_of",
    "told",
]

TAIL_BYTES: Final = 4096  #: Compared, before the mark, in every window.
#: A longer transcript is not hashed: what its look cannot tell counts as rewritten.
DIGEST_BYTES_MAX: Final = 256 * 1024 * 1024

Verdict = Literal["same", "appended", "rewritten", "needs_digest"]


class Size(Enum):
    """How long the file is now, beside how long it was at the mark."""

    CUT = "cut"  #: Shorter than its whole lines were.
    SHRUNK = "shrunk"  #: Shorter, but only the torn tail can be missing.
    EQUAL = "equal"
    GROWN = "grown"


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a file: what `stat` says of it."""

    device: int
    inode: int
    birth_ns: int | None  #: None: the platform does not say.
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.  None: whatever it is."""

    label: str
    same_file: bool | None
    sizes: tuple[Size, ...]
    same_mtime: bool | None
    same_tail: bool | None
    verdict: Verdict
    why: str


ROWS: Final[tuple[Row, ...]] = (
    Row("=A", None, (Size.CUT,), None, None, "rewritten", "it is shorter than it was"),
    Row("=B", False, (Size.SHRUNK, Size.EQUAL, Size.GROWN), None, None, "needs_digest",
        "another file stands in its place"),
    Row("=C", True, (Size.SHRUNK,), None, None, "needs_digest", "its torn tail was cut"),
    Row("=D", True, (Size.EQUAL, Size.GROWN), None, False, "rewritten",
        "the bytes before our mark have changed"),
    Row("=E", True, (Size.EQUAL,), False, True, "needs_digest", "it was written to in place"),
    Row("=F", True, (Size.EQUAL,), True, True, "same", ""),
    Row("=G", True, (Size.GROWN,), None, True, "appended", "others have appended to it"),
)  # fmt: skip


def size_of(mark: Mark, look: Look) -> Size:
    if look.size < mark.whole:
        return Size.CUT
    if look.size < mark.size:
        return Size.SHRUNK
    return Size.EQUAL if look.size == mark.size else Size.GROWN


def is_same_file(mark: Mark | Look, look: Look) -> bool:
    """Device, inode and birth.  An inode's number alone may be another file's by now."""
    return (mark.device, mark.inode, mark.birth_ns) == (look.device, look.inode, look.birth_ns)


def row(*, same_file: bool, size: Size, same_mtime: bool, same_tail: bool) -> Row:
    """The one row that matches."""
    [found] = (
        row
        for row in ROWS
        if row.same_file in {None, same_file}
        and size in row.sizes
        and row.same_mtime in {None, same_mtime}
        and row.same_tail in {None, same_tail}
    )
    return found


def classify(mark: Mark, look: Look, tail: bytes | None) -> Row:
    """
    What *look* says of a transcript since *mark*.

    Args:
        tail: what stands where the mark's tail stood; None: not read, or not there.
    """
    return row(
        same_file=is_same_file(mark, look),
        size=size_of(mark, look),
        same_mtime=look.mtime_ns == mark.mtime_ns,
        same_tail=tail == mark.tail,
    )


# --------------------------------------------------------------------- what stands behind it


@dataclass(slots=True)
class Ledger:
    """What one window has appended itself.  Dropped with the window."""

    ids: set[str] = field(default_factory=set)

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        self.ids.update(entry["id"] for entry in entries)


def told(
    mark: Mark, rest: bytes, own: Ledger | None, whole: Callable[[], str | None]
) -> Change:
    """
    What *rest*, the bytes behind the mark's last whole line, tell.  What stands before them
    is known to be what stood there.

    Args:
        whole: reads the whole transcript for its leaf; called only if *rest* cannot tell.

    Returns:
        `same` or `appended`; `rewritten` if own entries are missing.
    """
    found = list(jsonl.lines(rest, offset=mark.whole))
    ours = own.ids if own is not None else set()
    # At the very beginning stands the header, which is no entry.
    entries = tuple(line.entry for line in found if line.entry is not None and line.offset)
    seen = {entry_id for entry in entries if isinstance(entry_id := entry.get("id"), str)}
    if ours - seen:
        return Change("rewritten", (), None, "what we appended in this window is gone")
    known, head = branch_after(mark.leaf, found, begun=mark.whole > 0)
    if not known:
        head = whole()
    others = tuple(entry for entry in entries if entry.get("id") not in ours)
    # The torn tail that stood at the mark may have got its newline from us.
    strange = [line for line in found if line.entry is None and line.offset != mark.whole]
    torn = len(rest) - (rest.rfind(b"\n") + 1)
    quiet = not others and not strange and (not torn or mark.whole + len(rest) <= mark.size)
    if quiet and (ours or not found):
        return Change("same", (), head, "")
    return Change("appended", others, head, "others have appended to it")


def branch_after(
    leaf: str | None, lines: Iterable[Line], *, begun: bool = True
) -> tuple[bool, str | None]:
    """
    Where the leaf is after *lines*, if it was at *leaf* before them.

    Args:
        begun: a header stands before them.

    Returns:
        (True, the leaf), as the whole tree would say; (False, None): a `leaf` entry names
        something that stands further up.
    """
    tree = Tree(header={} if begun else None, leaf=leaf)
    if leaf is not None:
        tree.entries[leaf] = {}
    for line in lines:
        if is_control(line) and tree.header is not None:
            assert line.entry is not None
            target = line.entry.get("targetId")
            if isinstance(target, str) and target not in tree.entries:
                return False, None
        tree.feed((line,))
    return True, tree.leaf


def is_control(line: Line) -> bool:
    """Whether it says itself where the leaf is."""
    return line.entry is not None and line.entry.get("type") == "leaf"


def last_base(lines: list[Line]) -> tuple[bool, str | None]:
    """
    The leaf, by the last lines of a transcript alone: from the last entry that becomes the
    leaf whatever stands before it.

    Returns:
        (True, the leaf); (False, None): these lines do not tell.

    Relies on ids that occur once.  A second entry with an id that stands further up is
    passed over by the whole tree, but not here.
    """
    for at in reversed(range(len(lines))):
        entry: Entry | None = lines[at].entry
        if entry is not None and moves_leaf(entry) and isinstance(entry.get("id"), str):
            return branch_after(entry["id"], lines[at + 1 :])
    return False, None
