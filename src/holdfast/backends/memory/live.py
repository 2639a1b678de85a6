"""Live output in memory: one log a token, as on files; see `ports.LiveOutput`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from holdfast._core import jsonl
from holdfast.types import LiveEvent, TurnId

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from holdfast.backends.memory.world import World
    from holdfast.types import FencingToken, OwnerId

__all__ = ["MemoryLive"]

#: Read at once: a slow reader's backlog stays in the log.  An event is far smaller.
CHUNK_BYTES: Final = 65_536


class LiveFile:
    """One token's log, open for appending."""

    def __init__(self, world: World, owner_id: OwnerId, turn_id: TurnId, token: int) -> None:
        self._world, self._owner_id = world, owner_id
        self._log: bytearray | None = None
        self._turn_id, self._token = turn_id, token
        with world.mutex:
            self._log = world.logs.setdefault(turn_id, {}).setdefault(token, bytearray())
        world.poke_logs(turn_id, token)

    def write(self, line: bytes) -> None:
        """One line, newline included.  Of an owner that is gone nothing is heard."""
        if self._log is None or self._owner_id in self._world.gone:
            return
        with self._world.mutex:
            self._log += line
        self._world.poke_logs(self._turn_id, self._token)

    def close(self) -> None:
        self._log = None


class LiveTail:
    """The logs of one turn, read as they grow: the newest token's, and never an older one."""

    def __init__(self, world: World, turn_id: TurnId) -> None:
        self._world, self._turn_id = world, turn_id
        self._token = self._at = 0

    def read(self, newest: int) -> list[LiveEvent]:
        """Some new events; none: there are no more for now."""
        if newest > self._token:
            self._token, self._at = newest, 0
        with self._world.mutex:
            log = self._world.logs.get(self._turn_id, {}).get(self._token, b"")
            data = bytes(log[self._at : self._at + CHUNK_BYTES])
            if b"\n" not in data:  # One event longer than a chunk: it is read whole.
                data = bytes(log[self._at :])
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        lines = (line.entry for line in jsonl.lines(whole))
        return [event for line in lines if line and (event := _event(line)) is not None]


class MemoryLive:
    """The `LiveOutput` port on a `World`, for one owner."""

    def __init__(self, world: World, owner_id: OwnerId) -> None:
        self._world, self._owner_id = world, owner_id

    def open(self, turn_id: TurnId, token: FencingToken) -> LiveFile:
        return LiveFile(self._world, self._owner_id, turn_id, token)

    def turn_ids(self) -> set[str]:
        """Every turn that has a log."""
        with self._world.mutex:
            return set(self._world.logs)

    def newest(self, turn_ids: Collection[TurnId]) -> dict[TurnId, int]:
        """The newest token that has a log, of each of *turn_ids* that has any."""
        with self._world.mutex:
            found = {turn_id: self._world.logs.get(turn_id) for turn_id in turn_ids}
            return {turn_id: max(logs) for turn_id, logs in found.items() if logs}

    def tail(self, turn_id: TurnId) -> LiveTail:
        return LiveTail(self._world, turn_id)

    def watch(self, told: Callable[[TurnId, int], None]) -> Callable[[], None]:
        """Call *told* on the running event loop when a log has grown."""
        return self._world.watch(self._owner_id, told, logs=True)

    def remove(self, is_over: Callable[[str], bool]) -> int:
        """Remove the logs of turns that *is_over*; returns how many went."""
        over = [turn_id for turn_id in self.turn_ids() if is_over(turn_id)]
        with self._world.mutex:
            return sum(len(self._world.logs.pop(TurnId(turn_id), ())) for turn_id in over)


def _event(line: dict[str, Any]) -> LiveEvent | None:
    token, _, number = str(line.get("id")).partition(".")
    data = line.get("data")
    if not (token.isdecimal() and number.isdecimal() and isinstance(data, dict)):
        return None
    return LiveEvent(
        (int(token), int(number)), str(line.get("event")), str(line.get("at")), data
    )
