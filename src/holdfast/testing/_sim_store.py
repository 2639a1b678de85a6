"""
Stores of simulated processes: control in memory, transcripts by the files code.

Every transaction of the control store is one step: before it, another process may run, this
one may be stopped or killed, or the store may fail, having done what was asked or not.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from holdfast.backends.files.lock import tally
from holdfast.backends.files.transcript.transcripts import FilesTranscripts
from holdfast.backends.memory.control import MemoryControl
from holdfast.backends.memory.store import MemoryStore
from holdfast.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast._core.settings import Settings
    from holdfast.backends.memory.world import World as Control
    from holdfast.testing._sim_world import World
    from holdfast.types import HoldStatistics, OwnerId

__all__ = ["STATE", "SimStore", "SteppedStore"]

STATE: Final = "/s"
T = TypeVar("T")


class SimStore(MemoryStore):
    """The `Store` port: control in memory, transcripts by the files code."""

    def __init__(self, control: Control, settings: Settings, state: str = STATE) -> None:
        super().__init__(control, settings)
        self.transcripts = FilesTranscripts(  # type: ignore[assignment]
            state,
            durability=settings.durability,
            max_hold_ms=settings.write_lock_max_hold_ms,
        )

    def hold_statistics(self) -> HoldStatistics:
        """The write locks of this process."""
        return tally.statistics()


class SteppedStore(SimStore):
    """
    As `SimStore`, in a simulated process.

    Args:
        changed: called after every transaction that may have changed something.
        by_token: called before that, if it was made under a fencing token: its name, the
            token, and what it was for.
    """

    def __init__(
        self,
        control: Control,
        settings: Settings,
        sim: World,
        changed: Callable[[], None],
        by_token: Callable[..., None],
    ) -> None:
        super().__init__(control, settings)
        self.control = _SteppedControl(control, self.owner.owner_id, sim, changed, by_token)


class _SteppedControl(MemoryControl):
    """Its transactions are steps of the simulation, each under its own name."""

    def __init__(
        self, control: Control, owner_id: OwnerId, sim: World,
        changed: Callable[[], None], by_token: Callable[..., None],
    ) -> None:  # fmt: skip
        super().__init__(control, owner_id)
        self._sim, self._changed, self._by_token = sim, changed, by_token
        self._writes: set[int] = set()

    async def _write(self, run: Callable[[Any], T], **how: Any) -> T:
        self._writes.add(id(run))
        try:
            return await super()._write(run, **how)
        finally:
            self._writes.discard(id(run))

    def _read(self, run: Any) -> Any:
        name, writes = _named(run.__qualname__), id(run) in self._writes
        try:
            after = self._sim.step(name, ())
        except OSError as error:
            raise UnavailableError(path="sim:", detail=str(error), landed=False) from error
        done = super()._read(run)
        if self._sim.trace is not None:
            self._sim.note_call(name, (), done)
        if writes:
            if "token" in run.__code__.co_freevars:
                self._by_token(name, **_under_token(run))
            self._changed()
            if after is not None:
                raise UnavailableError(path="sim:", detail=str(after), landed=None) from after
        return done


def _under_token(run: Any) -> dict[str, Any]:
    """The token that a transaction's body was given, and the turn or session it is for."""
    given = zip(run.__code__.co_freevars, run.__closure__, strict=True)
    named = {name: cell.cell_contents for name, cell in given}
    return {each: named.get(each) for each in ("token", "turn_id", "session_id")}


@lru_cache(maxsize=1024)
def _named(qualname: str) -> str:
    """The port's method that a transaction's body stands in."""
    words = qualname.split(".")
    return f"control.{words[1] if len(words) > 1 else words[0]}"
