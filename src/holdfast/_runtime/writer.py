"""What may be done to a transcript under its write lock, by a lone attempt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from holdfast._stamps import now_iso, uuid7
from holdfast.errors import LockLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from holdfast._core.tree import Tree
    from holdfast.ports.attempts import HeldAlone
    from holdfast.types import Entry

__all__ = ["Writer", "beside", "completed", "several"]


class Writer:
    """
    The write lock of one transcript, lent by its attempt for one `locked_write`.

    Not to be kept, and not to be held across an await on a model, a tool or a hook.
    """

    def __init__(
        self,
        held: HeldAlone,
        *,
        check: Callable[[], None],
        wrote: Callable[[list[Entry]], None],
        lost: Callable[[LockLostError], None],
        ours: Collection[str],
    ) -> None:
        self._held, self._check, self._wrote, self._lost = held, check, wrote, lost
        self._ours = ours

    @property
    def path(self) -> str:
        return self._held.path

    @property
    def head(self) -> str | None:
        """The active leaf: what the next entry is put onto."""
        return self._held.leaf()

    def history(self) -> tuple[Mapping[str, Any], ...]:
        """The messages of the active branch, oldest first.  Raises as `load`."""
        return self._held.branch().history()

    def load(self) -> Tree:
        """The whole transcript.  Raises BadTranscriptError, StoreError."""
        return self._held.load()

    def append(
        self, entries: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, final: bool = True
    ) -> list[Entry]:
        """
        Append, as one write: all of *entries*, in order, or none.

        Args:
            entries: one or several; each an entry (``{"type": …}``) or a bare message
                (``{"role": …}``).  What is missing of ``id``, ``timestamp`` and ``parentId``
                is filled in: a chain, put onto the head as it is now.  A ``parentId`` that
                names a head which this attempt has seen is moved there too.
            final: synced under durability ``turn``.

        Returns:
            The entries as they stand in the file.

        Raises:
            AbortedError, TakeoverError: this attempt may not write any more.
            LockLostError: somebody removed our claim, or our watchdog ended the hold.
            BadTranscriptError: no transcript any more.
            StoreError: see its ``landed``; otherwise nothing was written.

        Cancellation:
            Not a coroutine.
        """
        self._check()
        batch = completed(several(entries), self._held.leaf(), self._ours)
        try:
            self._held.append(batch, final=final)
        except LockLostError as error:
            self._lost(error)
            raise
        self._wrote(batch)
        return batch


def several(
    entries: Mapping[str, Any] | Sequence[Mapping[str, Any]],
) -> Sequence[Mapping[str, Any]]:
    return (entries,) if isinstance(entries, Mapping) else entries


def completed(
    given: Sequence[Mapping[str, Any]], head: str | None, seen: Collection[str]
) -> list[Entry]:
    """*given* as whole entries, chained, and put onto *head* unless they stand elsewhere."""
    batch: list[Entry] = []
    for entry in given:
        whole = dict(entry)
        if "type" not in whole:
            whole = {"type": "message", "message": whole}
        whole = {
            "type": whole.pop("type"),
            "id": whole.pop("id", None) or uuid7(),
            "parentId": whole.pop("parentId", None),
            "timestamp": whole.pop("timestamp", None) or now_iso(),
            **whole,
        }
        parent = whole["parentId"]
        if parent is None or parent in seen:
            whole["parentId"] = batch[-1]["id"] if batch else head
        batch.append(whole)
    return batch


def beside(given: Sequence[Mapping[str, Any]], head: str | None) -> list[Entry]:
    """*given* as a side branch on *head*: kept, marked, and never the conversation's leaf."""
    return [
        {
            **entry,
            "appendMode": "side",
            "holdfast": {**(entry.get("holdfast") or {}), "salvaged": True},
        }
        for entry in completed(given, head, [str(entry.get("parentId")) for entry in given[:1]])
    ]
