"""
Cutting a text into the parts that a channel takes, and what a part is sent as.  Pure.

A cut is made between two paragraphs if one can be found, else two lines, else two words, else
two characters as people see them; white space at a cut is dropped, nothing else ever is.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from holdfast.types import Turn

__all__ = ["PART_CHARS_LEAST", "PART_CHARS_MOST", "Part", "cut", "notice_of", "parts_of"]

PART_CHARS_LEAST: Final = 20
PART_CHARS_MOST: Final = 1_000_000

_JOINER: Final = "\u200d"
_SELF_CANCELLED: Final = "cancelled"


class Part(NamedTuple):
    """One part, as it is stored and sent at every attempt."""

    delivery_id: str  #: The stable key: turn id, dot, part.
    part: int  #: From 1.
    parts: int
    body: bytes  #: JSON.
    body_hash: str  #: SHA-256, hex.


def parts_of(turn: Turn, kind: str, text: str) -> list[Part]:
    """
    What is owed to the target of *turn*; empty if it has none, or nothing is to be said.

    Args:
        turn: its row as it stands, with its outcome.
        kind: ``reply`` or ``notice``.
    """
    if turn.target is None:
        return []
    texts = cut(text, turn.part_chars or PART_CHARS_MOST)
    found = []
    for number, each in enumerate(texts, 1):
        told: dict[str, Any] = {
            "type": kind,
            "turn_id": turn.turn_id,
            "session_id": turn.session_id,
            "session": turn.session_key,
            "to": turn.target.partition(":")[2],
            "part": number,
            "parts": len(texts),
            "outcome": turn.outcome,
            "reason": turn.reason,
            "text": each,
        }
        body = msgspec.json.encode(told)
        found.append(
            Part(
                f"{turn.turn_id}.{number}", number, len(texts), body,
                hashlib.sha256(body).hexdigest(),
            )
        )  # fmt: skip
    return found


def notice_of(turn: Turn) -> str | None:
    """What the sender of a turn that ended without a reply is told; None: nothing."""
    match turn.outcome:
        case "failed":
            told = "This message could not be answered"
        case "refused":
            told = "This message was refused"
        case "cancelled" if turn.reason != _SELF_CANCELLED:
            told = "The answer to this message was stopped"
        case _:
            return None
    why = (turn.reason or "").replace("_", " ")
    what = turn.hint or "send it again if it still matters"
    return f"{told}{f' ({why})' if why else ''}: {what}."


def cut(text: str, limit: int) -> list[str]:
    """
    *text* in parts of at most *limit* characters (code points), none of them blank.

    What people see as one character is not cut unless it alone is longer than *limit*.
    """
    assert limit > 0, limit
    if len(text) <= limit:
        return [text] if text.strip() else []
    parts, at, end = [], len(text) - len(text.lstrip()), len(text.rstrip())
    while end - at > limit:
        window = text[at : min(at + limit + 2, end)]
        to = _place(window, limit)
        parts.append(window[:to].rstrip())
        at += to
        # A line keeps its indentation; only what would begin a part with blank lines goes.
        blank = "\r\n" if text[at] in "\r\n" else " \t"
        while text[at] in blank:  # Ends: what stands before `end` is not white space.
            at += 1
    return [each for each in [*parts, text[at:end]] if each.strip()]


def _place(window: str, limit: int) -> int:
    """Where to cut: behind at least one character that is not white space."""
    # A paragraph's end right at the beginning is no good place.
    least = max(limit // 4, len(window) - len(window.lstrip()) + 1)
    for mark in ("\n\n", "\n"):
        at = window.rfind(mark, least, limit + len(mark))
        if at >= 0:
            return at
    for at in range(limit, least - 1, -1):
        if window[at].isspace() and not _joined(window, at):
            return at
    for at in range(limit, 0, -1):
        if not _joined(window, at):
            return at
    return limit


def _joined(text: str, at: int) -> bool:
    """Whether people see what stands before and after *at* as one character."""
    before, after = text[at - 1], text[at]
    if before == "\r" and after == "\n":
        return True
    if before in "\r\n" or after in "\r\n":
        return False
    if _JOINER in (before, after) or _extends(after):
        return True
    if _is_flag(before) and _is_flag(after):  # Two letters are one flag.
        start = at
        while start and _is_flag(text[start - 1]):
            start -= 1
        return (at - start) % 2 == 1
    return _is_hangul_joined(before, after)


def _extends(char: str) -> bool:
    skin = "\U0001f3fb" <= char <= "\U0001f3ff"
    tag = "\U000e0020" <= char <= "\U000e007f"  # England's flag is made of them.
    return skin or tag or unicodedata.category(char)[0] == "M"


def _is_flag(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _is_hangul_joined(before: str, after: str) -> bool:
    """By the rules GB6 to GB8 of Unicode's segmentation."""
    lead = "\u1100" <= before <= "\u115f"
    syllable = "\uac00" <= before <= "\ud7a3"
    vowel = "\u1160" <= before <= "\u11a7"
    tail = "\u11a8" <= before <= "\u11ff"
    if "\u1160" <= after <= "\u11a7":
        return lead or vowel or (syllable and (ord(before) - 0xAC00) % 28 == 0)
    if "\u11a8" <= after <= "\u11ff":
        return vowel or tail or syllable
    return lead and ("\u1100" <= after <= "\u115f" or "\uac00" <= after <= "\ud7a3")
