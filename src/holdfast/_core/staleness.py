"""
What may be done about a claim that stands where we want to put ours.

Facts come from the backend; the verdict comes from here, with the label of its row, so
that a log line and a review can argue about "@L".  The rows below are those that a waiter
needs which already holds the latch.  They are the only ones that ever reclaim.

| | @L | @C | @W |
|---|---|---|---|
| the claim is one of ours (Holdfast wrote it) | 1 | 1 | _ |
| we hold the transcript's latch | 1 | 1 | _ |
| same boot | 1 | 0 | _ |
| same host, and the file system is local | _ | 1 | _ |
| **verdict** | reclaim | reclaim | wait |

@L: whoever writes our claims holds the latch until its claim is gone.  The kernel gave the
latch to us, so that owner has no descriptor left: it is dead, or gave up removing it.  Its
pid says nothing more, in whatever namespace it counted.
@C: no process outlives its boot.  But only one machine's word for it: two that share a file
system may have one name.
@W: anything else belongs to somebody whom the latch does not bind.  It is waited for.  Age
alone never removes a claim, in any row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["ROWS", "ClaimFacts", "Row", "Verdict", "verdict"]

Verdict = Literal["wait", "reclaim"]


@dataclass(frozen=True, slots=True)
class ClaimFacts:
    """What is known about a standing claim.  What could not be read is False."""

    ours: bool  #: Readable, and written by a Holdfast.
    latched: bool  #: We hold the latch of the very transcript that it claims.
    same_boot: bool  #: Its boot id is known and equals ours.
    other_boot: bool  #: Its boot id is known and differs from ours.
    same_host: bool
    local: bool  #: The file system belongs to this machine alone.


@dataclass(frozen=True, slots=True)
class Row:
    label: str
    needs: tuple[str, ...]  #: Fields of `ClaimFacts` that must all be true.
    verdict: Verdict


#: In order; the first row whose needs are met decides.
ROWS: Final = (
    Row("@L", ("ours", "latched", "same_boot"), "reclaim"),
    Row("@C", ("ours", "latched", "other_boot", "same_host", "local"), "reclaim"),
    Row("@W", (), "wait"),
)


def verdict(facts: ClaimFacts) -> Row:
    """The row that *facts* fall under.  Total: the last row needs nothing."""
    return next(row for row in ROWS if all(getattr(facts, need) for need in row.needs))
