"""
Files that a crash of ours left behind, and which of them may go.

    <transcript>.lock.<claim id>        a claim, written where the kernel has no nameless files
    <transcript>.lock.<claim id>.dead   a dead claim, set aside
    <transcript>.<32 hex digits>        a transcript, before it was published
    <transcript>.claim, .gate           permanent beside a transcript; strays without one
    control.db.<uuid>, .probe-<uuid>    made while a store was opened

A stray blocks nobody.  It is removed only on proof that nobody alive needs it:

- the first two are made under the latch only: whoever holds the latch knows their maker dead
- one that has a second link has served its purpose; its maker wants nothing but to remove it
- a spare without a transcript: the owner that its claim names is proven dead
- anything else stays, and is told: its name does not say who made it
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from holdfast.backends.files import fs, identity
from holdfast.backends.files.lock.standing import read_standing
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.backends.files.look.locks import transcripts_in
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Stray", "remove", "strays_in"]

LATCH_WITHIN_S: Final = 1.0

Kind = Literal["claim", "private", "spare", "gate"]

_CLAIMS: Final = re.compile(r"(?P<of>.+)\.lock\.[0-9a-f]+-\d+(\.dead)?")
_PRIVATE: Final = re.compile(
    r"(?P<of>.+)\.[0-9a-f]{32}|control\.db\.[0-9a-f-]{36}(-wal|-shm|-journal)?|\.probe-[0-9a-f-]{36}"
)


@dataclass(frozen=True, slots=True)
class Stray:
    path: str
    kind: Kind
    transcript: str | None  #: What it was made for, if that is there.
    detail: str


def strays_in(state: str) -> Iterator[Stray]:
    """Every stray below *state*.  Reading only.  Raises StoreError."""
    for directory, entries in transcripts_in(os.path.realpath(state)):
        names = {entry.name for entry in entries}
        for name in sorted(names):
            found = _stray(directory, name, names)
            if found is not None:
                yield found


def _stray(directory: str, name: str, names: set[str]) -> Stray | None:
    path = os.path.join(directory, name)
    if match := _CLAIMS.fullmatch(name):
        of = match["of"]
        there = os.path.join(directory, of) if of in names else None
        return Stray(path, "claim", there, "a claim that a crash left behind")
    if match := _PRIVATE.fullmatch(name):
        return Stray(path, "private", None, "made by a process that did not finish")
    of, _, suffix = name.rpartition(".")
    if suffix in {"claim", "gate"} and of.endswith(".jsonl") and of not in names:
        kind: Kind = "spare" if suffix == "claim" else "gate"
        return Stray(path, kind, None, "its transcript is gone")
    return None


def remove(stray: Stray) -> bool:
    """Remove *stray* on proof.  False: there is none, and it stays.  Raises StoreError."""
    if stray.kind == "claim":
        return stray.transcript is not None and _remove_under_latch(stray)
    try:
        if stray.kind == "private" and fs.table.lstat(stray.path).st_nlink < 2:
            return False
        if stray.kind == "gate" or (stray.kind == "spare" and not _owner_is_dead(stray.path)):
            return False
        fs.table.unlink(stray.path)
    except FileNotFoundError:
        return True
    except OSError as error:
        raise fs.store_error(error, stray.path, "removing a stray") from error
    return True


def _remove_under_latch(stray: Stray) -> bool:
    assert stray.transcript is not None
    try:
        with WriteLock(stray.transcript, timeout_s=LATCH_WITHIN_S):
            fs.table.unlink(stray.path)
    except FileNotFoundError:
        return True
    except HoldfastError:
        return False  # Somebody holds it; that is who may still need it.
    except OSError as error:
        raise fs.store_error(error, stray.path, "removing a stray") from error
    return True


def _owner_is_dead(path: str) -> bool:
    standing = read_standing(path)
    if standing is None:
        return True
    standing.close()
    return standing.payload is not None and identity.owner_life(standing.payload) == "dead"
