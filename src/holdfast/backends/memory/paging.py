"""
Pages of a transcript, for whoever reads along: no lock, no row, no byte changed.

A cursor is ``<generation>.<offset behind the entry>``, as on files.  Whoever rewrites a
transcript raises the generation, and then every older cursor starts over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast._core import jsonl
from holdfast.errors import BadRequestError
from holdfast.types import EntriesPage

if TYPE_CHECKING:
    from holdfast.backends.memory.lines import View
    from holdfast.types import Entry

__all__ = ["last_entries", "offset_of", "page"]

#: A page is cut short here, so that its memory is bounded; one entry is always whole.
PAGE_BYTES: Final = 4 * 1024 * 1024


def offset_of(cursor: str | None, generation: int) -> int:
    """
    Where to go on reading.

    Raises:
        BadRequestError: not a cursor that we gave.
    """
    if cursor is None:
        return 0
    numbered, _, offset = cursor.partition(".")
    if not (_is_number(numbered) and _is_number(offset)):
        raise BadRequestError(
            detail=f"after = {cursor[:80]!r} is not a cursor",
            hint="give one that an earlier answer gave as `cursor` or `next`",
        )
    return int(offset) if int(numbered) == generation else 0


def page(view: View, generation: int, start: int, limit: int) -> EntriesPage:
    """
    At most *limit* entries that begin at or after *start*.

    A start that is no line's beginning is one of another transcript: it starts over.
    """
    first = number = view.index_at(start) or 0
    found: list[tuple[str, Entry]] = []
    while number < view.count and len(found) < limit:
        if view.end_of(number - 1) - view.end_of(first - 1) >= PAGE_BYTES:
            break
        found += _entry(view, number, generation)
        number += 1
    return EntriesPage(tuple(found), f"{generation}.{view.end_of(number - 1)}")


def last_entries(view: View, generation: int, count: int) -> EntriesPage:
    """The last *count* entries there are."""
    found: list[tuple[str, Entry]] = []
    number = view.count
    while number and len(found) < count:
        number -= 1
        found += _entry(view, number, generation)
    return EntriesPage(tuple(reversed(found)), f"{generation}.{view.size}")


def _entry(view: View, number: int, generation: int) -> list[tuple[str, Entry]]:
    """
    The entry on line *number*, with its cursor; none if it does not parse, or is the header.
    """
    cursor = f"{generation}.{view.end_of(number)}"
    lines = jsonl.lines(view.line(number)) if number else ()
    return [(cursor, line.entry) for line in lines if line.entry is not None]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 18
