"""Guarantees taken out on purpose, to show that the tests notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast._core.branch import Branch
from holdfast._runtime import attempt, beginning


def load_history_outside_the_lock(waiting: Callable[[], None]) -> None:
    """The defect that "a token takes effect under the write lock" excludes."""

    async def begin(self: Any) -> Any:
        stale = self.store.transcripts.read(self.session)
        waiting()
        await self.acquire()

        class Stale:
            def branch(self) -> Any:
                return Branch.of(stale, 0)

            def about(self, *_: Any) -> Any:
                return stale

            def __getattr__(self, name: str) -> Any:
                return getattr(held, name)

        held, self.held = self.held, Stale()
        try:
            begun = await beginning.load(self, self._leased)
            self.held = held
            if isinstance(begun, beginning.Begun):
                await self._window.open()
        finally:
            self.release()
        if isinstance(begun, beginning.Begun):
            await self.store.control.make_effective(self.turn.turn_id, self.token)
        return begun

    attempt.Attempt.begin = begin  # type: ignore[method-assign]
