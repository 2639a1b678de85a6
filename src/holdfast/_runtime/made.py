"""
What a run has made on the way to its reply: durable before the agent goes on.

Each message has the id of the transcript entry that it will be from the moment it is durable:
a tool result the one that was noted with the intent to run its tool, any other a new one.

An attempt begins with what earlier ones have made.  Where the last assistant message has a
call without its result, the results behind it are held back, and the agent makes all of its
calls again: the hook replays those that have run.  So agents need not know half a batch.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from holdfast import _points
from holdfast._stamps import uuid7
from holdfast.types import MadeEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from holdfast.ports.control.making import Making
    from holdfast.types import FencingToken, TurnId

__all__ = ["MadeSoFar"]


class MadeSoFar:
    """
    The messages of one run, oldest first.  Loop-bound.

    Args:
        carried: what earlier runs have made, whether or not the store's rows have it.
    """

    def __init__(
        self,
        store: Making,
        turn_id: TurnId,
        token: FencingToken,
        carried: Sequence[MadeEntry] = (),
    ) -> None:
        self._store, self._turn_id, self._token = store, turn_id, token
        self._entries = list(carried)
        self._unsaved = list(carried)
        self._held_back: dict[str, MadeEntry] = {}  #: By the call's key.
        self._result_ids: dict[str, str] = {}  #: By the call's key, until its result is here.
        self._asked: Counter[str] = Counter()  #: How many messages have a call of this id.

    @property
    def entries(self) -> tuple[MadeEntry, ...]:
        return tuple(self._entries)

    @property
    def messages(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(each.message for each in self._entries)

    @property
    def in_batch(self) -> bool:
        """Whether the last assistant message has a call without its result."""
        asked, answered, _ = self._last_batch()
        return not asked <= answered

    def begin(self) -> tuple[Mapping[str, Any], ...]:
        """What the next attempt goes on after."""
        self._asked = Counter(
            call_id for each in self._entries for call_id in _calls(each.message)
        )
        asked, answered, at = self._last_batch()
        if not asked <= answered:
            for each in self._entries[at:]:
                self._held_back[self.key(str(each.message.get("toolCallId")))] = each
            del self._entries[at:]
        return self.messages

    async def add(self, message: Mapping[str, Any]) -> None:
        """
        Make *message* durable, behind all that is here.

        Raises:
            LeaseLostError, StoreError.
        """
        entry = self._entry(message)
        if entry is not None:
            await self._store.add_made(self._turn_id, self._token, [*self._unsaved, entry])
            self._unsaved.clear()
            self._entries.append(entry)
            _points.reach("made.added")

    def note(self, entries: Iterable[MadeEntry]) -> None:
        """These are behind all that is here, and durable already: steered messages."""
        self._entries.extend(entries)

    def key(self, call_id: str) -> str:
        """
        A call's id among all calls of the turn.

        Some models number their calls anew with each message.  An id that came before has
        the number of its message behind it; the same in every attempt.
        """
        times = self._asked[call_id]
        return call_id if times <= 1 else f"{call_id}#{times}"

    def expect(self, key: str, result_id: str) -> None:
        """The result of this call will have the entry id *result_id*."""
        self._result_ids[key] = result_id

    def _entry(self, message: Mapping[str, Any]) -> MadeEntry | None:
        """The entry that *message* is to be; None: it was made before, and is back."""
        if message.get("role") == "toolResult":
            key = self.key(str(message.get("toolCallId")))
            entry_id = self._result_ids.pop(key, None)
            if (before := self._held_back.pop(key, None)) is not None:
                self._entries.append(before)
                return None
            return MadeEntry(entry_id or uuid7(), message)
        if calls := _calls(message):
            self._asked.update(calls)
            self._held_back.clear()
        return MadeEntry(uuid7(), message)

    def _last_batch(self) -> tuple[set[str], set[str], int]:
        """
        The last assistant message's calls, those of them with a result, and where its
        results begin.  Behind a message of the user's a batch is over.
        """
        answered = set[str]()
        for at in range(len(self._entries), 0, -1):
            message = self._entries[at - 1].message
            match message.get("role"):
                case "toolResult":
                    answered.add(str(message.get("toolCallId")))
                case "assistant":
                    return set(_calls(message)), answered, at
                case _:
                    break
        return set(), answered, len(self._entries)


def _calls(message: Mapping[str, Any]) -> list[str]:
    """The ids of the calls in an assistant message, each once."""
    content = message.get("content")
    if message.get("role") != "assistant" or not isinstance(content, list):
        return []
    found = [
        str(block.get("id"))
        for block in content
        if isinstance(block, dict) and block.get("type") == "toolCall"
    ]
    return list(dict.fromkeys(found))
